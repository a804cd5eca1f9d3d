/** The table of all rules: title, the tests that hold it or why none does, and what is wrong with the table. */
import type { TrackedFile } from "../tidy/tree.ts";
import { type Part, PARTS, testsByRule } from "./citations.ts";
import { NOTES, REASONS } from "./reasons.ts";
import { TITLES } from "./titles.ts";
import { CONTROL_TITLES } from "./titles_control.ts";
import { NODE_TITLES } from "./titles_node.ts";

const TITLES_OF = { ZT: TITLES, CP: CONTROL_TITLES, CNI: NODE_TITLES } as const;
const KNOWN: ReadonlySet<string> = new Set(PARTS.flatMap((part) => TITLES_OF[part].map(([rule]) => rule)));
const isRule = (rule: string) => KNOWN.has(rule);

/** One rule with what is known of it. */
interface RuleRow {
  readonly rule: string;
  readonly title: string;
  /** Paths of test files; empty where `why` stands. */
  readonly tests: readonly string[];
  readonly why: string;
  readonly note: string;
}

/** All rules of one specification, in the order of their numbers. */
export function ruleRows(files: readonly TrackedFile[], part: Part): readonly RuleRow[] {
  const byRule = testsByRule(files, isRule);
  return TITLES_OF[part].map(([rule, title]) => ({
    rule,
    title,
    tests: byRule.get(rule) ?? [],
    why: REASONS[rule] ?? "",
    note: NOTES[rule] ?? "",
  }));
}

/** How many rules are held by tests, and how many are not. */
export function countLine(rows: readonly RuleRow[]): string {
  const held = rows.filter(({ tests }) => tests.length > 0).length;
  return `${rows.length} rules: ${held} held by tests, ${rows.length - held} not.`;
}

/** The table as Markdown, counts at its end. */
export function ruleTable(rows: readonly RuleRow[]): string {
  const lines = ["| rule | what about | held by, or why not |", "|---|---|---|"];
  for (const { rule, title, tests, why, note } of rows) {
    const parts = [
      ...tests.length === 0 ? [`no test: ${why}`] : [tests.join("<br>")],
      ...note === "" ? [] : [`*${note}*`],
    ];
    lines.push(`| ${rule} | ${title} | ${parts.join("<br>")} |`);
  }
  return [...lines, "", countLine(rows)].join("\n");
}

/** Everything that is wrong with the table, a sentence each. */
export function tableProblems(files: readonly TrackedFile[]): string[] {
  const cited = [...testsByRule(files, isRule)].filter(([rule]) => !isRule(rule));
  const entries = [...Object.keys(REASONS), ...Object.keys(NOTES)].filter((rule) => !isRule(rule));
  return [
    ...PARTS.flatMap((part) => ruleRows(files, part)).flatMap(({ rule, tests, why }) => {
      if (tests.length === 0 && why === "") {
        return [`${rule}: no test cites it: write one, or say why not in tests/conformance/reasons`];
      }
      if (tests.length > 0 && why !== "") {
        return [`${rule}: ${tests[0]} cites it, so take its entry out of tests/conformance/reasons`];
      }
      return [];
    }),
    ...cited.map(([rule, paths]) => `${paths[0]}: ${rule} is no rule`),
    ...entries.map((rule) => `tests/conformance/reasons: ${rule} is no rule`),
  ];
}
