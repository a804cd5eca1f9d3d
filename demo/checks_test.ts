import { assertEquals, assertRejects } from "@std/assert";
import { Checks } from "./checks.ts";

Deno.test("Checks holds when there are results and each of them does", async () => {
  const checks = new Checks();
  assertEquals(checks.ok, false);
  await checks.check("one", () => ({ ok: true, detail: "fine" }));
  assertEquals(checks.ok, true);
  assertEquals(checks.toJson(), '{"checks":[{"name":"one","ok":true,"detail":"fine"}],"ok":true}');
  await checks.check("two", () => ({ ok: false, detail: "not so" }));
  assertEquals(checks.ok, false);
});

Deno.test("Checks takes what a check throws, with its causes, as a check that does not hold", async () => {
  const told: string[] = [];
  const checks = new Checks(({ name, ok }) => told.push(`${name} ${ok}`));
  const held = await checks.check("one", () => {
    throw new Error("outer", { cause: new Error("inner") });
  });
  assertEquals([held, checks.results[0]!.detail, told], [false, "outer: inner", ["one false"]]);
});

Deno.test("Checks.until() records nothing more once it is stopped", async () => {
  const checks = new Checks(), stop = new AbortController();
  const stoppable = checks.until(stop.signal);
  await stoppable.check("before", () => ({ ok: true, detail: "" }));
  const meanwhile = stoppable.check("meanwhile", () => {
    stop.abort();
    return { ok: false, detail: "" };
  });
  await assertRejects(() => meanwhile);
  await assertRejects(() => stoppable.check("after", () => ({ ok: true, detail: "" })));
  assertEquals(checks.results.map(({ name }) => name), ["before"]);
});
