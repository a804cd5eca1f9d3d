/** Which tests cite which rule: `ZT-088`, or a range, `CP-153 to CP-158`, in a name or a comment of a `_test.ts` file. */
import type { TrackedFile } from "../tidy/tree.ts";

/** Held out: they speak of rules without testing them, but for what holds the manifests to theirs. */
const NOT_TESTS = /^tests\/(conformance\/|tidy\/(?!manifests_test))/;

/** The specifications' prefixes: ztunnel, control plane, and the node with its plugin, agent and redirection. */
export const PARTS = ["ZT", "CP", "CNI"] as const;
export type Part = (typeof PARTS)[number];

const CITED = /\b(ZT|CP|CNI)-(\d{3})(?:(?: to | ?[-–] ?)(?:\1-)?(\d{3}))?(?!\d)/g;

/** `ZT-007` of 7. */
export function ruleName(part: Part, number: number): string {
  return `${part}-${String(number).padStart(3, "0")}`;
}

/** A rule that a text cites; in the middle of a range a number need not be a rule. */
interface Citation {
  readonly rule: string;
  readonly spelt: boolean;
}

/** The rules that a text cites, ranges spelt out. */
export function citations(text: string): Citation[] {
  const found: Citation[] = [];
  for (const [, part, from, to] of text.matchAll(CITED)) {
    const first = Number(from), last = Number(to ?? from);
    for (let number = first; number <= last; number++) {
      found.push({ rule: ruleName(part as Part, number), spelt: number === first || number === last });
    }
  }
  return found;
}

/** The test files by the rules that they cite, in order of their paths; of what lies inside a range, only what is a rule. */
export function testsByRule(
  files: readonly TrackedFile[],
  isRule: (rule: string) => boolean,
): ReadonlyMap<string, readonly string[]> {
  const byRule = new Map<string, string[]>();
  const tests = files.filter(({ path }) => path.endsWith("_test.ts") && !NOT_TESTS.test(path));
  for (const { path, text } of tests.toSorted((one, other) => one.path < other.path ? -1 : 1)) {
    const rules = new Set(citations(text).filter(({ rule, spelt }) => spelt || isRule(rule)).map(({ rule }) => rule));
    for (const rule of rules) byRule.set(rule, [...byRule.get(rule) ?? [], path]);
  }
  return byRule;
}
