/** One control plane, one size of cluster, so many proxies: everything that is read of it. */
import { cpuSeconds, memoryUse } from "../macro/process.ts";
import type { Cleanup } from "../macro/cleanup.ts";
import type { Readings } from "../macro/metrics.ts";
import type { ApiWriter } from "../../tests/kube/api_writer.ts";
import { addPod, podName, podPlan, PROXY_NODE, removePod } from "./cluster.ts";
import type { ControlPeer, StartOptions } from "./peers.ts";
import type { Endpoint } from "./proxies/messages.ts";
import { nowMs } from "./proxies/messages.ts";
import { ProxiesProcess } from "./proxies_process.ts";

const PROXIES_PER_PROCESS = 50; // One process must not be what takes the time.
const SETTLE_MS = 2_000, LAST_ARRIVAL_MS = 12_000; // a debounce may take 10 s
const SIGN_AT_ONCE = 32;

export interface Case {
  readonly peer: ControlPeer;
  readonly pods: number;
  readonly proxies: number;
  readonly token: string;
  readonly churnPerSecond: number;
  readonly churnMs: number;
  readonly signMs: number;
  /** Whether certificates are asked for too: their rate does not depend on how many proxies there are. */
  readonly signing: boolean;
  /** The number of the next pod that was never there. */
  readonly nextPod: { value: number };
}

export interface CaseResult {
  readonly readings: Readings;
  readonly notes: readonly string[];
  /** What the control plane and the proxies used, in seconds. */
  readonly ownCpuSeconds: number;
}

const sleep = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

/** Starts the control plane, measures and stops it. */
export async function measureCase(plan: Case, api: ApiWriter, options: StartOptions): Promise<CaseResult> {
  const readings: Readings = new Map(), notes: string[] = [], startedAt = performance.now();
  const control = await plan.peer.start(options);
  readings.set("ready.ms", performance.now() - startedAt);
  readings.set("start.cpuSeconds", cpuSeconds(control.pid));
  const endpoint: Endpoint = {
    address: control.address,
    rootsPem: control.rootsPem,
    token: plan.token,
    node: PROXY_NODE,
  };
  const processes = startProxies(plan.proxies, options.cleanup);
  try {
    await connectAll(processes, endpoint, { readings, pid: control.pid });
    await sleep(SETTLE_MS);
    await churn(plan, api, { readings, notes, processes, pid: control.pid });
    if (plan.signing) await signAll(plan, processes[0]!.process, endpoint, { readings, notes, pid: control.pid });
    const pids = [control.pid, ...processes.map(({ process }) => process.pid)];
    return { readings, notes, ownCpuSeconds: pids.reduce((sum, pid) => sum + cpuSeconds(pid), 0) };
  } finally {
    for (const { process } of processes) process.stop();
    await control.stop();
  }
}

interface Group {
  readonly process: ProxiesProcess;
  readonly count: number;
}

function startProxies(total: number, cleanup: Cleanup): Group[] {
  const groups: Group[] = [];
  for (let left = total; left > 0; left -= PROXIES_PER_PROCESS) {
    groups.push({ process: ProxiesProcess.start(cleanup), count: Math.min(left, PROXIES_PER_PROCESS) });
  }
  return groups;
}

async function connectAll(
  groups: readonly Group[],
  endpoint: Endpoint,
  { readings, pid }: { readings: Readings; pid: number },
): Promise<void> {
  // The programs' own start is no part of it.
  await Promise.all(groups.map(({ process }) => process.ask({ do: "reset" }, "ready")));
  const before = cpuSeconds(pid);
  const connected = await Promise.all(
    groups.map(({ process, count }) => process.ask({ do: "connect", endpoint, count }, "connected")),
  );
  readings.set("sync.ms", Math.max(...connected.flatMap(({ syncMs }) => syncMs)));
  readings.set("sync.cpuSeconds", cpuSeconds(pid) - before);
  readings.set("sync.resources", connected[0]!.resources / groups[0]!.count);
  readings.set("synced.pssMib", memoryMib(pid));
}

interface Churning {
  readonly readings: Readings;
  readonly notes: string[];
  readonly processes: readonly Group[];
  readonly pid: number;
}

/** Replaces pods at a steady rate, and reads when each new one was known to each proxy. */
async function churn(plan: Case, api: ApiWriter, { readings, notes, processes, pid }: Churning): Promise<void> {
  await Promise.all(processes.map(({ process }) => process.ask({ do: "reset" }, "ready")));
  const sentAtMs: Record<string, number> = {}, running = new Set<Promise<void>>(), failures: string[] = [];
  const { churnPerSecond, churnMs, pods, nextPod } = plan, startedAt = performance.now(), before = cpuSeconds(pid);
  let most = 0;
  for (let done = 0; done < churnPerSecond * churnMs / 1_000; done++) {
    const dueMs = done * 1_000 / churnPerSecond, waitMs = dueMs - (performance.now() - startedAt);
    if (waitMs > 1) await sleep(waitMs);
    if (done % churnPerSecond === 0) most = Math.max(most, memoryMib(pid));
    const number = nextPod.value++;
    const replaced = replacePod(api, number, pods).then((atMs) => void (sentAtMs[podName(number)] = atMs));
    const ended = replaced.catch((error: Error) => void failures.push(error.message)).finally(() =>
      running.delete(ended)
    );
    running.add(ended);
  }
  await Promise.all(running);
  const seconds = (performance.now() - startedAt) / 1_000;
  await sleep(LAST_ARRIVAL_MS);
  readings.set("churn.cpuSecondsPerSecond", (cpuSeconds(pid) - before) / seconds);
  readings.set("churn.pssMib", Math.max(most, memoryMib(pid)));
  readings.set("churn.rate", Object.keys(sentAtMs).length / seconds);
  if (failures.length > 0) notes.push(`${failures.length} pods were not replaced, the first: ${failures[0]}`);
  const reports = await Promise.all(processes.map(({ process }) => process.ask({ do: "report", sentAtMs }, "report")));
  const latencies = Float64Array.from(reports.flatMap(({ latencyMs }) => latencyMs)).sort();
  for (const percent of [50, 99]) readings.set(`latency.p${percent}`, percentile(latencies, percent));
  readings.set("latency.max", latencies.at(-1) ?? NaN);
  const missing = reports.reduce((sum, it) => sum + it.missing, 0),
    ended = reports.reduce((sum, it) => sum + it.ended, 0);
  if (latencies.length === 0) notes.push(`no change arrived within ${LAST_ARRIVAL_MS / 1_000} s after the last`);
  else if (missing > 0) notes.push(`${missing} of ${missing + latencies.length} arrivals did not come`);
  if (ended > 0) notes.push(`${ended} proxies had to come again`);
}

/** A pod goes and its successor comes. @returns When the API server had the successor's address. */
async function replacePod(api: ApiWriter, number: number, pods: number): Promise<number> {
  await removePod(api, podPlan(number - pods, pods));
  await addPod(api, podPlan(number, pods));
  return nowMs();
}

async function signAll(
  plan: Case,
  process: ProxiesProcess,
  endpoint: Endpoint,
  { readings, notes, pid }: Omit<Churning, "processes">,
): Promise<void> {
  const identity = `spiffe://cluster.local/ns/${podPlan(0, plan.pods).namespace}/sa/bench`;
  const before = cpuSeconds(pid);
  const signed = await process.ask({ do: "sign", endpoint, identity, atOnce: SIGN_AT_ONCE, ms: plan.signMs }, "signed");
  readings.set("sign.perSecond", signed.count / signed.seconds);
  readings.set("sign.cpuMs", (cpuSeconds(pid) - before) * 1_000 / Math.max(signed.count, 1));
  readings.set("sign.p99", percentile(Float64Array.from(signed.latencyMs).sort(), 99));
  if (signed.failures > 0) notes.push(`${signed.failures} certificates refused, the first: ${signed.firstFailure}`);
}

function memoryMib(pid: number): number {
  const { proportionalMib, residentMib } = memoryUse(pid);
  return proportionalMib ?? residentMib;
}

/** @param sorted ascending. @returns NaN of nothing. */
export function percentile(sorted: Float64Array, percent: number): number {
  return sorted[Math.max(0, Math.ceil(sorted.length * percent / 100) - 1)] ?? NaN;
}
