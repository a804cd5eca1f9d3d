/** Which tests cite which rule: `ZT-088`, or a range, `ZT-153 to ZT-158`, in a name or a comment of a `_test.ts` file. */
import type { TrackedFile } from "../tidy/tree.ts";

/** Held out: they speak of rules without testing them. */
const NOT_TESTS = /^tests\/(conformance|tidy)\//;

const CITED = /\bZT-(\d{3})(?:(?: to | ?[-–] ?)(?:ZT-)?(\d{3}))?(?!\d)/g;

/** `ZT-007` of 7. */
export function ruleName(number: number): string {
  return `ZT-${String(number).padStart(3, "0")}`;
}

/** The rules that a text cites, ranges spelt out. */
export function citedRules(text: string): Set<string> {
  const rules = new Set<string>();
  for (const [, from, to] of text.matchAll(CITED)) {
    for (let number = Number(from); number <= Number(to ?? from); number++) rules.add(ruleName(number));
  }
  return rules;
}

/** The test files by the rules that they cite, in order of their paths. */
export function testsByRule(files: readonly TrackedFile[]): ReadonlyMap<string, readonly string[]> {
  const byRule = new Map<string, string[]>();
  const tests = files.filter(({ path }) => path.endsWith("_test.ts") && !NOT_TESTS.test(path));
  for (const { path, text } of tests.toSorted((one, other) => one.path < other.path ? -1 : 1)) {
    for (const rule of citedRules(text)) byRule.set(rule, [...byRule.get(rule) ?? [], path]);
  }
  return byRule;
}
