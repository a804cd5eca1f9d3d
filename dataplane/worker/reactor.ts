/** The turn: wait for events, run every ready row, serve who asked to go on, flush what was written. */
import { assert } from "../../base/assert.ts";
import { TimerWheel } from "../../base/timer_wheel.ts";
import type { Fd, Os } from "../../os/api.ts";
import { SLOW_TURN_MS } from "../tables/layout.ts";

/** epoll's masks; the same numbers as in sys/epoll.h, so that the worker needs no value of os/. */
export const POLL_IN = 0x1, POLL_OUT = 0x4, POLL_ERROR = 0x8, POLL_HANGUP = 0x10, POLL_READ_HANGUP = 0x2000;
const POLL_EDGE = 0x80000000 | 0;
/** Both directions, edge-triggered: one registration for a descriptor's whole life. */
export const POLL_BOTH_EDGES = POLL_IN | POLL_OUT | POLL_READ_HANGUP | POLL_EDGE;
/** Any of these means that reading will tell something: bytes, the end, or an error. */
export const POLL_READABLE = POLL_IN | POLL_READ_HANGUP | POLL_HANGUP | POLL_ERROR;

/** Owner of a watched descriptor. */
export interface Pollable {
  /** Runs when the kernel has news. Must not throw. */
  onEvents(events: number): void;
}

/** Someone with more work than one turn allows. */
export interface Resumable {
  /** Runs once per call of {@link Reactor.resumeLater}. */
  onResume(): void;
}

/** Someone whose output of this turn goes out together at its end. */
export interface Flushable {
  onFlush(): void;
}

const EVENT_BYTES = 12; // packed struct epoll_event on x86-64
/**
 * Events between two flushes: few, since what they write leaves then. In hundreds all connections come to move
 * together, and each proxy sleeps while the other works (decision 53).
 */
const EVENTS_MAX = 4;
/** Events of a turn, before those who go on from the last one are served. */
const TURN_EVENTS_MAX = 256;
const IDLE_WAIT_MS = 1000; // The heartbeat that the agent watches moves at least this often.

/** One epoll instance and the work of one thread. */
export class Reactor {
  readonly os: Os;
  readonly timers: TimerWheel;
  /** Monotonic time at the start of this turn. */
  nowMs: number;
  /** Counts flushes: what was written in one has not been answered before the next. */
  turns = 0;
  /** The longest turn so far, without the wait for events, and how many took longer than is good. */
  longestTurnMs = 0;
  slowTurns = 0;
  running = true;
  readonly #poll: Fd;
  readonly #eventsAt: number;
  readonly #rows: (Pollable | null)[] = [];
  readonly #freeRows: number[] = [];
  /** Rows freed in this turn: reused only after it, so that a stale event finds nobody. */
  readonly #freedRows: number[] = [];
  #resumables: Resumable[] = [];
  #resumablesNext: Resumable[] = [];
  readonly #flushables: Flushable[] = [];
  #waitMsMax = IDLE_WAIT_MS;

  constructor(os: Os) {
    this.os = os;
    this.nowMs = os.nowMs();
    this.timers = new TimerWheel(this.nowMs);
    const poll = os.pollCreate();
    assert(poll >= 0, "the kernel gives an epoll instance");
    this.#poll = poll;
    this.#eventsAt = os.memory.allocate(EVENTS_MAX * EVENT_BYTES);
  }

  /** Watches a descriptor. @returns Its row, for {@link forget}; or -errno, and nothing is watched. */
  watch(fd: Fd, events: number, owner: Pollable): number {
    const row = this.#freeRows.length > 0 ? this.#freeRows.pop()! : this.#rows.push(null) - 1;
    const added = this.os.pollAdd(this.#poll, fd, events, row);
    if (added < 0) {
      this.#freeRows.push(row);
      return added;
    }
    this.#rows[row] = owner;
    return row;
  }

  /** Another mask of interest for a watched descriptor. */
  change(fd: Fd, events: number, row: number): void {
    this.os.pollChange(this.#poll, fd, events, row);
  }

  /** No more events for this row. The caller closes the descriptor, which takes it out of epoll. */
  forget(row: number): void {
    assert(this.#rows[row] !== null, "a row is forgotten once");
    this.#rows[row] = null;
    this.#freedRows.push(row);
  }

  /** No more events for this row, whose descriptor stays open, for another owner to watch. */
  release(fd: Fd, row: number): void {
    this.os.pollRemove(this.#poll, fd);
    this.forget(row);
  }

  /** Runs `onResume` later in this turn or in the next; the kernel is asked for events in between. */
  resumeLater(work: Resumable): void {
    this.#resumables.push(work);
  }

  /** Runs `onFlush` at the end of this turn. */
  flushLater(work: Flushable): void {
    this.#flushables.push(work);
  }

  /** The next turn waits no longer than this for events. */
  wakeWithin(ms: number): void {
    this.#waitMsMax = ms;
  }

  /** Turns until {@link running} is false. */
  run(onTurn: () => void): void {
    while (this.running) {
      this.turn();
      onTurn();
      const tookMs = this.os.nowMs() - this.nowMs;
      if (tookMs > SLOW_TURN_MS) this.slowTurns++;
      if (tookMs > this.longestTurnMs) this.longestTurnMs = tookMs;
    }
  }

  /** What the kernel has to tell, a few events at a time, and everything that follows from it. */
  turn(): void {
    const os = this.os;
    const wheelMs = this.timers.waitMs(this.nowMs);
    const idleMs = wheelMs < 0 || wheelMs > IDLE_WAIT_MS ? IDLE_WAIT_MS : wheelMs;
    const eventsAt = this.#eventsAt;
    // What was written since the last turn's flush must not wait for an event.
    const timeoutMs = this.#resumables.length > 0 || this.#flushables.length > 0
      ? 0
      : Math.min(idleMs, this.#waitMsMax);
    this.#waitMsMax = IDLE_WAIT_MS;
    let count = os.wait(this.#poll, os.memory.base + eventsAt, EVENTS_MAX, timeoutMs);
    this.nowMs = os.nowMs();
    const words = os.memory.i32, rows = this.#rows;
    for (let served = count;; served += count) {
      this.turns++;
      for (let index = 0; index < count; index++) {
        const at = (eventsAt + index * EVENT_BYTES) >> 2;
        const owner = rows[words[at + 1]!]!;
        if (owner !== null) owner.onEvents(words[at]!);
      }
      if (count < EVENTS_MAX || served >= TURN_EVENTS_MAX) break;
      this.flush();
      count = os.wait(this.#poll, os.memory.base + eventsAt, EVENTS_MAX, 0);
    }
    this.timers.advance(this.nowMs);
    const resumables = this.#resumables;
    if (resumables.length > 0) {
      this.#resumables = this.#resumablesNext;
      this.#resumablesNext = resumables;
      for (let index = 0; index < resumables.length; index++) resumables[index]!.onResume();
      resumables.length = 0;
    }
    this.flush();
    if (this.#freedRows.length > 0) {
      for (let index = 0; index < this.#freedRows.length; index++) this.#freeRows.push(this.#freedRows[index]!);
      this.#freedRows.length = 0;
    }
  }

  /** Flushes whoever asked for it; also called early, when buffers run short within a turn. */
  flush(): void {
    // One at a time, so that a flush within a flush still finds all that wait.
    while (this.#flushables.length > 0) this.#flushables.pop()!.onFlush();
  }
}
