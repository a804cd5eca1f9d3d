/** Reads what perf and strace print, and writes profiles as text. */
import type { CaseProfile, ProcessProfile } from "./profile.ts";

/** Kinds of code, in the order of the report. */
export const PLACE_NAMES = ["kernel", "libcrypto", "compiled JavaScript", "runtime", "libc", "other"] as const;
export type PlaceName = (typeof PLACE_NAMES)[number];

/** Shares of all samples, 0 to 1. */
export interface Places {
  readonly shares: ReadonlyMap<PlaceName, number>;
  /** Largest first. */
  readonly functions: readonly { readonly place: PlaceName; readonly name: string; readonly share: number }[];
}

const UNNAMED = "(functions without a name)"; // A stripped library tells no more.
const FUNCTIONS_MAX = 20, CALLS_MAX = 14;

/** Which kind of code a shared object holds. */
function placeOf(object: string): PlaceName {
  if (object.startsWith("[kernel")) return "kernel";
  if (object.startsWith("libcrypto") || object.startsWith("libssl")) return "libcrypto";
  if (/^perf-\d+\.map$|^\[JIT\]|^jitted-/.test(object)) return "compiled JavaScript";
  if (object.startsWith("libc.") || object.startsWith("libc-") || object === "[vdso]") return "libc";
  if (object === "deno" || object === "ambit" || object === "ztunnel") return "runtime";
  return "other";
}

/** Lines `12.34%|object|[k] function` of `perf report --sort dso,sym -t '|'`. */
export function parsePerfReport(text: string): Places {
  const shares = new Map<PlaceName, number>(), byFunction = new Map<string, [place: PlaceName, share: number]>();
  for (const line of text.split("\n")) {
    const match = /^\s*([\d.]+)%\s*\|\s*([^|]+?)\s*\|\s*\[(.)\]\s*(.+?)\s*$/.exec(line);
    if (match === null) continue;
    const share = Number(match[1]) / 100, place = match[3] === "k" ? "kernel" : placeOf(match[2]!);
    shares.set(place, (shares.get(place) ?? 0) + share);
    const name = match[4]!.startsWith("0x") ? `${UNNAMED} of ${match[2]}` : match[4]!;
    byFunction.set(name, [place, (byFunction.get(name)?.[1] ?? 0) + share]);
  }
  const functions = [...byFunction].map(([name, [place, share]]) => ({ name, place, share }));
  functions.sort((left, right) => right.share - left.share);
  return { shares, functions: functions.slice(0, FUNCTIONS_MAX) };
}

/** Lines `123,,syscalls:sys_enter_recvfrom,…` of `perf stat -x ,`; what was counted in sum alone is `others`. */
export function parsePerfStat(text: string): Map<string, number> {
  const counts = new Map<string, number>();
  let others = 0;
  for (const line of text.split("\n")) {
    const match = /^(\d+),[^,]*,(?:syscalls:sys_enter_(\w+)|raw_syscalls:sys_enter),/.exec(line);
    if (match === null) continue;
    const count = Number(match[1]), name = match[2];
    others += name === undefined ? count : -count;
    if (name !== undefined && count > 0) counts.set(name, count);
  }
  if (others > 0) counts.set("others", others);
  return counts;
}

/** The table of `strace -c`: share, seconds, microseconds a call, calls, perhaps errors, name. */
export function parseStraceSummary(text: string): Map<string, number> {
  const counts = new Map<string, number>();
  for (const line of text.split("\n")) {
    const match = /^\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)(?:\s+\d+)?\s+(\w+)\s*$/.exec(line);
    if (match !== null && match[2] !== "total") counts.set(match[2]!, Number(match[1]));
  }
  return counts;
}

/** A series' profiles as text. */
export function profileTable(series: string, profiles: readonly CaseProfile[]): string {
  const lines: string[] = [];
  for (const { label, per, processes, missing } of profiles) {
    lines.push(`${series}: ${label}`);
    for (const process of processes) lines.push(...processLines(process, per));
    for (const line of missing) lines.push(`  missing: ${line}`);
    lines.push("");
  }
  return lines.join("\n");
}

function processLines({ process, places, systemCalls }: ProcessProfile, per: string): string[] {
  const lines: string[] = [], percent = (share: number) => `${(share * 100).toFixed(1)} %`;
  if (places !== undefined) {
    const shares = PLACE_NAMES.filter((name) => places.shares.has(name));
    lines.push(`  ${process}: ${shares.map((name) => `${name} ${percent(places.shares.get(name)!)}`).join(", ")}`);
    for (const it of places.functions) {
      lines.push(`    ${percent(it.share).padStart(7)}  ${it.place.padEnd(20)}${it.name}`);
    }
  }
  if (systemCalls !== undefined) {
    const calls = [...systemCalls].sort((left, right) => right[1] - left[1]);
    const all = calls.reduce((sum, [, count]) => sum + count, 0);
    const texts = calls.slice(0, CALLS_MAX).map(([name, count]) => `${name} ${count.toFixed(3)}`);
    lines.push(`  ${process}: ${all.toFixed(2)} system calls per ${per}: ${texts.join(", ")}`);
  }
  return lines;
}

/** The same for programs. */
export function profileJson(profiles: ReadonlyMap<string, readonly CaseProfile[]>): string {
  const plain = [...profiles].map(([series, cases]) => ({
    series,
    cases: cases.map((it) => ({
      ...it,
      processes: it.processes.map(({ process, places, systemCalls }) => ({
        process,
        places: places && { shares: Object.fromEntries(places.shares), functions: places.functions },
        systemCalls: systemCalls && Object.fromEntries(systemCalls),
      })),
    })),
  }));
  return JSON.stringify(plain, undefined, 2) + "\n";
}
