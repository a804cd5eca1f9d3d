import { assertEquals } from "@std/assert";
import { readSummary, summaryLine, sumOf } from "./summary.ts";

Deno.test("readSummary() takes the counts out of a run's output, and leaves the rest", () => {
  const cases: [line: string, summary: ReturnType<typeof readSummary>["summary"]][] = [
    ["ok | 2 passed | 0 failed (1s)", { passed: 2, steps: 0, failed: 0, ignored: 0 }],
    ["ok | 292 passed (167 steps) | 0 failed (12m26s)", { passed: 292, steps: 167, failed: 0, ignored: 0 }],
    ["FAILED | 1 passed (1 step) | 2 failed | 3 ignored (4ms)", { passed: 1, steps: 1, failed: 2, ignored: 3 }],
    ["ok | 0 passed | 0 failed | 5 filtered out (0ms)", { passed: 0, steps: 0, failed: 0, ignored: 0 }],
  ];
  for (const [line, summary] of cases) {
    assertEquals(readSummary(`a ... ok (1ms)\n\n${line}\n\nerror: Test failed\n`), {
      summary,
      rest: "a ... ok (1ms)\n\nerror: Test failed",
    });
  }
});

Deno.test("readSummary() finds none in a run that never came to its end, nor in what a test printed before", () => {
  assertEquals(readSummary("error: Type checking failed.").summary, undefined);
  const said = "ok | 9 passed | 0 failed (1s)\n", end = "FAILED | 1 passed | 1 failed (1s)";
  assertEquals(readSummary(said + end).summary, { passed: 1, steps: 0, failed: 1, ignored: 0 });
});

Deno.test("summaryLine() says a sum as the test runner would, so that it is read again as the same", () => {
  const one = { passed: 3, steps: 1, failed: 0, ignored: 2 }, other = { passed: 1, steps: 0, failed: 1, ignored: 0 };
  assertEquals(summaryLine(one, 61.9), "ok | 3 passed (1 step) | 0 failed | 2 ignored (1m1s)");
  const sum = sumOf([one, other]), line = summaryLine(sum, 5);
  assertEquals(line, "FAILED | 4 passed (1 step) | 1 failed | 2 ignored (5s)");
  assertEquals(readSummary(line).summary, sum);
});
