import { assert, assertEquals } from "@std/assert";
import { type Sample, takeSample, trendOf } from "./samples.ts";

const series = (values: readonly number[]): Sample[] =>
  values.map((value, index) => ({
    atMs: index * 60_000,
    rssBytes: value,
    pssBytes: 0,
    descriptors: 0,
    threads: 0,
  }));

Deno.test("trendOf() tells a steady slope, and the growth of the low between the first and the last third", () => {
  assertEquals(trendOf(series([10, 20, 30, 40, 50, 60]), "rssBytes"), {
    first: 10,
    median: 35,
    last: 60,
    perMinute: 10,
    growth: 40,
  });
});

Deno.test("trendOf() is not misled by high samples", () => {
  assertEquals(trendOf(series([10, 30, 20, 50, 10, 40, 11, 60, 90]), "rssBytes").growth, 1);
  assertEquals(trendOf(series([10, 10, 10, 10, 10, 10, 90, 10, 10]), "rssBytes").growth, 0);
  assertEquals(trendOf(series([7]), "rssBytes").growth, 0);
});

Deno.test("takeSample() sees this process, and that another is gone", () => {
  const sample = takeSample(Deno.pid, 5)!;
  assert(sample.rssBytes > 1e7 && sample.pssBytes > 1e6 && sample.descriptors > 2 && sample.threads > 0);
  assertEquals(takeSample(0x3fff_ffff, 5), undefined);
});
