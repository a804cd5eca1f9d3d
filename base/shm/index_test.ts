import { assert, assertEquals, assertThrows } from "@std/assert";
import { AssertionError } from "../assert.ts";
import { finishHash, hashBytes, HashIndex, indexWords, mixWord } from "./index.ts";

/** A small generator with a seed, so that a failure can be run again. */
function randomOf(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = finishHash(mixWord(state, 0x9e3779b9));
    return (state >>> 0) % below;
  };
}

function valuesOf(index: HashIndex, hash: number): number[] {
  const values: number[] = [];
  for (let slot = index.first(hash); slot >= 0; slot = index.next(slot, hash)) values.push(index.valueAt(slot));
  return values.sort((a, b) => a - b);
}

for (const seed of [1, 2, 3]) {
  Deno.test(`HashIndex holds what a Map holds, through 20,000 random changes, seed ${seed}`, () => {
    const random = randomOf(seed), plain = new Map<number, number[]>();
    let index = new HashIndex(new Int32Array(indexWords(4))), count = 0;
    // Few distinct low bits: long chains that wrap around the end, and many values a hash.
    const hashOf = () => random(3) === 0 ? random(4) - 2 : random(64) * 0x1000_0001 | 0;
    for (let step = 0; step < 20_000; step++) {
      const hash = hashOf(), known = plain.get(hash) ?? [];
      const grow = count < 200 && (count < 20 || random(2) === 0);
      if (grow) {
        index = index.grown();
        index.put(hash, step);
        plain.set(hash, [...known, step]);
        count++;
      } else if (known.length > 0) {
        const value = known[random(known.length)]!;
        assert(index.remove(hash, value));
        plain.set(hash, known.filter((it) => it !== value));
        count--;
      } else assertEquals(index.remove(hash, step), false);
      assertEquals(index.count, count);
      if (step % 500 === 0) { for (const [at, values] of plain) assertEquals(valuesOf(index, at), values); }
    }
    for (const [at, values] of plain) assertEquals(valuesOf(index, at), values);
  });
}

Deno.test("HashIndex refuses to be more than half full", () => {
  const index = new HashIndex(new Int32Array(indexWords(4)));
  index.put(1, 1);
  index.put(2, 2);
  assertThrows(() => index.put(3, 3), AssertionError, "half full");
  assertEquals(index.grown().capacity, 8);
});

Deno.test("hashBytes() tells every prefix and every single changed byte apart", () => {
  const bytes = new TextEncoder().encode("cluster1//Pod/shop/cart-7d4b"), hashes = new Set<number>();
  for (let end = 0; end <= bytes.length; end++) hashes.add(hashBytes(7, bytes, 0, end));
  for (let at = 0; at < bytes.length; at++) {
    const changed = bytes.slice();
    changed[at]! ^= 1;
    hashes.add(hashBytes(7, changed, 0, changed.length));
  }
  assertEquals(hashes.size, bytes.length * 2 + 1);
  assert(hashBytes(7, bytes, 0, 8) !== hashBytes(8, bytes, 0, 8), "the seed matters");
});
