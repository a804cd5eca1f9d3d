/** The demo itself: what it prints for programs, how it ends, and that it leaves nothing, also when it is stopped midway. */
import { assert, assertEquals } from "@std/assert";
import { isAlive, labNamespaces, processesIn, sweepLeftovers } from "../../demo/lab/network.ts";
import { until } from "./mesh.ts";

const DEMO = new URL("../../demo/main.ts", import.meta.url).pathname;

function start(...args: string[]): Deno.ChildProcess {
  return new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--quiet", "--unstable-worker-options", DEMO, ...args],
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
}

Deno.test("demo --once -o json prints its checks and nothing else, all hold, and nothing is left", async () => {
  const child = start("--once", "-o", "json");
  const { code, stdout, stderr } = await child.output();
  const text = new TextDecoder().decode(stdout);
  const report = JSON.parse(text) as { checks: { name: string; ok: boolean; detail: string }[]; ok: boolean };
  assertEquals(report.checks.filter((it) => !it.ok), [], new TextDecoder().decode(stderr));
  assertEquals([code, report.ok, Object.keys(report)], [0, true, ["checks", "ok"]]);
  assert(report.checks.length >= 20);
  assertEquals(new Set(report.checks.map((it) => it.name)).size, report.checks.length, "names tell checks apart");
  assertEquals(labNamespaces(child.pid), []);
});

/** Reads what it prints until the text is there. @returns A reader for the rest. */
async function printed(child: Deno.ChildProcess, text: string): Promise<ReadableStreamDefaultReader<Uint8Array>> {
  const reader = child.stdout.getReader(), decoder = new TextDecoder();
  let all = "";
  while (!all.includes(text)) {
    const { value, done } = await reader.read();
    assert(!done, `it ended before it said ${text}:\n${all}`);
    all += decoder.decode(value, { stream: true });
  }
  return reader;
}

for (const [signal, text] of [["SIGINT", "Building"], ["SIGINT", "2 of 7"], ["SIGTERM", "5 of 7"]] as const) {
  Deno.test(`the demo, stopped by ${signal} at "${text}", takes everything down`, async () => {
    const child = start("--once");
    const reader = await printed(child, text);
    child.kill(signal);
    while (!(await reader.read()).done);
    const errors = await new Response(child.stderr).text();
    assertEquals([(await child.status).code, errors], [130, ""]);
    assertEquals(labNamespaces(child.pid), []);
  });
}

Deno.test("what a demo leaves that was killed is taken away at the next start", async () => {
  const child = start("--once");
  const reader = await printed(child, "1 of 7");
  const namespaces = labNamespaces(child.pid);
  const processes = processesIn(...namespaces.map((name) => `/run/netns/${name}`));
  assert(namespaces.length === 9 && processes.length > 9, `${namespaces.length} and ${processes.length}`);
  child.kill("SIGKILL");
  await child.status;
  await Promise.all([reader.cancel(), child.stderr.cancel()]);
  assertEquals(sweepLeftovers().filter((name) => namespaces.includes(name)).sort(), namespaces.sort());
  await until("its programs have ended", 60_000, () => processes.every((pid) => !isAlive(pid)));
  assertEquals([...Deno.readDirSync("/tmp")].filter(({ name }) => name.startsWith(`ambit-lab-${child.pid}-`)), []);
});

Deno.test("the demo refuses a flag that it does not know, and says which it knows", async () => {
  const { code, stderr } = await start("--twice").output();
  assertEquals(code, 64);
  assert(
    new TextDecoder().decode(stderr).includes("did you mean") || new TextDecoder().decode(stderr).includes("--help"),
  );
});
