/** Bursts of changes, with a clock that the test moves. */
import { assertEquals } from "@std/assert";
import { Debouncer } from "./debounce.ts";
import type { Resource, ResourceChange } from "./resources.ts";

class Rig {
  nowMs = 0;
  /** What each push takes. */
  pushMs = 0;
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
    flush: (changes, waitedMs) => {
      this.flushed.push(`${this.nowMs}: ${changes.map(describe).join("; ")} after ${waitedMs}`);
      this.nowMs += this.pushMs;
    },
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
    this.nowMs = Math.max(ms, this.nowMs);
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
  rig.pushMs = 40; // So that a burst may last 400 ms.
  rig.change({ updated: [resource("a")] });
  rig.advanceTo(10);
  for (let at = 60; at < 360; at += 50) {
    rig.advanceTo(at);
    rig.change({ updated: [resource("a", `${at}`)], removed: [`r${(at - 10) % 100}`] });
  }
  rig.change({ typeUrl: "u", removed: ["x"] });
  rig.change({ removed: ["a"] });
  rig.change({ updated: [resource("r0")] });
  rig.advanceTo(1_000);
  assertEquals(rig.flushed.slice(1), ["410: t [r0@1] -[a r50]; u [] -[x] after 350"]);
});

/** A change every 5 ms for a while. @returns When pushes began, and how long the changes had waited. */
function steady(rig: Rig, untilMs: number): string[] {
  for (let at = 0; at < untilMs; at += 5) {
    rig.advanceTo(Math.max(at, rig.nowMs));
    rig.change({ updated: [resource("a", `${at}`)] });
  }
  return rig.flushed.map((line) => line.replace(/t .*\] /, ""));
}

Deno.test("add() pushes what never pauses every half quiet time while pushes cost next to nothing (CP-440)", () => {
  const pushes = steady(new Rig(), 300);
  assertEquals(pushes.slice(0, 3), ["50: after 50", "100: after 50", "150: after 50"]);
});

Deno.test("add() pushes what never pauses the more seldom the more a push costs, and after the longest wait whatever it costs (CP-440)", () => {
  const dear = new Rig(), dearest = new Rig();
  dear.pushMs = 20;
  dearest.pushMs = 200;
  assertEquals(steady(dear, 1_000).slice(1, 3), ["270: after 200", "490: after 200"]);
  assertEquals(steady(dearest, 4_000).slice(1, 3), ["1250: after 1000", "2450: after 1000"]);
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
