import { assert, assertEquals } from "@std/assert";
import { Histogram } from "./histogram.ts";

Deno.test("Histogram.quantile() is exact below 256", () => {
  const histogram = new Histogram();
  for (let value = 1; value <= 100; value++) histogram.record(value);
  assertEquals([0.5, 0.99, 1].map((fraction) => histogram.quantile(fraction)), [50, 99, 100]);
});

Deno.test("Histogram.quantile() is within 1 % above 256, and never above the largest", () => {
  for (let value = 256; value < 0x7fffffff; value = Math.ceil(value * 1.013)) {
    const histogram = new Histogram();
    histogram.record(value);
    histogram.record(0x7fffffff);
    const found = histogram.quantile(0.5);
    assert(found >= value && found <= value * 1.01, `${value} was read back as ${found}`);
    assertEquals(histogram.quantile(1), 0x7fffffff);
  }
});

Deno.test("Histogram.reset() forgets everything", () => {
  const histogram = new Histogram();
  histogram.record(7);
  histogram.reset();
  assertEquals([histogram.total, histogram.largest, histogram.quantile(0.5)], [0, 0, 0]);
});
