/**
 * Exchanges at a fixed rate, whatever the answers do: each has a time at which it is due, and its latency counts from
 * then, so that a stall is charged to every request that fell into it (no coordinated omission).
 */
import { assert } from "../../../base/assert.ts";
import { Connection, ENDED, NOTHING_YET, type Target, type User } from "./connection.ts";
import type { Load } from "./client_side.ts";
import type { Counters } from "./counters.ts";
import { EXCHANGE_BYTES } from "./messages.ts";
import type { Reactor } from "./reactor.ts";

// Requests of one connection that wait for their answer: at 5,000/s over 16 connections, 13 seconds' worth.
const OUTSTANDING_MAX = 4096;

/** Due times of the requests under way on one connection, oldest first. */
class Outstanding {
  readonly dueAtMs = new Float64Array(OUTSTANDING_MAX);
  head = 0;
  tail = 0;
  /** Bytes of the oldest one's answer that have come. */
  receivedBytes = 0;
}

export class OpenLoop implements Load, User {
  readonly #reactor: Reactor;
  readonly #counters: Counters;
  readonly #periodMs: number;
  readonly #connections: Connection[] = [];
  readonly #outstanding: Outstanding[] = [];
  readonly #target: Target;
  readonly #count: number;
  #opened = 0;
  #startAtMs = 0;
  #sent = 0;

  constructor(
    reactor: Reactor,
    counters: Counters,
    load: { target: Target; connections: number; ratePerSecond: number },
  ) {
    this.#reactor = reactor;
    this.#counters = counters;
    this.#periodMs = 1000 / load.ratePerSecond;
    this.#target = load.target;
    this.#count = load.connections;
  }

  start(): this {
    for (let at = 0; at < this.#count; at++) {
      const connection = Connection.connect(this.#reactor, this.#counters, this, this.#target);
      connection.mark = at;
      this.#connections.push(connection);
      this.#outstanding.push(new Outstanding());
    }
    return this;
  }

  get ready(): boolean {
    return this.#opened === this.#count;
  }

  stop(): void {
    this.#reactor.clockwork = undefined;
    for (const connection of this.#connections) connection.close();
  }

  onOpen(): void {
    this.#opened++;
    if (!this.ready) return;
    this.#startAtMs = this.#reactor.os.nowMs();
    this.#reactor.clockwork = () => this.#sendDue();
  }

  onReadable(connection: Connection): void {
    const count = connection.receive(this.#reactor.scratchBytes);
    if (count === NOTHING_YET) return;
    if (count === ENDED) return connection.lose("upstream ended the connection");
    const nowMs = this.#reactor.os.nowMs(), outstanding = this.#outstanding[connection.mark]!;
    outstanding.receivedBytes += count;
    while (outstanding.receivedBytes >= EXCHANGE_BYTES) {
      outstanding.receivedBytes -= EXCHANGE_BYTES;
      assert(outstanding.head < outstanding.tail, "an answer has a request");
      const dueAtMs = outstanding.dueAtMs[outstanding.head++ % OUTSTANDING_MAX]!;
      this.#counters.latency.record((nowMs - dueAtMs) * 1000);
      this.#counters.completed++;
    }
  }

  onWritable(): void {}
  onLost(): void {}

  /** Sends what is due by now. @returns 0: the loop spins, since epoll_wait's milliseconds are coarser than what is measured. */
  #sendDue(): number {
    const nowMs = this.#reactor.os.nowMs();
    for (;;) {
      const dueAtMs = this.#startAtMs + this.#sent * this.#periodMs;
      if (dueAtMs > nowMs) return 0;
      this.#counters.late.record((nowMs - dueAtMs) * 1000);
      const at = this.#sent++ % this.#count;
      const connection = this.#connections[at]!, outstanding = this.#outstanding[at]!;
      if (connection.closed) continue;
      if (outstanding.tail - outstanding.head >= OUTSTANDING_MAX) {
        connection.lose("more requests wait for an answer than the generator can remember");
        continue;
      }
      outstanding.dueAtMs[outstanding.tail++ % OUTSTANDING_MAX] = dueAtMs;
      if (connection.send(EXCHANGE_BYTES) !== EXCHANGE_BYTES) connection.lose("a request did not fit the socket");
    }
  }
}
