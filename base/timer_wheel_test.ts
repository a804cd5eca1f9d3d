/** Deadlines against a plain sorted model. */
import { assertEquals } from "@std/assert";
import { Deadline, TimerWheel } from "./timer_wheel.ts";

Deno.test("TimerWheel expires what is due, never early, and not what was cancelled", () => {
  const wheel = new TimerWheel(0, 50);
  const fired: string[] = [];
  const a = new Deadline(() => fired.push("a")), b = new Deadline(() => fired.push("b"));
  const far = new Deadline(() => fired.push("far"));
  wheel.set(a, 100, 0);
  wheel.set(b, 100, 0);
  wheel.set(far, 60_000, 0); // More than one round.
  wheel.advance(99);
  assertEquals(fired, []);
  wheel.cancel(b);
  wheel.advance(101);
  assertEquals(fired, ["a"]);
  for (let now = 101; now < 60_000; now += 37) wheel.advance(now);
  assertEquals(fired, ["a"]);
  wheel.advance(60_051);
  assertEquals(fired, ["a", "far"]);
  assertEquals(wheel.waitMs(60_051), -1);
});

Deno.test("TimerWheel agrees with a sorted list over random operations", () => {
  let seed = 7;
  const random = (max: number) => (seed = (seed * 1103515245 + 12345) % 2147483648) % max;
  const wheel = new TimerWheel(0, 50);
  const dueAtMs = new Map<number, number>();
  const fired: number[] = [];
  const deadlines = Array.from({ length: 200 }, (_, id) => new Deadline(() => fired.push(id)));
  let now = 0;
  for (let step = 0; step < 5000; step++) {
    const id = random(200);
    if (random(4) === 0) {
      wheel.cancel(deadlines[id]!);
      dueAtMs.delete(id);
    } else {
      const delay = random(40_000);
      wheel.set(deadlines[id]!, delay, now);
      dueAtMs.set(id, now + delay);
    }
    now += random(60);
    wheel.advance(now);
    for (const id of fired.splice(0)) {
      assertEquals(dueAtMs.get(id)! <= now, true, "never early");
      dueAtMs.delete(id);
    }
    for (const [, due] of dueAtMs) assertEquals(due > now - 100, true, "at most two ticks late");
    assertEquals(wheel.setCount, dueAtMs.size);
  }
});
