import { assertEquals, assertThrows } from "@std/assert";
import { decodeLabelSelector } from "./label_selector.ts";
import { Field, FieldRefusal } from "./field.ts";
import { parseYaml } from "../folder/yaml.ts";
import { anySelectorMatches, selectorMatches } from "../../kube/label_selector.ts";

const selector = (yaml: string) => decodeLabelSelector(new Field(parseYaml(yaml)));
const labels = (text: string) =>
  new Map(text.split(" ").filter((it) => it !== "").map((it) => it.split("=") as [string, string]));

const MATCHES: readonly [selector: string, matching: readonly string[], other: readonly string[]][] = [
  ["{}", ["", "a=1"], []],
  ["{ matchLabels: { a: '1', b: '2' } }", ["a=1 b=2 c=3"], ["a=1", "a=2 b=2", ""]],
  ["{ matchExpressions: [{ key: a, operator: In, values: ['1', '2'] }] }", ["a=1", "a=2"], ["a=3", ""]],
  ["{ matchExpressions: [{ key: a, operator: NotIn, values: ['1'] }] }", ["a=2", "", "b=1"], ["a=1"]],
  ["{ matchExpressions: [{ key: a, operator: Exists }] }", ["a=", "a=1"], ["", "b=1"]],
  ["{ matchExpressions: [{ key: a, operator: DoesNotExist }] }", ["", "b=1"], ["a=1"]],
  ["{ matchLabels: { a: '1' }, matchExpressions: [{ key: b, operator: Exists }] }", ["a=1 b=2"], ["a=1", "b=2"]],
];

Deno.test("selectorMatches(): all requirements hold, by the API server's rules (CP-104, CP-111, CP-112)", () => {
  for (const [text, matching, other] of MATCHES) {
    for (const it of matching) assertEquals(selectorMatches(selector(text), labels(it)), true, `${text} matches ${it}`);
    for (const it of other) assertEquals(selectorMatches(selector(text), labels(it)), false, `${text} leaves ${it}`);
  }
});

Deno.test("anySelectorMatches(): none lets every namespace in, else one of them has to (CP-104)", () => {
  const both = [selector("{ matchLabels: { a: '1' } }"), selector("{ matchLabels: { b: '1' } }")];
  assertEquals(anySelectorMatches([], labels("")), true);
  assertEquals(["a=1", "b=1", "c=1"].map((it) => anySelectorMatches(both, labels(it))), [true, true, false]);
});

Deno.test("decodeLabelSelector() refuses what it would otherwise select too much for", () => {
  const refused = [
    "{ matchLabel: { a: b } }",
    "{ matchLabels: { a: 1 } }",
    "{ matchExpressions: [{ key: a, operator: in, values: [b] }] }",
    "{ matchExpressions: [{ key: a, operator: In }] }",
    "{ matchExpressions: [{ key: a, operator: NotIn, values: [] }] }",
    "{ matchExpressions: [{ key: a, operator: Exists, values: [b] }] }",
    "{ matchExpressions: [{ operator: Exists }] }",
    "{ matchExpressions: [{ key: a }] }",
    "[]",
  ];
  for (const text of refused) assertThrows(() => selector(text), FieldRefusal, "", text);
});
