/** The outer stream of double HBONE: between a session with a network's gateway and the socket pair of a nested session. */
import { Deadline } from "../../base/timer_wheel.ts";
import { assert } from "../../base/assert.ts";
import type { Fd } from "../../os/api.ts";
import { ResponseFlag } from "../tables/layout.ts";
import { ClientTunnel, type ConnectTexts } from "./client_tunnel.ts";
import type { Upstream } from "./hbone_pool.ts";
import type { NestedSession } from "./nested_session.ts";
import type { Pod } from "./pod.ts";
import { POLL_BOTH_EDGES } from "./reactor.ts";
import type { Shard } from "./shard.ts";

/** From the wish for a stream to the gateway's answer: its own connect may take ten seconds, ours to it as many. */
const ANSWER_TIMEOUT_MS = 20_000;
/** For the last bytes of a nested session to leave, and for the gateway to end the stream too. */
const RUN_OUT_MS = 5_000;
/** It carries a connection, and is none: no row, no counters, no record of its own. */
const NO_ROW = -1;

export class GatewayTunnel extends ClientTunnel {
  readonly #nested: NestedSession;
  readonly #deadline = new Deadline(() => this.#onDeadline());

  constructor(shard: Shard, pod: Pod, nested: NestedSession, fd: Fd, upstream: Upstream, texts: ConnectTexts) {
    super(shard, pod, NO_ROW, fd, upstream, texts);
    this.#nested = nested;
  }

  /** Asks for a stream on a session that is shared with others. */
  start(): void {
    const { reactor } = this.shard;
    if (!this.watchApplication(POLL_BOTH_EDGES)) {
      this.end(ResponseFlag.CONNECT, "the kernel watches no more descriptors");
      return;
    }
    reactor.timers.set(this.#deadline, ANSWER_TIMEOUT_MS, reactor.nowMs);
    this.pod.pool.checkout(this);
  }

  protected override onUp(): void {
    this.shard.reactor.timers.cancel(this.#deadline);
    this.#nested.onGatewayUp();
  }

  protected override refusal(status: number): string {
    return `${super.refusal(status)} (from the network gateway)`;
  }

  /** The nested session has gone: what it said last still leaves, and nothing comes back. */
  runOut(): void {
    if (!this.up) {
      this.end(ResponseFlag.CONNECT, undefined);
      return;
    }
    const { reactor } = this.shard;
    reactor.timers.set(this.#deadline, RUN_OUT_MS, reactor.nowMs);
  }

  #onDeadline(): void {
    if (this.up) this.end(ResponseFlag.NONE, undefined);
    else this.end(ResponseFlag.CONNECT, "the network gateway did not answer within 20 s");
  }

  /** Ends the stream alone; the connection above it is the nested session's. */
  override end(flag: number, error: string | undefined): void {
    assert(!this.closed, "a stream ends once");
    this.closed = true;
    this.releaseResources(flag);
    this.#nested.onGatewayGone(flag, error);
  }

  override releaseResources(flag: number): void {
    this.shard.reactor.timers.cancel(this.#deadline);
    super.releaseResources(flag);
  }

  /** The connection's own bytes are counted where they are the application's. */
  protected override countReceived(_bytes: number): void {}
  protected override countSent(_bytes: number): void {}
}
