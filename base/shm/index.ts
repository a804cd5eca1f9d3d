/** A hash index over 32-bit words: open addressing with linear probing, many values a hash. Lives in shared or private memory. */
import { assert } from "../assert.ts";

const SLOT_WORDS = 2; // hash, value + 1 (0: empty)

/**
 * Maps hashes to values; several values may share a hash, so whoever looks up compares the key it finds behind a value.
 * One writer; readers only ever see a finished copy.
 */
export class HashIndex {
  #words: Int32Array;
  #mask: number;
  #count = 0;

  /** @param words `indexWords(capacity)` of them, for a writer all 0. */
  constructor(words: Int32Array) {
    const capacity = words.length / SLOT_WORDS;
    assert((capacity & (capacity - 1)) === 0 && capacity > 0, "an index's capacity is a power of two");
    this.#words = words;
    this.#mask = capacity - 1;
  }

  get words(): Int32Array {
    return this.#words;
  }
  get capacity(): number {
    return this.#mask + 1;
  }
  get count(): number {
    return this.#count;
  }

  /** Adds a value under a hash. The caller keeps count below half the capacity ({@link grown}). */
  put(hash: number, value: number): void {
    assert(this.#count * 2 <= this.#mask, "an index is at most half full, so that probes stay short and end");
    let slot = hash & this.#mask;
    while (this.#words[slot * 2 + 1] !== 0) slot = (slot + 1) & this.#mask;
    this.#words[slot * 2] = hash;
    this.#words[slot * 2 + 1] = value + 1;
    this.#count++;
  }

  /** Takes one value out. @returns false if it was not there under that hash. */
  remove(hash: number, value: number): boolean {
    let slot = this.first(hash);
    while (slot >= 0 && this.valueAt(slot) !== value) slot = this.next(slot, hash);
    if (slot < 0) return false;
    this.#close(slot);
    this.#count--;
    return true;
  }

  /** The first place with this hash, or -1. Places are good until the next change. */
  first(hash: number): number {
    return this.#probe(hash & this.#mask, hash);
  }

  /** The place with this hash after `slot`, or -1. */
  next(slot: number, hash: number): number {
    return this.#probe((slot + 1) & this.#mask, hash);
  }

  valueAt(slot: number): number {
    return this.#words[slot * 2 + 1]! - 1;
  }

  /** This index if it can take one more value, else a copy of twice the capacity in private memory. */
  grown(): HashIndex {
    if (this.#count * 2 < this.#mask) return this;
    const larger = new HashIndex(new Int32Array(indexWords(this.capacity * 2)));
    for (let slot = 0; slot <= this.#mask; slot++) {
      if (this.#words[slot * 2 + 1] !== 0) larger.put(this.#words[slot * 2]!, this.valueAt(slot));
    }
    return larger;
  }

  #probe(from: number, hash: number): number {
    const words = this.#words, mask = this.#mask;
    for (let slot = from; words[slot * 2 + 1] !== 0; slot = (slot + 1) & mask) {
      if (words[slot * 2] === hash) return slot;
    }
    return -1;
  }

  /** Empties a place and moves what follows back, so that no probe ends too early (Knuth 6.4, algorithm R). */
  #close(hole: number): void {
    const words = this.#words, mask = this.#mask;
    for (let slot = (hole + 1) & mask; words[slot * 2 + 1] !== 0; slot = (slot + 1) & mask) {
      const home = words[slot * 2]! & mask;
      if (((slot - home) & mask) < ((slot - hole) & mask)) continue; // It would land before its home.
      words[hole * 2] = words[slot * 2]!;
      words[hole * 2 + 1] = words[slot * 2 + 1]!;
      hole = slot;
    }
    words[hole * 2] = 0;
    words[hole * 2 + 1] = 0;
  }
}

/** Words an index of `capacity` places takes; at most half of them are ever used. */
export function indexWords(capacity: number): number {
  return capacity * SLOT_WORDS;
}

/** Mixes one word into a hash (the mixing step of MurmurHash3, which is in the public domain). */
export function mixWord(hash: number, word: number): number {
  let mixed = Math.imul(word, 0xcc9e2d51);
  mixed = Math.imul((mixed << 15) | (mixed >>> 17), 0x1b873593);
  mixed ^= hash;
  return (Math.imul((mixed << 13) | (mixed >>> 19), 5) + 0xe6546b64) | 0;
}

/** Spreads a hash over all its bits; the last step before use. */
export function finishHash(hash: number): number {
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return hash ^ (hash >>> 16);
}

/** Hash of bytes under a seed. Seeds are random per table: whoever names workloads cannot aim for one chain. */
export function hashBytes(seed: number, bytes: Uint8Array, from: number, end: number): number {
  let hash = seed;
  let at = from;
  for (; at + 4 <= end; at += 4) {
    hash = mixWord(hash, bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24));
  }
  for (; at < end; at++) hash = mixWord(hash, bytes[at]!);
  return finishHash(hash ^ (end - from));
}
