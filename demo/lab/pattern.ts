/** Bytes that tell where in which stream they stand, so that one lost, moved, doubled or taken from another is noticed. */
import { Buffer } from "node:buffer";

/** Text that stands in every stretch of a stream: what a listener on the wire must never read. */
export const PATTERN_MARKER = "ambit-soak-in-the-clear";

// A prime: records, frames and buffers have sizes of powers of two, and no multiple of those is a multiple of it.
const PERIOD_BYTES = 65_521;
const MARKER_EVERY_BYTES = 1_024;

/** The stream of a key repeats this period, which begins at a place that depends on the key. */
const period = makePeriod();

function makePeriod(): Buffer {
  const bytes = Buffer.alloc(2 * PERIOD_BYTES); // Twice, so that a stretch of one period is one slice wherever it begins.
  let state = 0x9e3779b9;
  for (let at = 0; at < PERIOD_BYTES; at++) {
    state = Math.imul(state ^ (state >>> 15), 0x2c1b3c6d) + 0x7f4a7c15 | 0;
    bytes[at] = state >>> 24;
  }
  for (let at = 0; at + MARKER_EVERY_BYTES <= PERIOD_BYTES; at += MARKER_EVERY_BYTES) bytes.write(PATTERN_MARKER, at);
  bytes.copy(bytes, PERIOD_BYTES, 0, PERIOD_BYTES);
  return bytes;
}

function startOf(key: number, at: number): number {
  return (key % PERIOD_BYTES + at % PERIOD_BYTES) % PERIOD_BYTES;
}

/** Up to `count` bytes of a stream from position `at` on. @returns A slice of shared memory: read only. */
export function patternSlice(key: number, at: number, count: number): Uint8Array {
  const start = startOf(key, at);
  return period.subarray(start, start + Math.min(count, PERIOD_BYTES));
}

/** Looks at bytes that should stand at `at` in the stream. @returns The place of the first that does not, or -1. */
export function firstWrong(bytes: Uint8Array, key: number, at: number): number {
  for (let done = 0; done < bytes.length;) {
    const expected = patternSlice(key, at + done, bytes.length - done);
    const found = Buffer.from(bytes.buffer, bytes.byteOffset + done, expected.length);
    if (found.compare(expected) !== 0) {
      let index = 0;
      while (found[index] === expected[index]) index++;
      return done + index;
    }
    done += expected.length;
  }
  return -1;
}
