import { assertEquals } from "@std/assert";
import { citedRules, ruleName, testsByRule } from "./citations.ts";
import { TITLES } from "./titles.ts";

Deno.test("citedRules() finds numbers and ranges, and nothing in longer numbers", () => {
  const cases: readonly (readonly [text: string, rules: string])[] = [
    ["x (ZT-001, ZT-228)", "ZT-001 ZT-228"],
    ["ZT-009 to ZT-011", "ZT-009 ZT-010 ZT-011"],
    ["ZT-066 to 068", "ZT-066 ZT-067 ZT-068"],
    ["ZT-017-019", "ZT-017 ZT-018 ZT-019"],
    ["ZT-0011, AZT-001, ZT-12", ""],
    ["ZT-005 to 15006", "ZT-005"],
  ];
  for (const [text, rules] of cases) assertEquals([...citedRules(text)].join(" "), rules, text);
});

Deno.test("testsByRule() reads tests alone", () => {
  const files = ["a/b.ts", "b/c_test.ts", "a/b_test.ts", "tests/tidy/x_test.ts"].map((path) => ({
    path,
    text: "ZT-003",
  }));
  assertEquals([...testsByRule(files)], [["ZT-003", ["a/b_test.ts", "b/c_test.ts"]]]);
});

Deno.test("the titles are those of 228 rules, in order", () => {
  assertEquals(TITLES.map(([rule]) => rule), Array.from({ length: 228 }, (_, index) => ruleName(index + 1)));
});
