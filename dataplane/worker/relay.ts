/** A connection without a tunnel: bytes between two sockets. Passthrough, plain TCP to a workload, inbound plaintext. */
import { type Direction, ResponseFlag } from "../tables/layout.ts";
import { Connection } from "./connection.ts";
import type { Pod } from "./pod.ts";
import {
  POLL_BOTH_EDGES,
  POLL_ERROR,
  POLL_HANGUP,
  POLL_IN,
  POLL_OUT,
  POLL_READ_HANGUP,
  type Pollable,
  type Resumable,
} from "./reactor.ts";
import { Deadline } from "../../base/timer_wheel.ts";
import type { Shard } from "./shard.ts";
import type { RelayEndState, RelayState } from "../tables/takeover_format.ts";

const EAGAIN = 11;
const READ_BYTES_MAX = 262_144;
export const CONNECT_TIMEOUT_MS = 10_000; // ZT-051

/** One of the two sockets. It owns the bytes that it could not take yet, at most one read of the other. */
class RelayEnd implements Pollable, Resumable {
  readonly relay: Relay;
  readonly fd: number;
  other: RelayEnd | null = null;
  pollRow = -1;
  readable = false;
  hungUp = false;
  /** Its direction of reading has ended. */
  ended = false;
  /** It has been told the end of the other's direction. */
  shut = false;
  #kept: Uint8Array | null = null;
  #keptFrom = 0;
  #resumeAsked = false;

  constructor(relay: Relay, fd: number) {
    this.relay = relay;
    this.fd = fd;
  }

  onEvents(events: number): void {
    if (this.relay.closed) return;
    if ((events & (POLL_OUT | POLL_ERROR | POLL_HANGUP)) !== 0 && this.relay.onConnectEvent(this)) return;
    if ((events & POLL_OUT) !== 0 && this.#kept !== null) this.#drain();
    if (this.relay.closed) return;
    if ((events & (POLL_READ_HANGUP | POLL_HANGUP | POLL_ERROR)) !== 0) {
      this.hungUp = true;
      this.readable = true;
    } else if ((events & POLL_IN) !== 0) this.readable = true;
    this.pump();
  }

  onResume(): void {
    this.#resumeAsked = false;
    if (!this.relay.closed) this.pump();
  }

  resumeSoon(): void {
    if (this.#resumeAsked || !this.readable || this.ended) return;
    this.#resumeAsked = true;
    this.relay.shard.reactor.resumeLater(this);
  }

  /** Moves one read from this socket to the other. */
  pump(): void {
    const other = this.other;
    if (!this.readable || this.ended || other === null || !this.relay.connected || other.#kept !== null) return;
    const { os, buffers } = this.relay.shard, memory = os.memory, at = buffers.receiveAt;
    const got = os.receive(this.fd, memory.base + at, READ_BYTES_MAX);
    if (got <= 0) {
      this.readable = false;
      if (got === -EAGAIN) return;
      this.ended = true; // Also a reset: the end of this direction.
      other.#shutdown();
      return;
    }
    this.relay.count(this, got);
    const sent = os.send(other.fd, memory.base + at, got);
    if (sent < 0 && sent !== -EAGAIN) {
      this.relay.end(ResponseFlag.NONE, undefined); // The other application has gone.
      return;
    }
    const taken = sent < 0 ? 0 : sent;
    if (taken < got) {
      const { shard, pod } = this.relay;
      if (!shard.keptByRelays.mayTake(pod.row)) {
        this.relay.end(ResponseFlag.CONNECT, "no memory left for what is not read");
        return;
      }
      other.#keep(memory.u8.slice(at + taken, at + got));
    }
    if (got < READ_BYTES_MAX && !this.hungUp) this.readable = false;
    else this.resumeSoon();
  }

  exportState(): Omit<RelayEndState, "fd"> {
    const kept = this.#kept === null ? new Uint8Array(0) : this.#kept.slice(this.#keptFrom);
    return { ended: this.ended, shut: this.shut, kept };
  }

  /** @returns false if no end keeps so much. */
  importState(state: RelayEndState): boolean {
    if (state.kept.length > READ_BYTES_MAX) return false;
    this.ended = state.ended;
    this.shut = state.shut;
    if (state.kept.length > 0) this.#keep(state.kept.slice());
    return true;
  }

  #keep(bytes: Uint8Array): void {
    this.#kept = bytes;
    this.#keptFrom = 0;
    this.relay.shard.keptByRelays.take(this.relay.pod.row, bytes.length);
  }

  /** Nothing waits any more, or will be written. */
  forgetKept(): void {
    if (this.#kept !== null) this.relay.shard.keptByRelays.give(this.relay.pod.row, this.#kept.length);
    this.#kept = null;
  }

  #drain(): void {
    const { os, buffers } = this.relay.shard, kept = this.#kept!;
    const bytes = kept.length - this.#keptFrom;
    os.memory.u8.set(kept.subarray(this.#keptFrom), buffers.receiveAt);
    const sent = os.send(this.fd, os.memory.base + buffers.receiveAt, bytes);
    if (sent < 0) {
      if (sent !== -EAGAIN) this.relay.end(ResponseFlag.NONE, undefined);
      return;
    }
    this.#keptFrom += sent;
    if (sent < bytes) return;
    this.forgetKept();
    if (this.other!.ended) this.#shutdown();
    else this.other!.resumeSoon();
  }

  /** Passes the end of the other direction on, once all bytes before it are written. */
  #shutdown(): void {
    if (this.#kept !== null || this.shut) return;
    this.shut = true;
    this.relay.shard.os.shutdownWrite(this.fd);
    if (this.ended && this.other!.shut) this.relay.end(ResponseFlag.NONE, undefined);
  }
}

/** Two sockets and the bytes between them. */
export class Relay extends Connection {
  connected = false;
  readonly #downstream: RelayEnd;
  readonly #upstream: RelayEnd;
  readonly #deadline = new Deadline(() => this.#fail("connection timed out"));

  /** Takes over both descriptors; `upstream` is connecting. */
  constructor(shard: Shard, pod: Pod, row: number, direction: Direction, downstream: number, upstream: number) {
    super(shard, pod, row, direction);
    this.#downstream = new RelayEnd(this, downstream);
    this.#upstream = new RelayEnd(this, upstream);
    this.#downstream.other = this.#upstream;
    this.#upstream.other = this.#downstream;
  }

  /** Starts watching both sockets. Call it once counters and facts are set. */
  start(): void {
    const reactor = this.shard.reactor;
    reactor.timers.set(this.#deadline, CONNECT_TIMEOUT_MS, reactor.nowMs);
    if (!this.watchEarly()) this.#fail("the kernel watches no more descriptors");
  }

  /** Watches both sockets, also before they are this process's. @returns false if the kernel refuses. */
  watchEarly(): boolean {
    for (const end of [this.#downstream, this.#upstream]) {
      end.pollRow = this.shard.reactor.watch(end.fd, POLL_BOTH_EDGES, end);
      if (end.pollRow < 0) return false;
    }
    return true;
  }

  /** What another process needs besides the row. */
  exportRelay(): {
    readonly connected: boolean;
    readonly downstream: RelayEndState;
    readonly upstream: RelayEndState;
  } {
    const [downstream, upstream] = [this.#downstream, this.#upstream].map((end) => ({
      fd: end.fd,
      ...end.exportState(),
    }));
    return { connected: this.connected, downstream: downstream!, upstream: upstream! };
  }

  /** Goes on where another process stopped. @returns false if that cannot be. */
  importRelay(state: RelayState): boolean {
    this.connected = state.connected;
    return this.#downstream.importState(state.downstream) && this.#upstream.importState(state.upstream);
  }

  /** From here on the connection is this process's. */
  goLive(): void {
    const { reactor } = this.shard;
    if (!this.connected) reactor.timers.set(this.#deadline, CONNECT_TIMEOUT_MS, reactor.nowMs);
  }

  override leaveBehind(): void {
    const { reactor, os } = this.shard;
    reactor.timers.cancel(this.#deadline);
    super.leaveBehind();
    for (const end of [this.#downstream, this.#upstream]) {
      if (end.pollRow >= 0) reactor.release(end.fd, end.pollRow);
      end.forgetKept();
      os.close(end.fd);
    }
  }

  /** @returns Whether the event was the outcome of the connect and has ended the relay. */
  onConnectEvent(end: RelayEnd): boolean {
    if (this.connected || end !== this.#upstream) return false;
    const outcome = this.shard.os.socketError(end.fd);
    if (outcome < 0) {
      this.#fail(`connect failed (errno ${-outcome})`);
      return true;
    }
    this.connected = true;
    this.shard.reactor.timers.cancel(this.#deadline);
    this.markOpen();
    this.#downstream.resumeSoon();
    return false;
  }

  count(from: RelayEnd, bytes: number): void {
    if (from === this.#downstream) this.countReceived(bytes);
    else this.countSent(bytes);
  }

  #fail(reason: string): void {
    if (!this.closed) this.end(ResponseFlag.CONNECT, reason);
  }

  override releaseResources(_flag: number): void {
    const { reactor, os } = this.shard;
    reactor.timers.cancel(this.#deadline);
    for (const end of [this.#downstream, this.#upstream]) {
      if (end.pollRow >= 0) reactor.forget(end.pollRow);
      end.forgetKept();
      os.close(end.fd);
    }
  }
}
