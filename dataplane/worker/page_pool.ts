/** Pieces of the arena of one size: the last one released is the next one used, and what a burst needed goes back to the kernel. */
import { assert } from "../../base/assert.ts";
import type { Memory } from "../../os/api.ts";

const PAGE_BYTES = 4096;

export class PagePool {
  readonly #memory: Memory;
  readonly #bytes: number;
  readonly #max: number;
  /** Of those at the bottom nobody has had any for a long time. */
  readonly #free: number[] = [];
  #count = 0;
  /** The fewest that were free since the last look. */
  #idleCount = 0;
  /** How many at the bottom have no pages of their own. */
  #bareCount = 0;

  constructor(memory: Memory, pieceBytes: number, max: number) {
    this.#memory = memory;
    this.#bytes = pieceBytes;
    this.#max = max;
  }

  /** @returns Its offset, or -1 when all are taken. */
  acquire(): number {
    const free = this.#free;
    if (free.length > 0) {
      const piece = free.pop()!;
      if (free.length < this.#idleCount) this.#idleCount = free.length;
      if (free.length < this.#bareCount) this.#bareCount = free.length;
      return piece;
    }
    if (this.#count === this.#max) return -1;
    this.#count++;
    return this.#memory.allocate(this.#bytes, PAGE_BYTES);
  }

  release(piece: number): void {
    assert(this.#free.length < this.#count, "what is taken from a pool is released once");
    this.#free.push(piece);
  }

  get taken(): number {
    return this.#count - this.#free.length;
  }

  /** How many can still be had. */
  get left(): number {
    return this.#max - this.taken;
  }

  /** Gives back the pages of pieces that nobody took since the last call: at most `max`, for a turn's sake. */
  giveBack(max: number): void {
    const end = Math.min(this.#idleCount, this.#bareCount + max), bytes = this.#bytes & -PAGE_BYTES;
    for (let at = this.#bareCount; at < end; at++) this.#memory.discard(this.#free[at]!, bytes);
    if (end > this.#bareCount) this.#bareCount = end;
    this.#idleCount = this.#free.length;
  }
}
