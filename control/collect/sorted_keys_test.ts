import { assertEquals } from "@std/assert";
import { SortedKeys } from "./sorted_keys.ts";

Deno.test("SortedKeys.read() gives what a sorted set holds, after any changes in any bursts", () => {
  let state = 3;
  const random = (below: number) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor(state / 2 ** 32 * below);
  };
  for (let round = 0; round < 30; round++) {
    const keys = new SortedKeys("b", "a"), plain = new Set(["a", "b"]);
    for (let read = 0; read < 20; read++) {
      for (let change = random(30); change > 0; change--) {
        const key = `k${random(60)}`;
        if (plain.delete(key)) keys.delete(key);
        else {
          plain.add(key);
          keys.add(key);
        }
      }
      assertEquals(keys.size, plain.size);
      assertEquals(keys.read(), [...plain].sort());
    }
  }
});
