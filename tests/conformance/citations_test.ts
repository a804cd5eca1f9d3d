import { assertEquals } from "@std/assert";
import { citations, PARTS, ruleName, testsByRule } from "./citations.ts";
import { TITLES } from "./titles.ts";
import { CONTROL_TITLES } from "./titles_control.ts";
import { NODE_TITLES } from "./titles_node.ts";

Deno.test("citations() finds numbers and ranges, and nothing in longer numbers", () => {
  const cases: readonly (readonly [text: string, rules: string])[] = [
    ["x (ZT-001, ZT-228)", "ZT-001 ZT-228"],
    ["ZT-009 to ZT-011", "ZT-009 ZT-010 ZT-011"],
    ["ZT-066 to 068", "ZT-066 ZT-067 ZT-068"],
    ["ZT-017-019", "ZT-017 ZT-018 ZT-019"],
    ["ZT-0011, AZT-001, ZT-12", ""],
    ["ZT-005 to 15006", "ZT-005"],
    ["CNI-014 to CNI-016, ACNI-001", "CNI-014 CNI-015 CNI-016"],
    ["CP-200 to CP-202, ZT-001 to CP-003", "CP-200 CP-201 CP-202 ZT-001 CP-003"],
  ];
  for (const [text, rules] of cases) assertEquals(citations(text).map(({ rule }) => rule).join(" "), rules, text);
});

Deno.test("testsByRule() reads tests alone, and leaves out the gaps inside a range", () => {
  const files = ["a/b.ts", "b/c_test.ts", "a/b_test.ts", "tests/tidy/x_test.ts"].map((path) => ({
    path,
    text: "ZT-003, CP-207 to CP-209",
  }));
  const paths = ["a/b_test.ts", "b/c_test.ts"];
  assertEquals([...testsByRule(files, (rule) => rule !== "CP-208")], [
    ["ZT-003", paths],
    ["CP-207", paths],
    ["CP-209", paths],
  ]);
});

Deno.test("the titles are those of 228 rules, in order", () => {
  assertEquals(TITLES.map(([rule]) => rule), Array.from({ length: 228 }, (_, index) => ruleName("ZT", index + 1)));
});

Deno.test("the titles of control plane and node are in order, each number once, under a part of the table", () => {
  for (const [titles, prefix] of [[CONTROL_TITLES, "CP"], [NODE_TITLES, "CNI"]] as const) {
    const rules = titles.map(([rule]) => rule);
    assertEquals(rules, [...new Set(rules)].sort());
    assertEquals(rules.filter((rule) => !new RegExp(`^${prefix}-\\d{3}$`).test(rule)), []);
  }
  assertEquals(PARTS.length, 3);
});
