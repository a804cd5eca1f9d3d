/**
 * Two pods of one node through its ztunnel, by what redirects them: nf_tables or eBPF.
 * `deno task bench redirect` prints a table; rounds are interleaved, a cell is the median of its ratios to nf_tables.
 */
import { Mesh } from "../../demo/lab/mesh.ts";
import { PrivateBpffs, ScratchCgroup } from "../../tests/e2e/bpf_scratch.ts";
import { Cleanup } from "../macro/cleanup.ts";
import { LoadProcess } from "../macro/load_process.ts";
import type { Command } from "../macro/load/messages.ts";

export const REDIRECT_USAGE = `usage: deno task bench redirect [--rounds N]
  Needs root. Throughput, exchanges, connections and latency between two pods of one node, by what redirects them.
`;

const MODES = {
  nft: {},
  bpf: { AMBIT_REDIRECT: "bpf" },
};
type Mode = keyof typeof MODES;
const SETTLE_MS = 500, MEASURE_MS = 2_000, ROUNDS_DEFAULT = 3;

/** What is run, and whether bytes or completed exchanges count; latency is in microseconds. */
const CASES = [
  { name: "upload, 1 connection, GB/s", load: { do: "upload", connections: 1 }, of: "bytes" },
  { name: "upload, 8 connections, GB/s", load: { do: "upload", connections: 8 }, of: "bytes" },
  { name: "download, 8 connections, GB/s", load: { do: "download", connections: 8 }, of: "bytes" },
  { name: "exchanges of 100 bytes, 64 connections, per s", load: { do: "exchanges", connections: 64 }, of: "rate" },
  { name: "one exchange after the other, per s", load: { do: "exchanges", connections: 1 }, of: "rate" },
  { name: "connect, exchange, close, per s", load: { do: "churn", connections: 16 }, of: "rate" },
  { name: "latency at 1,000/s, p50 us", load: { do: "openLoop", connections: 16, ratePerSecond: 1_000 }, of: "p50" },
  { name: "latency at 1,000/s, p99 us", load: { do: "openLoop", connections: 16, ratePerSecond: 1_000 }, of: "p99" },
] as const;

/** Less a matter of how busy the machine is than what is done per second. */
const cpuOf = (name: string) =>
  `${name.slice(0, name.lastIndexOf(","))}: ztunnel's CPU, ${name.endsWith("GB/s") ? "s per GB" : "us each"}`;
const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

export async function runRedirect(args: readonly string[]): Promise<number> {
  const at = args.indexOf("--rounds"), rounds = at < 0 ? ROUNDS_DEFAULT : Number(args[at + 1]);
  const values = new Map<string, number[]>(), loads: string[] = [Deno.readTextFileSync("/proc/loadavg").trim()];
  for (let round = 0; round < rounds; round++) {
    for (const mode of Object.keys(MODES) as Mode[]) {
      for (const [name, value] of await measure(mode)) {
        const key = `${mode}|${name}`;
        values.set(key, [...values.get(key) ?? [], value]);
      }
      loads.push(Deno.readTextFileSync("/proc/loadavg").trim().split(" ")[0]!);
    }
  }
  say(`load averages before and after each pass: ${loads.join(", ")}; ${rounds} rounds\n\n`);
  say(`| case | ${Object.keys(MODES).join(" | ")} |\n|---|${"---|".repeat(Object.keys(MODES).length)}\n`);
  const names = CASES.flatMap(({ name, of }) => of === "bytes" || of === "rate" ? [name, cpuOf(name)] : [name]);
  for (const name of names) {
    const base = values.get(`nft|${name}`)!;
    const cells = (Object.keys(MODES) as Mode[]).map((mode) => {
      const own = values.get(`${mode}|${name}`)!, ratios = own.map((value, round) => value / base[round]!);
      return `${show(median(own))} (${median(ratios).toFixed(2)})`;
    });
    say(`| ${name} | ${cells.join(" | ")} |\n`);
  }
  return 0;
}

async function measure(mode: Mode): Promise<[string, number][]> {
  using bpffs = new PrivateBpffs();
  using cgroup = new ScratchCgroup();
  cgroup.enter();
  const places = { AMBIT_BPF_PINS: `${bpffs.folder}/ambit`, AMBIT_BPF_CGROUP: cgroup.path };
  await using mesh = await Mesh.start({
    key: "redirect",
    cniEnvironment: { ...MODES[mode], ...places },
    ztunnelEnvironment: { ...places, RUST_LOG: "warn" },
  });
  const pod = (name: string) => mesh.addPod({ name, namespace: "bench", serviceAccount: name, node: "node-a" });
  const from = await pod("client"), to = await pod("server"), cleanup = new Cleanup();
  try {
    const client = LoadProcess.start("client", { ...from.place, ip: from.ipv4 }, cleanup),
      server = LoadProcess.start("server", { ...to.place, ip: to.ipv4 }, cleanup);
    await server.command({ do: "listen" });
    for (const load of ["idle", "upload", "exchanges", "churn"] as const) {
      await run(client, { do: load, ip: to.ipv4, connections: 4 }, () => sleep(SETTLE_MS));
    }
    const results: [string, number][] = [];
    for (const { name, load, of } of CASES) {
      await run(client, { ...load, ip: to.ipv4 } as Command, async () => {
        await sleep(SETTLE_MS);
        const reader = of === "bytes" && load.do === "upload" ? server : client;
        const pids = [mesh.nodes["node-a"].ztunnel.pid], before = await reader.snapshot(pids, { reset: true });
        await sleep(MEASURE_MS);
        const after = await reader.snapshot(pids), seconds = (after.atMs - before.atMs) / 1000;
        if (after.failures > before.failures) throw new Error(`${mode}, ${name}: ${after.firstFailure}`);
        if (of === "bytes") results.push([name, (after.receivedBytes - before.receivedBytes) / 1e9 / seconds]);
        else if (of === "rate") results.push([name, (after.completed - before.completed) / seconds]);
        else results.push([name, after.latency[of]]);
        const cpu = after.cpuSeconds[0]! - before.cpuSeconds[0]!;
        if (of === "bytes") results.push([cpuOf(name), cpu / (after.receivedBytes - before.receivedBytes) * 1e9]);
        else if (of === "rate") results.push([cpuOf(name), cpu / (after.completed - before.completed) * 1e6]);
      });
    }
    return results;
  } finally {
    cleanup.run();
  }
}

async function run(client: LoadProcess, load: Command, during: () => Promise<unknown>): Promise<void> {
  await client.command(load);
  await during();
  await client.command({ do: "stop" });
}

const median = (values: readonly number[]) => values.toSorted((one, other) => one - other)[values.length >> 1]!;
const show = (value: number) => value < 100 ? value.toFixed(2) : Math.round(value).toLocaleString("en");

function say(text: string): void {
  Deno.stdout.writeSync(new TextEncoder().encode(text));
}
