/** A leader's queue: each key once, never twice at once, again when it was added meanwhile. */
import { assert, assertEquals } from "@std/assert";
import { Logger } from "../../base/log.ts";
import { Metrics } from "../../base/metrics.ts";
import { ControllerMetrics } from "./controller_metrics.ts";
import { settle, SimulatedClock } from "./testing.ts";
import { WorkQueue } from "./work_queue.ts";

class Rig {
  readonly begun: string[] = [];
  readonly active = new Set<string>();
  readonly stop = new AbortController();
  readonly #ends = new Map<string, () => void>();
  readonly queue = new WorkQueue({
    name: "test",
    reconcile: async (key) => {
      assert(!this.active.has(key), "never twice at once");
      this.begun.push(key);
      this.active.add(key);
      await new Promise<void>((resolve) => this.#ends.set(key, resolve));
      this.active.delete(key);
    },
    metrics: new ControllerMetrics(new Metrics()),
    log: new Logger("test", { sink: () => {} }),
    clock: new SimulatedClock(),
  });
  readonly #running = this.queue.run(this.stop.signal);

  async add(...keys: readonly string[]): Promise<void> {
    for (const key of keys) this.queue.add(key);
    await settle();
  }

  async end(key: string): Promise<void> {
    this.#ends.get(key)!();
    await settle();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.stop.abort();
    for (const end of this.#ends.values()) end();
    await this.#running;
  }
}

Deno.test("WorkQueue looks once at a key that is added often, and again if it is added while it is looked at (CP-106)", async () => {
  await using rig = new Rig();
  await rig.add("a", "a", "a");
  assertEquals(rig.begun, ["a"]);
  await rig.add("a", "a"); // What is being looked at may be older than this.
  assertEquals([rig.begun, rig.queue.size], [["a"], 2]);
  await rig.end("a");
  assertEquals(rig.begun, ["a", "a"]);
  await rig.end("a");
  assertEquals([rig.begun, rig.queue.size], [["a", "a"], 0]);
});

Deno.test("WorkQueue looks at four keys at once, the first added first, and begins none after its signal (CP-106, CP-652)", async () => {
  await using rig = new Rig();
  await rig.add("a", "b", "c", "d", "e", "f");
  assertEquals(rig.begun, ["a", "b", "c", "d"]);
  await rig.end("b");
  assertEquals(rig.begun.at(-1), "e");
  rig.stop.abort();
  for (const key of ["a", "c", "d", "e"]) await rig.end(key);
  assertEquals(rig.begun, ["a", "b", "c", "d", "e"]);
});
