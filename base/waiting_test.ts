import { assert, assertEquals } from "@std/assert";
import { aborted, pause } from "./waiting.ts";

Deno.test("pause() ends with its time, or at once with the signal, and leaves no timer", async () => {
  const stop = new AbortController();
  assertEquals(await pause(1, stop.signal), true);
  const waiting = pause(1_000_000, stop.signal);
  stop.abort();
  assertEquals([await waiting, await pause(1_000_000, stop.signal)], [false, false]);
});

Deno.test("aborted() resolves with the signal, also one that was aborted before", async () => {
  const stop = new AbortController();
  let seen = false;
  const waiting = aborted(stop.signal).then(() => seen = true);
  await Promise.resolve();
  assert(!seen);
  stop.abort();
  await Promise.all([waiting, aborted(stop.signal)]);
});
