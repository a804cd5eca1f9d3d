/** Deadlines of the reactor: a hashed wheel of intrusive lists, so that setting and cancelling allocate nothing. */
import { assert } from "./assert.ts";

/** Something with one deadline. Lives inside its owner; linked into a wheel while set. */
export class Deadline {
  /** Called once, on the turn after the deadline passed. Not called after `cancel`. */
  readonly expire: () => void;
  /** The wheel's tick at which it is due; -1 while not set. */
  tick = -1;
  next: Deadline | null = null;
  previous: Deadline | null = null;

  constructor(expire: () => void) {
    this.expire = expire;
  }

  get isSet(): boolean {
    return this.tick >= 0;
  }
}

const SLOTS = 512; // A power of two; at 50 ms a tick one round is 25.6 s, longer deadlines stay for more rounds.

/** A wheel without a clock: the owner says what time it is. Precision is one tick, never early. */
export class TimerWheel {
  readonly tickMs: number;
  readonly #slots: (Deadline | null)[] = new Array<Deadline | null>(SLOTS).fill(null);
  #tick: number;
  /** No deadline is due before this tick; may be early after a cancel, never late. */
  #nearest = Infinity;
  #setCount = 0;

  constructor(nowMs: number, tickMs = 50) {
    this.tickMs = tickMs;
    this.#tick = Math.floor(nowMs / tickMs);
  }

  /** Deadlines that are set. */
  get setCount(): number {
    return this.#setCount;
  }

  /** Sets or moves a deadline to `delayMs` from `nowMs`. */
  set(deadline: Deadline, delayMs: number, nowMs: number): void {
    if (deadline.tick >= 0) this.cancel(deadline);
    const tick = Math.max(Math.ceil((nowMs + delayMs) / this.tickMs), this.#tick + 1);
    deadline.tick = tick;
    const slot = tick & (SLOTS - 1), head = this.#slots[slot]!;
    deadline.next = head;
    deadline.previous = null;
    if (head !== null) head.previous = deadline;
    this.#slots[slot] = deadline;
    this.#setCount++;
    if (tick < this.#nearest) this.#nearest = tick;
  }

  /** Takes a deadline back; harmless when it is not set. */
  cancel(deadline: Deadline): void {
    if (deadline.tick < 0) return;
    const slot = deadline.tick & (SLOTS - 1);
    if (deadline.previous !== null) deadline.previous.next = deadline.next;
    else {
      assert(this.#slots[slot] === deadline, "a deadline without predecessor heads its slot");
      this.#slots[slot] = deadline.next;
    }
    if (deadline.next !== null) deadline.next.previous = deadline.previous;
    deadline.next = null;
    deadline.previous = null;
    deadline.tick = -1;
    this.#setCount--;
  }

  /** Expires everything due at `nowMs`. What an expiry sets anew waits for a later call. */
  advance(nowMs: number): void {
    const target = Math.floor(nowMs / this.tickMs);
    if (target <= this.#tick) return;
    if (target < this.#nearest) { // The usual turn: nothing is due.
      this.#tick = target;
      return;
    }
    const from = Math.max(this.#tick + 1, target - SLOTS + 1); // A long sleep visits each slot once.
    this.#tick = target;
    for (let tick = from; tick <= target; tick++) {
      let at = this.#slots[tick & (SLOTS - 1)]!;
      while (at !== null) {
        if (at.tick > target) {
          at = at.next!;
          continue;
        }
        this.cancel(at);
        at.expire();
        at = this.#slots[tick & (SLOTS - 1)]!; // An expiry may have changed the list: start over.
      }
    }
    this.#nearest = this.#findNearest();
  }

  /** The first tick with a deadline of this round, or the end of the round. */
  #findNearest(): number {
    if (this.#setCount === 0) return Infinity;
    for (let tick = this.#tick + 1; tick < this.#tick + SLOTS; tick++) {
      for (let at = this.#slots[tick & (SLOTS - 1)]!; at !== null; at = at.next!) if (at.tick === tick) return tick;
    }
    return this.#tick + SLOTS;
  }

  /** Milliseconds until the wheel wants to be advanced, or -1 when nothing is set. */
  waitMs(nowMs: number): number {
    if (this.#setCount === 0) return -1;
    return Math.max(1, Math.ceil(this.#nearest * this.tickMs - nowMs));
  }
}
