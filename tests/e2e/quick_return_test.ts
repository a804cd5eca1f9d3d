/** A ztunnel that is killed and one that is replaced: who comes in that moment waits, and nobody is refused. */
import { assert, assertEquals } from "@std/assert";
import type { LabNode } from "../../demo/lab/node.ts";
import { meshTest, until } from "./mesh.ts";
import { failuresOf, longestOf, Newcomers, type Try } from "./newcomers.ts";

const KILLS = Number(Deno.env.get("AMBIT_E2E_KILLS") ?? "5");
const TAKEOVERS = Number(Deno.env.get("AMBIT_E2E_QUICK_TAKEOVERS") ?? "20");
const BACK_MS = 120_000, SERVED_MS = 2_000;
/** Without a resolver behind it what the mesh does not know is nobody's: the queries are all for a name of the mesh. */
const OPTIONS = { ztunnelEnvironment: { AMBIT_RESOLV_CONF: "/dev/null" } };

/** What ztunnel says on its way back, in order. */
const STEPS = [
  ["program runs", "settings"],
  ["modules loaded, OpenSSL, workers begun", "ztunnel started"],
  ["istiod reached", "xds connected"],
  ["mesh known", "mesh state complete"],
  ["pod's listeners", "pod added"],
  ["its certificate", "certificate received"],
] as const;

function print(text: string): void {
  Deno.stdout.writeSync(new TextEncoder().encode(`${text}\n`));
}

/** What a process has for itself alone, and its share of the rest. */
function privateKiB(pid: number): { readonly own: number; readonly pss: number } {
  const text = Deno.readTextFileSync(`/proc/${pid}/smaps_rollup`);
  const field = (name: string) => Number(new RegExp(`${name}:\\s+(\\d+)`).exec(text)![1]);
  return { own: field("Private_Dirty"), pss: field("Pss") };
}

/** When each step was said, in milliseconds since the kill. */
function stepsOf(node: LabNode, killedAt: number): number[] {
  return STEPS.map(([, text]) => {
    const line = node.ztunnel.lines.find((it) => it.includes(text));
    return line === undefined ? NaN : Date.parse(line.split("\t")[0]!) - killedAt;
  });
}

function printSteps(rounds: readonly number[][]): void {
  print("step                                      | done, ms after the kill: least, middle, most | took, middle");
  let before = 0;
  for (const [at, [name]] of STEPS.entries()) {
    const times = rounds.map((it) => it[at]!).filter(Number.isFinite).sort((a, b) => a - b);
    const middle = times[times.length >> 1];
    if (middle === undefined) {
      print(`${name.padEnd(41)} | not said`);
      continue;
    }
    const figures = [times[0], middle, times.at(-1)].map((it) => `${it}`.padStart(5)).join(" ");
    print(`${name.padEnd(41)} | ${figures} | ${`${middle - before}`.padStart(5)}`);
    before = middle;
  }
}

meshTest(`${KILLS} kills of a ztunnel: new connections and DNS queries wait for the next one`, async (rig) => {
  const { mesh } = rig, node = mesh.nodes["node-a"];
  await using newcomers = await Newcomers.start(rig);
  const gaps: { readonly fromMs: number; readonly toMs: number }[] = [], rounds: number[][] = [];
  for (let round = 0; round < KILLS; round++) {
    const startMs = performance.now();
    await until("all is served", BACK_MS, () => newcomers.servedSince(startMs));
    const killedAt = Date.now(), fromMs = performance.now();
    await node.crashZtunnel();
    const goneMs = performance.now();
    node.restartZtunnel();
    await until("all is served again", BACK_MS, () => newcomers.servedSince(goneMs));
    newcomers.giveUp(goneMs);
    gaps.push({ fromMs, toMs: goneMs });
    rounds.push(stepsOf(node, killedAt));
  }
  const tries = await newcomers.end();
  // What ztunnel had taken when it was killed died with it; nothing that came afterwards did.
  const open = (it: Try) => gaps.some(({ fromMs, toMs }) => it.startedAtMs < toMs && it.endedAtMs > fromMs);
  const cut = tries.filter(open), others = tries.filter((it) => !open(it));
  printSteps(rounds);
  print(JSON.stringify({
    tries: tries.length,
    cut: failuresOf(cut),
    longestMs: {
      connection: longestOf(others, "connection"),
      udp: longestOf(others, "udp"),
      tcp: longestOf(others, "tcp"),
    },
  }));
  assertEquals(failuresOf(others), {});
  assert(others.length > KILLS * 20, "there was a stream of them");
}, OPTIONS);

meshTest(`${KILLS} kills of a ztunnel under a parent: it starts the next one, and nobody is refused`, async (rig) => {
  const { mesh } = rig, node = mesh.nodes["node-a"], parent = node.ztunnel;
  const childOf = () =>
    Number(Deno.readTextFileSync(`/proc/${parent.pid}/task/${parent.pid}/children`).trim().split(" ")[0]);
  await using newcomers = await Newcomers.start(rig);
  const gaps: { readonly fromMs: number; readonly toMs: number }[] = [], backMs: number[] = [];
  for (let round = 0; round < KILLS; round++) {
    const startMs = performance.now(), child = childOf();
    // One that dies at its start is given up in the end: this one has served.
    await until("all is served for a while", BACK_MS, () => newcomers.servedSince(startMs + SERVED_MS));
    const fromMs = performance.now();
    Deno.kill(child, "SIGKILL");
    await until("another child", BACK_MS, () => childOf() > 0 && childOf() !== child);
    const toMs = performance.now();
    await until("all is served again", BACK_MS, () => newcomers.servedSince(toMs));
    newcomers.giveUp(toMs);
    gaps.push({ fromMs, toMs });
    backMs.push(Math.round(performance.now() - fromMs));
  }
  const tries = await newcomers.end();
  const open = (it: Try) => gaps.some(({ fromMs, toMs }) => it.startedAtMs < toMs && it.endedAtMs > fromMs);
  print(JSON.stringify({ tries: tries.length, backMs, parentKiB: privateKiB(parent.pid) }));
  assertEquals(failuresOf(tries.filter((it) => !open(it))), {});
  assertEquals(parent.ended, false);
  parent.kill("SIGTERM");
  assertEquals((await parent.status).code, 0, "told to end, both end in order");
}, { ztunnelEnvironment: { ...OPTIONS.ztunnelEnvironment, AMBIT_SUPERVISED: "true" } });

meshTest("newcomers wait as well where the agent was killed before, a successor was, or both", async (rig) => {
  const { mesh } = rig, node = mesh.nodes["node-a"];
  await using newcomers = await Newcomers.start(rig);
  const gaps: { readonly fromMs: number; readonly toMs: number }[] = [];
  const served = async () => {
    const startMs = performance.now();
    await until("all is served", BACK_MS, () => newcomers.servedSince(startMs));
  };
  const crash = async () => {
    await served();
    const fromMs = performance.now();
    await node.crashZtunnel();
    gaps.push({ fromMs, toMs: performance.now() });
    node.restartZtunnel();
    await served();
  };
  const told = (line: string) => line.includes("ztunnel has all pods");
  await node.restartCni("SIGKILL");
  await node.cni.line("ztunnel's return", told, BACK_MS);
  await crash();
  const since = node.cni.lineCount;
  await node.takeOver();
  await node.cni.line("the successor", told, BACK_MS, since);
  await crash();
  // The successor opened none of its listeners, and had them of more workers than its own; the agent holds none.
  await node.takeOver({ ZTUNNEL_WORKER_THREADS: "1" });
  await node.restartCni("SIGKILL");
  await node.cni.line("the successor's return", told, BACK_MS);
  await crash();
  const tries = await newcomers.end();
  const open = (it: Try) => gaps.some(({ fromMs, toMs }) => it.startedAtMs < toMs && it.endedAtMs > fromMs);
  assertEquals(failuresOf(tries.filter((it) => !open(it))), {});
}, OPTIONS);

meshTest("a ztunnel that does not come back: after a while new connections are refused", async (rig) => {
  const { mesh, client } = rig, node = mesh.nodes["node-a"];
  await using newcomers = await Newcomers.start(rig);
  await newcomers.end();
  await node.crashZtunnel();
  const order = { host: rig.server.ipv4, port: 7300, text: "late", timeoutMs: 60_000 };
  const { failure } = await client.probe.attempt("line", order);
  assert(/refused|reset|ended/i.test(failure ?? ""), `who waited hears of it: ${failure}`);
  const { failure: next } = await client.probe.attempt("line", order);
  assert(/refused/i.test(next ?? ""), `and nobody waits any more: ${next}`);
}, OPTIONS);

meshTest(`${TAKEOVERS} takeovers under new connections and DNS queries: none fails`, async (rig) => {
  const { mesh } = rig;
  await using newcomers = await Newcomers.start(rig);
  for (let round = 0; round < TAKEOVERS; round++) {
    const node = mesh.nodes[round % 4 === 3 ? "node-b" : "node-a"];
    await node.takeOver({ ZTUNNEL_WORKER_THREADS: String([2, 3, 1][round % 3]) });
    await node.ztunnelReady();
    const startMs = performance.now();
    await until("all is served", BACK_MS, () => newcomers.servedSince(startMs));
  }
  const tries = await newcomers.end(), count = (kind: string) => tries.filter((it) => it.kind === kind).length;
  print(JSON.stringify({
    takeovers: TAKEOVERS,
    connections: count("connection"),
    queries: { udp: count("udp"), tcp: count("tcp") },
    longestMs: {
      connection: longestOf(tries, "connection"),
      udp: longestOf(tries, "udp"),
      tcp: longestOf(tries, "tcp"),
    },
  }));
  assertEquals(failuresOf(tries), {});
}, OPTIONS);
