/** Bursts of changes, with a clock that the test moves. */
import { assertEquals } from "@std/assert";
import { Debouncer } from "./debounce.ts";
import type { Resource, ResourceChange } from "./resources.ts";

class Rig {
  nowMs = 0;
  readonly flushed: string[] = [];
  #timer: { atMs: number; callback: () => void } | undefined;
  readonly debouncer = new Debouncer({
    quietMs: 100,
    idleQuietMs: 10,
    maxMs: 1_000,
    now: () => this.nowMs,
    schedule: (callback, ms) => {
      const timer = this.#timer = { atMs: this.nowMs + ms, callback };
      return () => {
        if (this.#timer === timer) this.#timer = undefined;
      };
    },
    flush: (changes, waitedMs) =>
      this.flushed.push(`${this.nowMs}: ${changes.map(describe).join("; ")} after ${waitedMs}`),
  });

  change(part: Partial<ResourceChange>): void {
    this.debouncer.add({ typeUrl: "t", updated: [], removed: [], ...part });
  }

  advanceTo(ms: number): void {
    while (this.#timer !== undefined && this.#timer.atMs <= ms) {
      const { atMs, callback } = this.#timer;
      this.#timer = undefined;
      this.nowMs = atMs;
      callback();
    }
    this.nowMs = ms;
  }
}

function describe({ typeUrl, updated, removed }: ResourceChange): string {
  return `${typeUrl} [${updated.map(({ name, version }) => `${name}@${version}`).join(" ")}] -[${
    removed.toSorted().join(" ")
  }]`;
}

function resource(name: string, version = "1"): Resource {
  return { name, version, aliases: [], bytes: new Uint8Array(0) };
}

Deno.test("add() lets a lone change go after the short quiet time (CP-440)", () => {
  const rig = new Rig();
  rig.change({ updated: [resource("a")] });
  rig.advanceTo(9);
  assertEquals(rig.flushed, []);
  rig.advanceTo(10);
  assertEquals(rig.flushed, ["10: t [a@1] -[] after 10"]);
});

Deno.test("add() waits for a burst to pause when something was pushed lately, and merges it by name (CP-440)", () => {
  const rig = new Rig();
  rig.change({ updated: [resource("a")] });
  rig.advanceTo(10);
  rig.advanceTo(50);
  for (let at = 50; at < 350; at += 50) {
    rig.advanceTo(at);
    rig.change({ updated: [resource("a", `${at}`)], removed: [`r${at % 100}`] });
  }
  rig.change({ typeUrl: "u", removed: ["x"] });
  rig.change({ removed: ["a"] });
  rig.change({ updated: [resource("r0")] });
  rig.advanceTo(1_000);
  assertEquals(rig.flushed.slice(1), ["400: t [r0@1] -[a r50]; u [] -[x] after 350"]);
});

Deno.test("add() pushes a burst that never pauses after the longest wait (CP-440)", () => {
  const rig = new Rig();
  for (let at = 0; at < 2_005; at += 5) {
    rig.advanceTo(at);
    rig.change({ updated: [resource("a", `${at}`)] });
  }
  assertEquals(rig.flushed, ["1000: t [a@995] -[] after 1000", "2000: t [a@1995] -[] after 1000"]);
});

Deno.test("add() of nothing pushes nothing; stop() drops what waits (CP-411)", () => {
  const rig = new Rig();
  rig.change({});
  rig.advanceTo(500);
  rig.change({ updated: [resource("a")] });
  rig.debouncer.stop();
  rig.advanceTo(2_000);
  assertEquals(rig.flushed, []);
});
