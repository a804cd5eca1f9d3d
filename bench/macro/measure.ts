/** The cases: each loads one path for a while and reads what it did. */
import { chain, MeshError } from "../../base/errors.ts";
import { type ForeignLoad, ForeignWatch } from "./foreign_load.ts";
import type { LoadProcess } from "./load_process.ts";
import type { Command, Snapshot } from "./load/messages.ts";
import {
  type CaseName,
  CHURN_CONNECTIONS,
  CONNECTION_COUNTS,
  EXCHANGE_CONNECTIONS,
  HANDSHAKE_CONNECTIONS,
  IDLE_CONNECTIONS,
  LATENCY_CONNECTIONS,
  LATENCY_RATES,
  type Readings,
  UPDATE_RATE,
} from "./metrics.ts";
import type { PeerProcess, RunningPeer } from "./peers/peer.ts";
import { cpuSeconds, memoryUse } from "./process.ts";
import { SERVER_IP } from "./topology.ts";

/** How long a case runs before it counts, and how long it counts. */
export interface Timing {
  readonly settleMs: number;
  readonly measureMs: number;
}

/** A peer that stands, with the load processes at both of its ends. */
export interface Path {
  readonly running: RunningPeer;
  readonly client: LoadProcess;
  readonly server: LoadProcess;
  /** More of them on the client's side, for handshakes: one alone costs as much as the listener that it loads. */
  readonly helpers: readonly LoadProcess[];
  /** Open-file limit and the peer's need, which may rule out the idle connections. */
  readonly idleFits: boolean;
}

/** What to do, and what went wrong while it was done. */
interface Pass {
  readonly path: Path;
  readonly timing: Timing;
  readonly readings: Readings;
  readonly notes: string[];
}

export interface PassResult {
  readonly readings: Readings;
  readonly notes: readonly string[];
  /** What else ran on the machine meanwhile. */
  readonly foreign: ForeignLoad;
}

const sleep = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

/** Measures every case once. A case that fails leaves a note and no reading. */
export async function measureAll(path: Path, timing: Timing, cases: readonly CaseName[]): Promise<PassResult> {
  const pass: Pass = { path, timing, readings: new Map(), notes: [] };
  const own = [...path.running.processes, path.client, path.server, ...path.helpers].map((process) => process.pid);
  const watch = new ForeignWatch([Deno.pid, ...own]);
  for (const name of cases) await runCase(pass, name);
  return { readings: pass.readings, notes: pass.notes, foreign: watch.read() };
}

async function runCase(pass: Pass, name: CaseName): Promise<void> {
  const { running, idleFits } = pass.path;
  switch (name) {
    case "upload":
    case "download":
      for (const count of CONNECTION_COUNTS) {
        await attempt(pass, `${name} ${count}`, () => measureTransfer(pass, name, count));
      }
      return;
    case "exchanges":
      return await attempt(pass, name, () => measureRate(pass, name, EXCHANGE_CONNECTIONS));
    case "churn":
      return await attempt(pass, "connect, exchange, close", () => measureRate(pass, name, CHURN_CONNECTIONS));
    case "handshakes":
      if (running.tls !== undefined) await attempt(pass, name, () => measureHandshakes(pass));
      return;
    case "latency":
      for (const rate of LATENCY_RATES) await attempt(pass, `latency at ${rate}/s`, () => measureLatency(pass, rate));
      return;
    case "idle":
      readMemory(pass.readings, running.processes, "loaded");
      if (idleFits) await attempt(pass, "idle connections", () => measureIdle(pass));
      return;
    case "update":
      if (running.changeWorkloads !== undefined) await attempt(pass, "all workloads change", () => measureUpdate(pass));
  }
}

/** A little of everything, so that nothing is compiled while it is measured. Throws AMB9004 when nothing comes through. */
export async function warmUp(path: Path, timing: Timing): Promise<void> {
  // First one exchange alone: it waits for certificates and sessions, and says why when the path does not work.
  await path.client.command({ do: "idle", ip: SERVER_IP, connections: 1 });
  for (const load of ["upload", "download", "exchanges", "churn"] as const) {
    await path.client.command({ do: load, ip: SERVER_IP, connections: 8 });
    await sleep(timing.measureMs);
    await path.client.command({ do: "stop" });
  }
}

async function attempt(pass: Pass, what: string, measure: () => Promise<void>): Promise<void> {
  try {
    await measure();
  } catch (error) {
    if (!(error instanceof MeshError)) throw error;
    pass.notes.push(`${what}: ${chain(error)}`);
  }
  for (const process of [pass.path.client, ...pass.path.helpers]) await process.command({ do: "stop" });
  await settle(pass, what);
}

const QUIET_WINDOW_MS = 100, QUIET_WAIT_MS_MAX = 10_000;
const QUIET_CPU_SECONDS_MAX = 0.015; // In 100 ms: one tick of /proc/PID/stat, which a timer alone may cost.

/** Waits until the proxies have dealt with what the last load left in their buffers, so that no case pays for another. */
async function settle(pass: Pass, what: string): Promise<void> {
  const pids = pass.path.running.processes.map((process) => process.pid);
  const deadlineMs = performance.now() + QUIET_WAIT_MS_MAX;
  for (let before = total(pids.map(cpuSeconds));;) {
    await sleep(QUIET_WINDOW_MS);
    const now = total(pids.map(cpuSeconds));
    if (now - before <= QUIET_CPU_SECONDS_MAX) return;
    if (performance.now() > deadlineMs) {
      pass.notes.push(`${what}: the proxies were still busy ${QUIET_WAIT_MS_MAX / 1000} s after its end`);
      return;
    }
    before = now;
  }
}

interface Window {
  readonly seconds: number;
  readonly receivedBytes: number;
  readonly completed: number;
  /** CPU seconds by process, in the order of the path's processes. */
  readonly cpuSeconds: readonly number[];
  readonly end: Snapshot;
}

/** Starts a load, lets it settle, and reads `reader` at both ends of the window. */
async function runWindow(pass: Pass, load: Command, reader: LoadProcess): Promise<Window> {
  const [window] = await runWindows(pass, load, [reader]);
  return window!;
}

/** The same, read from several processes; each gives its own window. */
async function runWindows(pass: Pass, load: Command, readers: readonly LoadProcess[]): Promise<Window[]> {
  const { path, timing, notes } = pass, pids = path.running.processes.map((process) => process.pid);
  const snapshots = (reset: boolean) => Promise.all(readers.map((reader) => reader.snapshot(pids, { reset })));
  await path.client.command(load);
  await sleep(timing.settleMs);
  const begins = await snapshots(true);
  await sleep(timing.measureMs);
  const ends = await snapshots(false);
  return ends.map((end, at) => {
    const begin = begins[at]!, failures = end.failures - begin.failures;
    if (failures > 0) notes.push(`${load.do}: ${failures} connections failed, the first: ${end.firstFailure}`);
    return {
      seconds: (end.atMs - begin.atMs) / 1000,
      receivedBytes: end.receivedBytes - begin.receivedBytes,
      completed: end.completed - begin.completed,
      cpuSeconds: end.cpuSeconds.map((seconds, process) => seconds - begin.cpuSeconds[process]!),
      end,
    };
  });
}

const total = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0);

async function measureTransfer(pass: Pass, direction: "upload" | "download", connections: number): Promise<void> {
  const { path, readings } = pass;
  const receiver = direction === "upload" ? path.server : path.client; // Whoever receives knows what has arrived.
  const window = await runWindow(pass, { do: direction, ip: SERVER_IP, connections }, receiver);
  const gigabytes = window.receivedBytes / 1e9, key = `${direction}.${connections}`;
  if (gigabytes === 0) throw new MeshError("AMB9008", "no byte arrived", { remedy: "Look at the proxies' logs." });
  readings.set(`${key}.gbPerSecond`, gigabytes / window.seconds);
  if (path.running.processes.length === 0) return;
  for (const [at, process] of path.running.processes.entries()) {
    readings.set(`${key}.cpuSecondsPerGb.${process.name}`, window.cpuSeconds[at]! / gigabytes);
  }
  readings.set(`${key}.cpuSecondsPerGb.both`, total(window.cpuSeconds) / gigabytes);
}

async function measureRate(pass: Pass, load: "exchanges" | "churn", connections: number): Promise<void> {
  const window = await runWindow(pass, { do: load, ip: SERVER_IP, connections }, pass.path.client);
  pass.readings.set(`${load}.perSecond`, window.completed / window.seconds);
  setCost(pass, `${load}.cpu`, window, window.cpuSeconds);
}

async function measureHandshakes(pass: Pass): Promise<void> {
  const { client, helpers, running } = pass.path, connections = HANDSHAKE_CONNECTIONS / (1 + helpers.length);
  const load = { do: "handshakes", ip: SERVER_IP, connections, ...running.tls! } as const;
  for (const helper of helpers) await helper.command(load);
  const [window, ...others] = await runWindows(pass, load, [client, ...helpers]);
  pass.readings.set("handshakes.perSecond", total([window!, ...others].map((it) => it.completed / it.seconds)));
  const completed = total([window!, ...others].map((it) => it.completed));
  const inbound = running.processes.findIndex((process) => process.name === "in");
  setCost(pass, "handshakes.cpu", { ...window!, completed }, [window!.cpuSeconds[inbound]!]);
}

// Beyond this the machine had no processor left for the generator, and its delay is in the latencies.
const LATE_US_MAX = 500;

// The far quantiles need many requests: 6,000 at 1,000/s in a full run.
const LATENCY_STRETCH = 2;

async function measureLatency(pass: Pass, ratePerSecond: number): Promise<void> {
  const load = { do: "openLoop", ip: SERVER_IP, connections: LATENCY_CONNECTIONS, ratePerSecond } as const;
  const timing = { ...pass.timing, measureMs: pass.timing.measureMs * LATENCY_STRETCH };
  const window = await runWindow({ ...pass, timing }, load, pass.path.client);
  const { p50, p99, p999, count } = window.end.latency, key = `latency.${ratePerSecond}`;
  const due = window.seconds * ratePerSecond;
  // What has not been answered has no latency, and would make the rest look good.
  if (count < due * 0.98) {
    pass.notes.push(`latency at ${ratePerSecond}/s: ${count} answers to ${due.toFixed(0)} requests`);
  }
  if (window.end.latency.lateP99 > LATE_US_MAX) {
    pass.notes.push(
      `latency at ${ratePerSecond}/s: the generator itself was ${window.end.latency.lateP99} us late at p99`,
    );
  }
  pass.readings.set(`${key}.p50`, p50).set(`${key}.p99`, p99).set(`${key}.p999`, p999);
  setCost(pass, `${key}.cpu`, window, window.cpuSeconds);
}

async function measureIdle(pass: Pass): Promise<void> {
  const { path, readings, timing } = pass;
  await path.client.command({ do: "idle", ip: SERVER_IP, connections: IDLE_CONNECTIONS });
  await sleep(timing.settleMs);
  readMemory(readings, path.running.processes, "idle");
}

// What a publication leaves behind, such as a collection of garbage, belongs to it.
const AFTER_UPDATE_MS = 1000;

/** A steady trickle of exchanges: a while in peace, then until every workload of the mesh has changed. */
async function measureUpdate(pass: Pass): Promise<void> {
  const { path, readings, timing, notes } = pass, { client } = path;
  const connections = LATENCY_CONNECTIONS, ratePerSecond = UPDATE_RATE;
  await client.command({ do: "openLoop", ip: SERVER_IP, connections, ratePerSecond });
  const slowTurns = [await path.running.countSlowTurns?.()];
  await sleep(timing.settleMs);
  await client.snapshot([], { reset: true });
  await sleep(timing.measureMs);
  const quiet = await client.snapshot([]);
  slowTurns.push(await path.running.countSlowTurns?.());
  await sleep(timing.settleMs);
  await client.snapshot([], { reset: true });
  const startMs = performance.now();
  await path.running.changeWorkloads!();
  readings.set("update.seconds", (performance.now() - startMs) / 1000);
  await sleep(AFTER_UPDATE_MS);
  const { latency, failures } = await client.snapshot([]);
  readings.set("update.quiet.p99", quiet.latency.p99).set("update.quiet.largest", quiet.latency.largest);
  readings.set("update.p99", latency.p99).set("update.largest", latency.largest);
  slowTurns.push(await path.running.countSlowTurns?.());
  const [first, second, third] = slowTurns;
  if (first !== undefined && second !== undefined && third !== undefined) {
    readings.set("update.quiet.slowTurns", second - first).set("update.slowTurns", third - second);
  }
  if (failures > quiet.failures) notes.push(`update: ${failures - quiet.failures} connections failed`);
  if (latency.lateP99 > LATE_US_MAX) notes.push(`update: the generator itself was ${latency.lateP99} us late at p99`);
}

/** Memory of a peer's processes now. */
export function readMemory(readings: Readings, processes: readonly PeerProcess[], state: string): void {
  for (const { name, pid } of processes) {
    const use = memoryUse(pid);
    readings.set(`memory.${state}.${name}.resident`, use.residentMib);
    if (use.proportionalMib !== undefined) readings.set(`memory.${state}.${name}.proportional`, use.proportionalMib);
  }
}

function setCost(pass: Pass, key: string, window: Window, cpuSeconds: readonly number[]): void {
  if (cpuSeconds.length > 0 && window.completed > 0) {
    pass.readings.set(key, total(cpuSeconds) / window.completed * 1e6);
  }
}
