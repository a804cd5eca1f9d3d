import { assertEquals } from "@std/assert";
import { afterEnd } from "./supervisor.ts";

const SERVED = { ranMs: 60_000 }, FUTILE = { ranMs: 400 };

Deno.test("afterEnd() starts again at once what had served, however it died", () => {
  assertEquals(afterEnd({ code: 137, signal: "SIGKILL", ...SERVED }, 0), { again: true, waitMs: 0, futile: 0 });
  assertEquals(afterEnd({ code: 1, signal: null, ...SERVED }, 2), { again: true, waitMs: 0, futile: 0 });
});

Deno.test("afterEnd() gives up what dies at its start three times in a row", () => {
  const died = { code: 139, signal: "SIGSEGV", ...FUTILE };
  assertEquals([0, 1, 2].map((before) => afterEnd(died, before).again), [true, true, false]);
});

Deno.test("afterEnd() leaves alone what ended by itself or for its settings", () => {
  for (const code of [0, 64]) assertEquals(afterEnd({ code, signal: null, ...SERVED }, 0).again, false);
});
