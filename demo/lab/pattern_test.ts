import { assert, assertEquals } from "@std/assert";
import { firstWrong, PATTERN_MARKER, patternSlice } from "./pattern.ts";

/** A stretch of a stream as one copy. */
function stretch(key: number, at: number, count: number): Uint8Array {
  const bytes = new Uint8Array(count);
  for (let done = 0; done < count;) {
    const slice = patternSlice(key, at + done, count - done);
    bytes.set(slice, done);
    done += slice.length;
  }
  return bytes;
}

Deno.test("firstWrong() finds nothing in a stream as it was written, wherever it is cut", () => {
  for (const [at, count] of [[0, 1], [65_520, 2], [1_000_000, 200_000], [131_042, 65_521]] as const) {
    assertEquals(firstWrong(stretch(7, at, count), 7, at), -1);
  }
});

Deno.test("firstWrong() names the byte that is changed, and notices what is moved or of another stream", () => {
  const bytes = stretch(7, 5_000, 100_000);
  bytes[70_123]! ^= 1;
  assertEquals(firstWrong(bytes, 7, 5_000), 70_123);
  for (const away of [1, 1_024, 16_384, 65_536, 1 << 20]) {
    assert(firstWrong(stretch(7, 5_000 + away, 100), 7, 5_000) >= 0, `moved by ${away}`);
  }
  assert(firstWrong(stretch(8, 5_000, 100), 7, 5_000) >= 0);
});

Deno.test("patternSlice() holds the marker in every 2 KiB", () => {
  for (let at = 0; at < 200_000; at += 2_048) {
    assert(new TextDecoder("latin1").decode(stretch(3, at, 3_072)).includes(PATTERN_MARKER), `from ${at}`);
  }
});
