import { assertEquals, assertRejects } from "@std/assert";
import { RateLimit } from "./rate_limit.ts";

Deno.test("RateLimit lets a burst through at once, and then so many a second, in the order they asked (CP-010)", () => {
  let nowMs = 0;
  const rate = new RateLimit({ perSecond: 80, burst: 160 }, () => nowMs);
  const waits = Array.from({ length: 162 }, () => rate.reserve());
  assertEquals(waits.filter((wait) => wait === 0).length, 160);
  assertEquals(waits.slice(160), [12.5, 25]);
  nowMs += 25; // Both have had their turn.
  assertEquals(rate.reserve(), 12.5);
  nowMs += 60_000; // What is not used is kept, but for no more than a burst.
  assertEquals(Array.from({ length: 161 }, () => rate.reserve()).at(-1), 12.5);
});

Deno.test("RateLimit.take() waits, and gives up with its signal", async () => {
  const rate = new RateLimit({ perSecond: 0.001, burst: 1 }), stop = new AbortController();
  await rate.take(stop.signal);
  const waiting = rate.take(stop.signal);
  stop.abort(new Error("over"));
  await assertRejects(() => waiting, Error, "over");
  await assertRejects(() => rate.take(stop.signal), Error, "over");
});

Deno.test("RateLimit.take() gives back what who gives up had reserved", async () => {
  const rate = new RateLimit({ perSecond: 1, burst: 1 }, () => 0), stop = new AbortController();
  await rate.take(stop.signal);
  const many = Promise.allSettled(Array.from({ length: 1_000 }, () => rate.take(stop.signal)));
  stop.abort(new Error("over"));
  await many;
  assertEquals(rate.reserve(), 1_000);
});
