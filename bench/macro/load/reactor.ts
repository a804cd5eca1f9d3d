/** One thread, one epoll set: the load generator's loop. Nothing in it awaits. */
import { assert } from "../../../base/assert.ts";
import type { Fd } from "../../../os/api.ts";
import { Arena } from "../../../os/arena.ts";
import { EINTR, LinuxOs } from "../../../os/libc.ts";

const EVENTS_MAX = 512;
const EVENT_BYTES = 12; // the packed struct of x86-64

/** Whoever waits for a descriptor. */
export interface Waiter {
  onEvents(events: number): void;
}

/** Something that acts on its own time: called once a turn, it says how long the loop may sleep. */
export type Clockwork = () => number;

/** The loop. Rows of descriptors that were dropped are used again only in the next turn, so a stale event finds nobody. */
export class Reactor {
  readonly os: LinuxOs;
  /** Address and size of a scratch buffer that whoever handles an event may use until it returns. */
  readonly scratch: number;
  readonly scratchBytes: number;
  clockwork: Clockwork | undefined;
  #poll: Fd;
  #events: number;
  #waiters: (Waiter | undefined)[] = [];
  #free: number[] = [];
  #dropped: number[] = [];

  constructor(scratchBytes: number) {
    const arena = new Arena(scratchBytes + (8 << 20), { hugePages: true });
    this.os = new LinuxOs(arena);
    this.#events = arena.allocate(EVENTS_MAX * EVENT_BYTES);
    this.scratchBytes = scratchBytes;
    this.scratch = arena.base + arena.allocate(scratchBytes, 4096);
    this.#poll = this.os.pollCreate();
    assert(this.#poll >= 0, "the kernel gives an epoll instance");
  }

  /** Waits for `events` of a descriptor. @returns The row that names it. */
  add(fd: Fd, events: number, waiter: Waiter): number {
    const row = this.#free.pop() ?? this.#waiters.length;
    this.#waiters[row] = waiter;
    assert(this.os.pollAdd(this.#poll, fd, events, row) === 0, "the descriptor is open and can be polled");
    return row;
  }

  change(fd: Fd, events: number, row: number): void {
    assert(this.os.pollChange(this.#poll, fd, events, row) === 0, "the descriptor is in the set");
  }

  /** Forgets a row; the caller closes the descriptor. */
  drop(row: number): void {
    assert(this.#waiters[row] !== undefined, "a row is dropped once");
    this.#waiters[row] = undefined;
    this.#dropped.push(row);
  }

  /** One wait and all its events. */
  turn(): void {
    const timeoutMs = this.clockwork === undefined ? -1 : this.clockwork();
    const count = this.os.wait(this.#poll, this.os.memory.base + this.#events, EVENTS_MAX, timeoutMs);
    assert(count >= 0 || count === -EINTR, "waiting for events cannot fail");
    const words = this.os.memory.i32, start = this.#events >> 2;
    for (let at = 0; at < count; at++) {
      const waiter = this.#waiters[words[start + at * 3 + 1]!];
      if (waiter !== undefined) waiter.onEvents(words[start + at * 3]!);
    }
    while (this.#dropped.length > 0) this.#free.push(this.#dropped.pop()!);
  }
}
