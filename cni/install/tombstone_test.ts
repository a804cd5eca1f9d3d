import { assert, assertEquals } from "@std/assert";
import { base64Traces, tombstoneScript } from "./tombstone.ts";

/** Runs the script as a runtime does. */
async function call(script: string, command: string, input = ""): Promise<{ code: number; out: string }> {
  const child = new Deno.Command("/bin/sh", {
    args: [script],
    env: { CNI_COMMAND: command, CNI_CONTAINERID: "c1" },
    stdin: input === "" ? "null" : "piped", // What the script does not read may end before it is written.
    stdout: "piped",
    stderr: "inherit",
  }).spawn();
  if (input !== "") {
    const writer = child.stdin.getWriter();
    await writer.write(new TextEncoder().encode(input));
    await writer.close();
  }
  const { code, stdout } = await child.output();
  return { code, out: new TextDecoder().decode(stdout) };
}

Deno.test("what is left of the plugin passes results on, succeeds, and goes when no pod's record names us (CNI-049)", async () => {
  const folder = await Deno.makeTempDir({ prefix: "c1" }),
    script = `${folder}/istio-cni`,
    results = `${folder}/results`;
  try {
    await Deno.mkdir(results);
    await Deno.writeTextFile(script, tombstoneScript(results), { mode: 0o755 });
    const result = {
      cniVersion: "1.0.0",
      dns: { search: ["a}b", 'quo"te{', "back\\slash"] },
      ips: [{ address: "10.0.0.2/24" }],
    };
    for (const indent of [undefined, 2]) {
      const input = JSON.stringify({ name: "net", prevResult: result, type: "istio-cni" }, undefined, indent);
      const { code, out } = await call(script, "ADD", input.replace('"prevResult": ', '"prevResult":'));
      assertEquals([code, JSON.parse(out)], [0, result]);
    }
    assertEquals(JSON.parse((await call(script, "ADD", "{}")).out), { cniVersion: "0.3.1" });
    assertEquals(JSON.parse((await call(script, "VERSION")).out).supportedVersions.length, 7);
    assertEquals(await call(script, "CHECK"), { code: 0, out: "" });
    const config = new TextEncoder().encode('{"plugins":[{"type":"istio-cni"}]}').toBase64();
    await Deno.writeTextFile(`${results}/net-c2-eth0`, JSON.stringify({ kind: "cniCacheV1", config }));
    await Deno.writeTextFile(`${results}/net-c1-eth0`, JSON.stringify({ kind: "cniCacheV1", config })); // The call's own.
    assertEquals(await call(script, "DEL"), { code: 0, out: "" });
    assert((await Deno.stat(script)).isFile, "another pod still needs it");
    await Deno.writeTextFile(`${results}/net-c2-eth0`, JSON.stringify({ kind: "cniCacheV1", config: "e30=" }));
    assertEquals(await call(script, "DEL"), { code: 0, out: "" });
    assertEquals([...Deno.readDirSync(folder)].map(({ name }) => name), ["results"]);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("base64Traces() are in the base64 of every text that has the word, wherever it begins", () => {
  const traces = base64Traces('"istio-cni"');
  for (let before = 0; before < 7; before++) {
    for (let behind = 0; behind < 4; behind++) {
      const text = new TextEncoder().encode(`${"x".repeat(before)}"istio-cni"${"y".repeat(behind)}`).toBase64();
      assert(traces.some((trace) => text.includes(trace)), text);
    }
  }
  assert(traces.every((trace) => trace.length > 10));
});
