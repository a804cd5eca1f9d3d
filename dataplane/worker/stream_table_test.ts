import { assertEquals, assertThrows } from "@std/assert";
import { StreamTable } from "./stream_table.ts";

/** Numbers that repeat. */
function seeded(seed: number): () => number {
  return () => (seed = Math.imul(seed, 1_103_515_245) + 12_345 >>> 0) >>> 8;
}

Deno.test("StreamTable does what a Map does, whatever comes and goes in whatever order", () => {
  for (let seed = 1; seed <= 200; seed++) {
    const random = seeded(seed), table = new StreamTable<{ streamId: number }>();
    const map = new Map<number, { streamId: number }>(), spread = [40, 600, 0x3fffffff][seed % 3]!;
    for (let step = 0; step < 400; step++) {
      const streamId = (random() % spread) * 2 + 1;
      assertEquals(table.get(streamId), map.get(streamId));
      assertEquals(table.has(streamId), map.has(streamId));
      if (random() % 3 === 0 || map.size > 150) assertEquals(table.delete(streamId), map.delete(streamId));
      else if (!map.has(streamId)) {
        const item = { streamId };
        table.add(item);
        map.set(streamId, item);
      }
      assertEquals(table.size, map.size);
    }
    const numbers = (items: Iterable<{ streamId: number }>) =>
      [...items].map((it) => it.streamId).sort((a, b) => a - b);
    assertEquals(numbers(table.values()), numbers(map.values()));
    const seen = [];
    for (let place = 0; place < table.placeCount; place++) {
      const item = table.at(place);
      if (item !== null) seen.push(item);
    }
    assertEquals(numbers(seen), numbers(map.values()));
    table.clear();
    assertEquals([table.size, table.values()], [0, []]);
  }
});

Deno.test("StreamTable finds who stands behind a stream that went, across the end of its places too", () => {
  for (const first of [1, 29, 31]) { // Of 16 places: the first, the last but one, the last.
    const table = new StreamTable<{ streamId: number }>(), all = [0, 1, 2, 3].map((round) => first + 32 * round);
    for (const streamId of all) table.add({ streamId });
    table.delete(first + 32);
    assertEquals(all.map((streamId) => table.has(streamId)), [true, false, true, true]);
    table.delete(first);
    assertEquals(all.map((streamId) => table.has(streamId)), [false, false, true, true]);
  }
});

Deno.test("StreamTable takes a number once", () => {
  const table = new StreamTable<{ streamId: number }>();
  table.add({ streamId: 1 });
  assertThrows(() => table.add({ streamId: 1 }));
});
