/** A bounded ring of fixed-size records in shared memory: one thread writes, one reads, nobody waits. */
import { assert } from "../assert.ts";

const HEAD_WORD = 0; // records ever written, modulo 2^32; the writer's
const TAIL_WORD = 16; // records ever read, modulo 2^32; the reader's, in a cache line of its own
const DROPPED_WORD = 1; // records that found the ring full; the writer's
const HEADER_WORDS = 32;

/** Bytes a ring of `entryCount` records of `recordWords` words takes. */
export function ringBytes(entryCount: number, recordWords: number): number {
  return (HEADER_WORDS + entryCount * recordWords) * 4;
}

/**
 * Both ends of a ring; a thread uses the half that is its own. Records are Int32 words, so that a reader gets exactly
 * what was written; what wakes a sleeping reader is given by the caller (an eventfd), and left out where readers poll.
 */
export class Ring {
  /** Where a writer composes its next record before {@link push}: private memory, reused. */
  readonly record: Int32Array<ArrayBuffer>;
  readonly entryCount: number;
  readonly #recordWords: number;
  readonly #header: Int32Array<SharedArrayBuffer>;
  readonly #words: Int32Array<SharedArrayBuffer>;
  readonly #wake: () => void;

  /** @param entryCount a power of two. @param wake called after a push into a ring that the reader had found empty. */
  constructor(
    buffer: SharedArrayBuffer,
    byteOffset: number,
    entryCount: number,
    recordWords: number,
    wake: () => void = nobodyToWake,
  ) {
    assert((entryCount & (entryCount - 1)) === 0 && entryCount > 0, "a ring's entry count is a power of two");
    this.entryCount = entryCount;
    this.record = new Int32Array(recordWords);
    this.#recordWords = recordWords;
    this.#header = new Int32Array(buffer, byteOffset, HEADER_WORDS);
    this.#words = new Int32Array(buffer, byteOffset + HEADER_WORDS * 4, entryCount * recordWords);
    this.#wake = wake;
  }

  /** Writer: appends {@link record}. @returns false if the ring is full; that is counted and the record dropped. */
  push(): boolean {
    const head = Atomics.load(this.#header, HEAD_WORD), tail = Atomics.load(this.#header, TAIL_WORD);
    if (((head - tail) | 0) >= this.entryCount) {
      Atomics.add(this.#header, DROPPED_WORD, 1);
      return false;
    }
    const words = this.#words, record = this.record;
    const from = (head & (this.entryCount - 1)) * this.#recordWords;
    for (let at = 0; at < record.length; at++) words[from + at] = record[at]!;
    Atomics.store(this.#header, HEAD_WORD, (head + 1) | 0); // Publishes the words above.
    // The reader drains to the end whenever it is awake; if it stood at this record it may have gone to sleep.
    if (Atomics.load(this.#header, TAIL_WORD) === head) this.#wake();
    return true;
  }

  /** Reader: copies the oldest record into `target`. @returns false if there is none. */
  pop(target: Int32Array): boolean {
    const tail = Atomics.load(this.#header, TAIL_WORD);
    if (Atomics.load(this.#header, HEAD_WORD) === tail) return false;
    const words = this.#words, from = (tail & (this.entryCount - 1)) * this.#recordWords;
    for (let at = 0; at < this.#recordWords; at++) target[at] = words[from + at]!;
    Atomics.store(this.#header, TAIL_WORD, (tail + 1) | 0); // Gives the place back.
    return true;
  }

  /** Records waiting. */
  get length(): number {
    return (Atomics.load(this.#header, HEAD_WORD) - Atomics.load(this.#header, TAIL_WORD)) | 0;
  }

  /** Records dropped because the ring was full, since the start, modulo 2^32. */
  get dropped(): number {
    return Atomics.load(this.#header, DROPPED_WORD) >>> 0;
  }
}

function nobodyToWake(): void {}
