import { assert, assertEquals } from "@std/assert";
import { type Cost, costTable, sequence } from "./kill_costs.ts";

Deno.test("costTable() has a line for each part, with the middle and the worst of its kills", () => {
  const cost = (part: Cost["part"], failed: number, lastMs: number): Cost => (
    { part, failed, asked: 1_000, lastMs, readyMs: 500, lanes: 1 }
  );
  const lines = costTable([
    cost("ztunnel", 5, 100),
    cost("cni", 0, 0),
    cost("ztunnel", 1_200, 4_000),
    cost("ztunnel", 7, 90),
  ]);
  assertEquals(lines.slice(2), [
    "| ztunnel | 3 | 3,000 | 1,212 | 7 / 1,200 | 100 / 4,000 | 500 / 500 | 0 |",
    "| cni | 1 | 1,000 | 0 | 0 / 0 | 0 / 0 | 500 / 500 | 1 |",
  ]);
});

Deno.test("sequence() gives the same again, and spreads", () => {
  const [one, other] = [sequence(1), sequence(1)], seen = Array.from({ length: 100 }, one);
  assertEquals(seen, Array.from({ length: 100 }, other));
  assert(Math.min(...seen) < 0.1 && Math.max(...seen) > 0.9 && Math.max(...seen) < 1);
});
