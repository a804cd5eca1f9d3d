/** Where a proxy's time goes: samples by place and function (perf record), and its system calls (perf stat, or strace). */
import { ignore } from "../../base/errors.ts";
import type { Cleanup } from "./cleanup.ts";
import type { Command } from "./load/messages.ts";
import type { Path, Timing } from "./measure.ts";
import { type CaseName, CHURN_CONNECTIONS, CONNECTION_COUNTS, EXCHANGE_CONNECTIONS } from "./metrics.ts";
import { LATENCY_CONNECTIONS, LATENCY_RATES } from "./metrics.ts";
import { parsePerfReport, parsePerfStat, parseStraceSummary, type Places } from "./profile_text.ts";
import { SERVER_IP } from "./topology.ts";

const SAMPLES_PER_SECOND = 997; // Prime, so that no timer is met again and again.

// What proxies call, and all calls together. Counting every call there is would take the kernel 20 s to set up.
const COUNTED_CALLS =
  `recvfrom sendto readv writev read write recvmsg sendmsg epoll_wait epoll_pwait epoll_ctl accept4 socket
  bind connect shutdown close setsockopt getsockopt getsockname getpeername setns futex mmap munmap mprotect madvise
  splice io_uring_enter sched_yield`.split(/\s+/);
const COUNTED_EVENTS = [...COUNTED_CALLS.map((call) => `syscalls:sys_enter_${call}`), "raw_syscalls:sys_enter"].join();

/** One proxy in one case. */
export interface ProcessProfile {
  readonly process: string;
  /** Shares of the samples, 0 to 1. */
  readonly places: Places | undefined;
  /** Calls per MB received, or per exchange or connection. */
  readonly systemCalls: ReadonlyMap<string, number> | undefined;
}

export interface CaseProfile {
  readonly label: string;
  /** What system calls are counted per. */
  readonly per: "MB" | "each";
  readonly processes: readonly ProcessProfile[];
  readonly missing: readonly string[];
}

/** Runs each case that has a steady load, and looks at its proxies meanwhile. */
export async function profileCases(
  path: Path,
  options: { cases: readonly CaseName[]; timing: Timing; folder: string; cleanup: Cleanup },
): Promise<CaseProfile[]> {
  const profiles: CaseProfile[] = [];
  if (path.running.processes.length === 0) return profiles;
  for (const { pid } of path.running.processes) {
    const map = `/tmp/perf-${pid}.map`; // The runtime's names of compiled functions, with --perf-basic-prof.
    options.cleanup.add(`delete ${map}`, () => removeIfThere(map));
  }
  for (const { label, load, per } of options.cases.flatMap(loadsOf)) {
    profiles.push(await profileCase(path, { label, load, per, ...options }));
  }
  return profiles;
}

interface CaseLoad {
  readonly label: string;
  readonly load: Command;
  readonly per: "MB" | "each";
}

function loadsOf(name: CaseName): CaseLoad[] {
  const ip = SERVER_IP;
  switch (name) {
    case "upload":
    case "download":
      return CONNECTION_COUNTS.map((connections) => ({
        label: `${name}, ${connections} conn.`,
        load: { do: name, ip, connections },
        per: "MB",
      }));
    case "exchanges":
      return [{ label: name, load: { do: name, ip, connections: EXCHANGE_CONNECTIONS }, per: "each" }];
    case "churn":
      return [{
        label: "connect, exchange, close",
        load: { do: name, ip, connections: CHURN_CONNECTIONS },
        per: "each",
      }];
    case "latency":
      return LATENCY_RATES.map((ratePerSecond) => ({
        label: `latency at ${ratePerSecond}/s`,
        load: { do: "openLoop", ip, connections: LATENCY_CONNECTIONS, ratePerSecond },
        per: "each",
      }));
    default:
      return []; // No steady load.
  }
}

async function profileCase(
  path: Path,
  options: CaseLoad & { timing: Timing; folder: string },
): Promise<CaseProfile> {
  const { label, load, per, timing, folder } = options, { client, server, running } = path;
  const missing: string[] = [], seconds = timing.measureMs / 1000;
  await client.command(load);
  await new Promise((resolve) => setTimeout(resolve, timing.settleMs));
  const places = await Promise.all(running.processes.map(({ pid }) => samplePlaces(pid, seconds, folder, missing)));
  const readers = [client, server], before = await Promise.all(readers.map((reader) => reader.snapshot([])));
  const calls = await Promise.all(running.processes.map(({ pid }) => countCalls(pid, seconds, missing)));
  const after = await Promise.all(readers.map((reader) => reader.snapshot([])));
  await client.command({ do: "stop" });
  // Rates, for counters start a while after the first snapshot; whoever receives most is the one that bytes are for.
  const rates = after.map((it, at) => {
    const windowSeconds = (it.atMs - before[at]!.atMs) / 1000;
    const amount = per === "MB"
      ? (it.receivedBytes - before[at]!.receivedBytes) / 1e6
      : it.completed - before[at]!.completed;
    return amount / windowSeconds;
  });
  const amount = Math.max(...rates) * seconds;
  const processes = running.processes.map(({ name }, at) => ({
    process: name,
    places: places[at],
    systemCalls: calls[at] && new Map([...calls[at]].map(([call, count]) => [call, count / amount])),
  }));
  return { label, per, processes, missing: [...new Set(missing)] };
}

async function samplePlaces(
  pid: number,
  seconds: number,
  folder: string,
  missing: string[],
): Promise<Places | undefined> {
  const data = `${folder}/perf-${pid}.data`;
  const record = [
    "record",
    "-q",
    "-F",
    `${SAMPLES_PER_SECOND}`,
    "-p",
    `${pid}`,
    "-o",
    data,
    "--",
    "sleep",
    `${seconds}`,
  ];
  if (await output("perf", record, missing) === undefined) return undefined;
  const report = ["report", "-i", data, "--sort", "dso,sym", "--stdio", "-t", "|", "-q", "--percent-limit", "0"];
  const text = await output("perf", report, missing);
  removeIfThere(data);
  return text === undefined ? undefined : parsePerfReport(text.stdout);
}

async function countCalls(pid: number, seconds: number, missing: string[]): Promise<Map<string, number> | undefined> {
  const stat = ["stat", "-x", ",", "-e", COUNTED_EVENTS, "-p", `${pid}`, "--", "sleep", `${seconds}`];
  const counted = await output("perf", stat, missing);
  if (counted !== undefined) return parsePerfStat(counted.stderr);
  const trace = ["-s", "INT", `${seconds}`, "strace", "-q", "-c", "-f", "-p", `${pid}`];
  const traced = await output("timeout", trace, missing);
  return traced === undefined ? undefined : parseStraceSummary(traced.stderr);
}

const EXIT_TIMEOUT = 124; // timeout(1), when it had to end its command: what we want of it.

/** What a tool wrote; undefined, and a line in `missing`, when it is not there or fails. */
async function output(
  command: string,
  args: readonly string[],
  missing: string[],
): Promise<{ stdout: string; stderr: string } | undefined> {
  try {
    const { success, code, stdout, stderr } = await new Deno.Command(command, { args: [...args] }).output();
    const texts = { stdout: new TextDecoder().decode(stdout), stderr: new TextDecoder().decode(stderr) };
    if (success || code === EXIT_TIMEOUT) return texts;
    missing.push(`${command} ${args[0]} failed: ${texts.stderr.trim().split("\n")[0] || `status ${code}`}`);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    missing.push(`there is no program ${command} here`);
  }
  return undefined;
}

function removeIfThere(path: string): void {
  try {
    Deno.removeSync(path);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    ignore(error, "nothing was written");
  }
}
