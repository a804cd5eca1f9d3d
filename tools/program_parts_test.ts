import { assertEquals, assertStringIncludes } from "@std/assert";
import { engineAndRuntimeFlags } from "./program_parts.ts";

const ROOT = new URL("..", import.meta.url).pathname;

Deno.test("the image's engine is that of `deno task ambit`, and istiod's in a cluster that of `deno task istiod`", async () => {
  const { tasks } = JSON.parse(await Deno.readTextFile(`${ROOT}deno.json`));
  const flagsOf = (task: string) => /--v8-flags=(\S+)/.exec(tasks[task].command)![1]!;
  assertEquals(await engineAndRuntimeFlags(), { engine: flagsOf("ambit"), runtime: ["-A"] });
  const manifest = await Deno.readTextFile(`${ROOT}deploy/kubernetes/istiod.yaml`);
  assertStringIncludes(manifest, `{ name: DENO_V8_FLAGS, value: "${flagsOf("istiod")}" }`);
});
