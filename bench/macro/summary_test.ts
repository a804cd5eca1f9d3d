import { assertEquals } from "@std/assert";
import { METRICS } from "./metrics.ts";
import { compare, type SeriesResult, spreadOf } from "./summary.ts";

Deno.test("spreadOf() takes the middle of odd, and the mean of the two middles of even numbers", () => {
  assertEquals(spreadOf([3, 1, 2]), { min: 1, median: 2, max: 3 });
  assertEquals(spreadOf([4, 1, 2, 3]), { min: 1, median: 2.5, max: 4 });
  assertEquals(spreadOf([]), undefined);
});

const KEY = "upload.1.gbPerSecond";

function series(peer: string, workers: number | undefined, ...values: number[]): SeriesResult {
  return { peer, workers, rounds: values.map((value) => new Map([[KEY, value]])), notes: [] };
}

Deno.test("compare() sets ours against a peer of as many workers, and everyone against direct", () => {
  const results = [series("direct", undefined, 8), series("ours", 1, 2), series("ours", 2, 3), series("envoy", 2, 1)];
  const rows = compare(METRICS, results).map((row) => [
    row.series.peer,
    row.spread.median,
    row.oursToThis,
    row.thisToDirect,
  ]);
  assertEquals(rows, [
    ["direct", 8, undefined, undefined],
    ["ours", 2, undefined, 0.25],
    ["ours", 3, undefined, 0.375],
    ["envoy", 1, 3, 0.125],
  ]);
});

Deno.test("compare() leaves out what no round has measured", () => {
  assertEquals(compare(METRICS, [series("envoy", 1)]), []);
});

Deno.test("METRICS have unique keys", () => {
  assertEquals(new Set(METRICS.map((metric) => metric.key)).size, METRICS.length);
});
