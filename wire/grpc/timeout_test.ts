import { assertEquals } from "@std/assert";
import { parseTimeoutMs } from "./timeout.ts";

Deno.test("parseTimeoutMs() reads every unit, and nothing that is not one to eight digits and a unit", () => {
  const cases: readonly (readonly [string, number | undefined])[] = [
    ["1H", 3_600_000],
    ["2M", 120_000],
    ["3S", 3_000],
    ["99999999m", 99_999_999],
    ["5u", 0.005],
    ["6n", 0.000006],
    ["0S", 0],
    ["", undefined],
    ["S", undefined],
    ["100000000S", undefined],
    ["1s", undefined],
    ["-1S", undefined],
    ["1.5S", undefined],
    ["1S ", undefined],
  ];
  for (const [text, ms] of cases) assertEquals([text, parseTimeoutMs(text)], [text, ms]);
});
