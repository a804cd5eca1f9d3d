import { assert, assertEquals } from "@std/assert";
import { Ring, ringBytes } from "./ring.ts";

Deno.test("Ring hands records over in order, and wakes only for a reader that had caught up", () => {
  let woken = 0;
  const buffer = new SharedArrayBuffer(ringBytes(4, 2));
  const writer = new Ring(buffer, 0, 4, 2, () => woken++), reader = new Ring(buffer, 0, 4, 2);
  const target = new Int32Array(2);
  assertEquals(reader.pop(target), false);
  for (let round = 0; round < 10; round++) {
    for (let at = 0; at < 3; at++) {
      writer.record[0] = round;
      writer.record[1] = at;
      assert(writer.push());
    }
    assertEquals(reader.length, 3);
    for (let at = 0; at < 3; at++) {
      assert(reader.pop(target));
      assertEquals([...target], [round, at]);
    }
    assertEquals(woken, round + 1);
  }
});

Deno.test("Ring drops and counts what finds it full, and keeps what it has", () => {
  const buffer = new SharedArrayBuffer(ringBytes(2, 1));
  const ring = new Ring(buffer, 0, 2, 1), target = new Int32Array(1);
  for (let value = 1; value <= 5; value++) {
    ring.record[0] = value;
    assertEquals(ring.push(), value <= 2);
  }
  assertEquals(ring.dropped, 3);
  assert(ring.pop(target));
  assertEquals(target[0], 1);
  ring.record[0] = 6;
  assert(ring.push());
  assert(ring.pop(target) && target[0] === 2);
  assert(ring.pop(target) && target[0] === 6);
  assertEquals(ring.pop(target), false);
});

Deno.test("Ring goes on when its counters wrap around 2^32", () => {
  const buffer = new SharedArrayBuffer(ringBytes(4, 1)), words = new Int32Array(buffer);
  words[0] = words[16] = 0x7fff_fffe;
  const ring = new Ring(buffer, 0, 4, 1), target = new Int32Array(1);
  for (let value = 0; value < 20; value++) {
    ring.record[0] = value;
    assert(ring.push());
    assertEquals(ring.length, 1);
    assert(ring.pop(target) && target[0] === value);
  }
});

/** Runs in a thread of its own: writes records whose words all follow from their number, retrying while the ring is full. */
const WRITER = `
import { Ring } from "${new URL("./ring.ts", import.meta.url)}";
self.onmessage = ({ data: { buffer, entries, words, total, from } }) => {
  const ring = new Ring(buffer, from, entries, words);
  for (let number = 0; number < total; number++) {
    for (let at = 0; at < words; at++) ring.record[at] = Math.imul(number, at + 1);
    while (!ring.push());
  }
  self.postMessage(ring.dropped);
};`;

Deno.test("Ring loses and mixes nothing between threads under load", async () => {
  const entries = 64, words = 8, total = 200_000, rings = 2;
  const bytes = ringBytes(entries, words), buffer = new SharedArrayBuffer(bytes * rings);
  const url = URL.createObjectURL(new Blob([WRITER], { type: "application/typescript" }));
  const workers = Array.from({ length: rings }, () => new Worker(url, { type: "module" }));
  const ended = workers.map((worker) => new Promise<number>((done) => worker.onmessage = ({ data }) => done(data)));
  try {
    for (const [at, worker] of workers.entries()) {
      worker.postMessage({ buffer, entries, words, total, from: at * bytes });
    }
    const readers = workers.map((_, at) => new Ring(buffer, at * bytes, entries, words));
    const seen = workers.map(() => 0), target = new Int32Array(words), deadlineMs = performance.now() + 60_000;
    while (seen.some((count) => count < total)) {
      assert(performance.now() < deadlineMs, "all records arrive in time");
      let idle = true;
      for (const [at, reader] of readers.entries()) {
        while (reader.pop(target)) {
          idle = false;
          const number = seen[at]!++;
          for (let word = 0; word < words; word++) {
            if (target[word] !== Math.imul(number, word + 1)) throw new Error(`record ${number}, word ${word}`);
          }
        }
      }
      if (idle) await new Promise<void>((next) => queueMicrotask(next)); // A writer may wait for a processor.
    }
    const dropped = await Promise.all(ended);
    assertEquals(readers.map((reader) => reader.dropped), dropped);
    assertEquals(readers.map((reader) => reader.length), [0, 0]);
  } finally {
    for (const worker of workers) worker.terminate();
    URL.revokeObjectURL(url);
  }
});
