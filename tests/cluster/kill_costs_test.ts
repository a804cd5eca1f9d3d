import { assert, assertEquals } from "@std/assert";
import { beyondBound, type Cost, costTable, sequence, worstTable } from "./kill_costs.ts";

function cost(part: Cost["part"], failed: number, lastMs: number, startedMs = 300): Cost {
  const lost = Array.from({ length: failed }, (_, at) => (
    { lane: "new http", atMs: at === 0 ? lastMs : 10, tookMs: 9, error: "the connection ended", open: true }
  ));
  return { part, node: "node1", supervised: false, killedAtMs: 0, asked: 1_000, lost, startedMs, readyMs: 500 };
}

Deno.test("costTable() has a line for each part, with the middle and the worst of its kills", () => {
  const lines = costTable([
    cost("ztunnel", 5, 100),
    cost("cni", 0, 0),
    cost("ztunnel", 1_200, 4_000),
    cost("ztunnel", 7, 90),
  ]);
  assertEquals(lines.slice(2), [
    "| ztunnel | 3 | 3,000 | 1,212 | 7 / 1,200 | 100 / 4,000 | 300 / 300 | 500 / 500 | 0 |",
    "| cni | 1 | 1,000 | 0 | 0 / 0 | 0 / 0 | 300 / 300 | 500 / 500 | 1 |",
  ]);
});

Deno.test("worstTable() names the kills with the longest reach, and what each of their requests waited for", () => {
  const lines = worstTable([cost("ztunnel", 2, 100), cost("cni", 0, 0), cost("ztunnel", 1, 4_000)], 1);
  assertEquals(lines.slice(2), [
    "| ztunnel of node1 | 00:00:00.000 | 1 | 4,000 | 300 | 500 | new http 4000 9 |",
  ]);
});

Deno.test("beyondBound() allows what was open, and what gives up by itself while no program runs", () => {
  const wrong = (...them: Parameters<typeof cost>) => beyondBound(cost(...them)).length;
  assertEquals(wrong("ztunnel", 16, 4_200), 0);
  assertEquals(wrong("ztunnel", 17, 4_200), 1, "more than each lane can have given up");
  assertEquals(wrong("ztunnel", 1, 4_400), 1, "lost long after the next program's start");
  assertEquals(wrong("ztunnel", 1, 12_100, 12_000), 0, "nobody ran for so long");
  const late = { ...cost("ztunnel", 1, 12_100, 12_000), supervised: true };
  assertEquals(beyondBound(late), ["the parent started the next program after 12000 ms"]);
  assertEquals([wrong("cni", 1, 1), wrong("istiod", 1, 1), wrong("cni", 0, 0)], [1, 1, 0], "neither carries anything");
});

Deno.test("sequence() gives the same again, and spreads", () => {
  const [one, other] = [sequence(1), sequence(1)], seen = Array.from({ length: 100 }, one);
  assertEquals(seen, Array.from({ length: 100 }, other));
  assert(Math.min(...seen) < 0.1 && Math.max(...seen) > 0.9 && Math.max(...seen) < 1);
});
