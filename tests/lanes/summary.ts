/** What `deno test` says of itself at its end, `ok | 12 passed (3 steps) | 0 failed (2s)`: read, added up, and said again. */
import { assert } from "@std/assert";

export interface Summary {
  readonly passed: number;
  readonly steps: number;
  readonly failed: number;
  readonly ignored: number;
}

export const NOTHING: Summary = { passed: 0, steps: 0, failed: 0, ignored: 0 };
const LINE = /^(?:ok|FAILED) \| \d+ passed.*$/gm;

/** Takes the summary out of what a test run printed. */
export function readSummary(output: string): { readonly summary: Summary | undefined; readonly rest: string } {
  const line = output.match(LINE)?.at(-1);
  if (line === undefined) return { summary: undefined, rest: output };
  const count = (pattern: RegExp) => Number(pattern.exec(line)?.[1] ?? 0);
  const summary = {
    passed: count(/(\d+) passed/),
    steps: count(/passed \((\d+) steps?\)/),
    failed: count(/(\d+) failed/),
    ignored: count(/(\d+) ignored/),
  };
  const at = output.lastIndexOf(line);
  assert(at >= 0);
  return { summary, rest: output.slice(0, at).trimEnd() + output.slice(at + line.length).trimEnd() };
}

export function sumOf(all: readonly Summary[]): Summary {
  return all.reduce((sum, it) => ({
    passed: sum.passed + it.passed,
    steps: sum.steps + it.steps,
    failed: sum.failed + it.failed,
    ignored: sum.ignored + it.ignored,
  }), NOTHING);
}

/** As the test runner itself would say it: whoever counts its lines counts this one. */
export function summaryLine({ passed, steps, failed, ignored }: Summary, seconds: number): string {
  const said = [
    failed === 0 ? "ok" : "FAILED",
    `${passed} passed${steps === 0 ? "" : ` (${steps} step${steps === 1 ? "" : "s"})`}`,
    `${failed} failed${ignored === 0 ? "" : ` | ${ignored} ignored`}`,
  ].join(" | ");
  return `${said} (${seconds < 60 ? "" : `${Math.floor(seconds / 60)}m`}${Math.floor(seconds % 60)}s)`;
}
