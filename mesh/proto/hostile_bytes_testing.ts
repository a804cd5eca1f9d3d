/** For tests: what a decoder of untrusted bytes must survive. */
import { assert, assertInstanceOf } from "@std/assert";
import { WireFormatError } from "./wire_format_error.ts";

/** Random numbers in [0, 1) from a seed (mulberry32), so that a failure can be run again. */
export function seededRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** @returns whether it decoded; any other error than WireFormatError fails the test. */
export function decodes(decode: (bytes: Uint8Array) => unknown, bytes: Uint8Array): boolean {
  try {
    decode(bytes);
    return true;
  } catch (error) {
    assertInstanceOf(error, WireFormatError, `bytes ${bytes.toHex()}`);
    return false;
  }
}

/** Every truncation, every single-byte change to a few values, and random bytes: a message or a WireFormatError. */
export function assertSurvivesHostileBytes(decode: (bytes: Uint8Array) => unknown, valid: Uint8Array): void {
  assert(decodes(decode, valid), "the sample decodes");
  for (let length = 0; length < valid.length; length++) decodes(decode, valid.slice(0, length));
  for (let at = 0; at < valid.length; at++) {
    for (const byte of [0x00, 0x7f, 0x80, 0xff, valid[at]! ^ 1, valid[at]! ^ 2]) {
      const changed = valid.slice();
      changed[at] = byte;
      decodes(decode, changed);
    }
  }
  const random = seededRandom(valid.length);
  let refused = 0;
  for (let round = 0; round < 2_000; round++) {
    const bytes = Uint8Array.from({ length: Math.floor(random() * 40) }, () => Math.floor(random() * 256));
    if (!decodes(decode, bytes)) refused++;
  }
  assert(refused > 1_000, `random bytes are mostly refused, were ${refused} times`);
}
