/** A client of the SOCKS listener, until it has said where it wants to go; then it is an outbound connection (ZT-189, ZT-190). */
import { Deadline } from "../../base/timer_wheel.ts";
import {
  checkGreeting,
  greetingBytes,
  readRequest,
  replyMessage,
  requestBytes,
  requestName,
  SOCKS_MESSAGE_BYTES_MAX,
  SOCKS_METHOD_CHOSEN,
  SocksReply,
} from "../../wire/socks5.ts";
import { isIpv4 } from "../../base/address.ts";
import { CONNECTION, Direction, ResponseFlag } from "../tables/layout.ts";
import { AnswerStatus, QuestionKind } from "../tables/questions.ts";
import { Connection } from "./connection.ts";
import { routeOutbound } from "./outbound.ts";
import type { Pod } from "./pod.ts";
import { Asked } from "./questions.ts";
import { POLL_IN, POLL_READ_HANGUP, type Pollable } from "./reactor.ts";
import type { Shard } from "./shard.ts";

const EAGAIN = 11;
const NEGOTIATION_TIMEOUT_MS = 5_000; // Two messages over loopback.

/** Whether a connection of the pod can be routed at once: half served it could not wait as captured ones do (ZT-016). */
export function maySpeakSocks(shard: Shard, pod: Pod): boolean {
  const { tls, failure } = pod.identity;
  return shard.view.localWorkload(pod.row) !== undefined && (tls !== undefined || failure !== undefined);
}

/** Reads the two messages and not a byte more: what follows is the application's. */
export class SocksNegotiation extends Connection implements Pollable {
  readonly fd: number;
  readonly #message = new Uint8Array(SOCKS_MESSAGE_BYTES_MAX);
  #have = 0;
  #greeted = false;
  #pollRow = -1;
  /** Four words of address and the port. */
  readonly #target = new Uint32Array(5);
  readonly #name = new Asked(
    () => this.#onName(),
    () => this.#refuse(SocksReply.HOST_UNREACHABLE, "SOCKS: the name was not resolved in 10 s"),
  );
  readonly #deadline = new Deadline(() => this.#refuse(SocksReply.GENERAL_FAILURE, "no SOCKS request came in time"));

  /** Takes over the descriptor and the row, whose source is set. */
  constructor(shard: Shard, pod: Pod, row: number, fd: number) {
    super(shard, pod, row, Direction.OUTBOUND);
    this.fd = fd;
  }

  start(): void {
    const { reactor } = this.shard;
    this.#pollRow = reactor.watch(this.fd, POLL_IN | POLL_READ_HANGUP, this);
    if (this.#pollRow < 0) this.end(ResponseFlag.CONNECT, "the kernel watches no more descriptors");
    else reactor.timers.set(this.#deadline, NEGOTIATION_TIMEOUT_MS, reactor.nowMs);
  }

  onEvents(_events: number): void {
    if (this.#name.number >= 0) { // Only an error or a hang-up comes while a name is resolved.
      this.end(ResponseFlag.CONNECT, "the SOCKS client ended before its name was resolved");
      return;
    }
    while (!this.closed && this.#name.number < 0 && this.#receive()) {
      if (this.#greeted) this.#onRequest();
      else this.#onGreeting();
    }
  }

  /** @returns Whether a message is complete. */
  #receive(): boolean {
    const { os, buffers } = this.shard, { memory } = os;
    for (;;) {
      const length = this.#greeted ? requestBytes(this.#message, this.#have) : greetingBytes(this.#message, this.#have);
      if (this.#have >= length) return true;
      const got = os.receive(this.fd, memory.base + buffers.receiveAt, length - this.#have);
      if (got === -EAGAIN) return false;
      if (got <= 0) {
        this.end(ResponseFlag.CONNECT, "the SOCKS client ended before its request");
        return false;
      }
      this.#message.set(memory.u8.subarray(buffers.receiveAt, buffers.receiveAt + got), this.#have);
      this.#have += got;
    }
  }

  #onGreeting(): void {
    const reply = checkGreeting(this.#message, this.#have);
    this.#have = 0;
    this.#greeted = true;
    if (reply !== SocksReply.SUCCEEDED) this.#refuse(reply, "the SOCKS client wants what is not supported");
    else this.#send(SOCKS_METHOD_CHOSEN);
  }

  #onRequest(): void {
    const reply = readRequest(this.#message, this.#have, this.#target);
    if (reply !== SocksReply.SUCCEEDED) {
      this.#refuse(reply, "the SOCKS client wants what is not supported");
      return;
    }
    const name = requestName(this.#message);
    if (name === undefined) this.#route();
    else this.#askFor(name);
  }

  /** The agent resolves a name as the pod's own DNS would, in the family that the client came by (ZT-189). */
  #askFor(name: string): void {
    const { shard, pod, row } = this, { connections } = shard, ip = CONNECTION.sourceIp;
    const v4 = isIpv4(connections.getAt(row, ip, 0), connections.getAt(row, ip, 1), connections.getAt(row, ip, 2));
    shard.reactor.timers.cancel(this.#deadline);
    shard.reactor.change(this.fd, 0, this.#pollRow); // What the client sends meanwhile is the application's.
    if (shard.questions.ask(this.#name, QuestionKind.SOCKS_NAME, pod.row, v4, name)) return;
    this.#refuse(SocksReply.GENERAL_FAILURE, "SOCKS: too many names wait to be resolved");
  }

  #onName(): void {
    const { status, word0, word1, word2, word3 } = this.#name;
    if (status === AnswerStatus.UNSUPPORTED) {
      this.#refuse(SocksReply.COMMAND_NOT_SUPPORTED, "SOCKS: names need the DNS proxy, which is off");
    } else if (status !== AnswerStatus.KNOWN) {
      this.#refuse(SocksReply.HOST_UNREACHABLE, "SOCKS: the name does not resolve");
    } else {
      this.#target.set([word0, word1, word2, word3]);
      this.#route();
    }
  }

  #route(): void {
    const { shard, pod, row, fd } = this;
    // Before anything is connected: a failure later shows as a close (ZT-190).
    if (!this.#send(replyMessage(SocksReply.SUCCEEDED))) return;
    this.closed = true; // The row lives on, with another owner.
    shard.reactor.timers.cancel(this.#deadline);
    shard.reactor.release(fd, this.#pollRow);
    shard.rows.disown(this);
    const [word0, word1, word2, word3, port] = this.#target;
    shard.rows.setDestination(row, word0!, word1!, word2!, word3!, port!);
    routeOutbound(shard, pod, row, fd);
  }

  #refuse(reply: SocksReply, reason: string): void {
    if (this.#send(replyMessage(reply))) this.end(ResponseFlag.CONNECT, reason);
  }

  /** An empty send buffer takes our few bytes whole. @returns false if it did not, and the connection has ended. */
  #send(message: Uint8Array): boolean {
    const { os, buffers } = this.shard;
    os.memory.u8.set(message, buffers.scratchAt);
    const sent = os.send(this.fd, os.memory.base + buffers.scratchAt, message.length);
    if (sent === message.length) return true;
    this.end(ResponseFlag.CONNECT, "the SOCKS client takes no answer");
    return false;
  }

  override releaseResources(_flag: number): void {
    const { reactor, os } = this.shard;
    reactor.timers.cancel(this.#deadline);
    this.shard.questions.cancel(this.#name);
    if (this.#pollRow >= 0) reactor.forget(this.#pollRow);
    os.close(this.fd);
  }
}
