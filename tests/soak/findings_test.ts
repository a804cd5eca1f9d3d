import { assert, assertEquals } from "@std/assert";
import { Findings } from "./findings.ts";

Deno.test("Findings tells each finding once and keeps the highest count", () => {
  const told: string[] = [], findings = new Findings((finding) => told.push(finding));
  assert(findings.ok);
  for (const count of [1, 4, 4]) findings.add("wrong bytes", "alpha", count);
  findings.add("wrong bytes", "bravo");
  assertEquals(told, ["wrong bytes: alpha", "wrong bytes: bravo"]);
  assertEquals(findings.lines, ["wrong bytes: alpha (4)", "wrong bytes: bravo (1)"]);
  assert(!findings.ok);
});
