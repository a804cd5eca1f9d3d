import { assertEquals } from "@std/assert";
import { equal } from "./equal.ts";

Deno.test("equal() compares by content: primitives, arrays, bytes, maps and plain objects", () => {
  const same: [unknown, unknown][] = [
    [1, 1],
    [Number.NaN, Number.NaN],
    [undefined, undefined],
    [[1, [2]], [1, [2]]],
    [Uint8Array.of(1, 2), Uint8Array.of(1, 2)],
    [new Map([["a", [1]], ["b", [2]]]), new Map([["b", [2]], ["a", [1]]])],
    [{ a: { b: 1 } }, { a: { b: 1 } }],
  ];
  const different: [unknown, unknown][] = [
    [1, "1"],
    [null, undefined],
    [[1], [1, 2]],
    [[1], Uint8Array.of(1)],
    [Uint8Array.of(1), Uint8Array.of(2)],
    [new Map([["a", 1]]), new Map([["a", 2]])],
    [new Map([["a", undefined]]), new Map([["b", undefined]])],
    [{ a: 1 }, { a: 1, b: 2 }],
    [{ a: undefined }, { b: undefined }],
    [{}, new Map()],
    [{}, null],
  ];
  for (const [left, right] of same) assertEquals(equal(left, right), true, Deno.inspect([left, right]));
  for (const [left, right] of different) {
    assertEquals([equal(left, right), equal(right, left)], [false, false], Deno.inspect([left, right]));
  }
});
