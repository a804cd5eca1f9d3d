/** The command line of `deno task bench l4`. */
import { parseArgs } from "@std/cli";
import { MeshError } from "../../base/errors.ts";
import type { Timing } from "./measure.ts";
import { CASE_NAMES, type CaseName } from "./metrics.ts";

export const PEER_NAMES = ["direct", "ours", "before", "ztunnel", "envoy", "haproxy"] as const;
export type PeerName = (typeof PEER_NAMES)[number];

export interface Options {
  readonly rounds: number;
  readonly workers: readonly number[];
  /** In the order in which a round takes them. */
  readonly peers: readonly PeerName[];
  /** Peers that were asked for by name: their absence is a failure. */
  readonly required: readonly PeerName[];
  readonly paths: Readonly<Partial<Record<PeerName, string>>>;
  readonly timing: Timing;
  readonly cases: readonly CaseName[];
  /** Workloads of other nodes in the mesh, for peers that know a mesh. */
  readonly workloads: number;
  /** Says where the time goes, instead of comparing. */
  readonly profile: boolean;
  readonly quick: boolean;
  readonly output: "table" | "json" | "markdown";
  readonly keep: boolean;
  /** Whether every process gets cores of its own, where there are enough. */
  readonly pin: boolean;
  /** TCP congestion control of every namespace, for all peers alike; undefined: the host's. */
  readonly congestion: string | undefined;
  /** Flags of the runtime for our own processes. */
  readonly runtimeFlags: readonly string[];
}

const FULL: Timing = { settleMs: 700, measureMs: 3000 };
const QUICK: Timing = { settleMs: 200, measureMs: 500 };
const WORKLOADS = 10_000, WORKLOADS_MAX = 100_000;

export const USAGE = `usage: deno task bench l4 [options]

Carries TCP between two network namespaces through an outbound and an inbound proxy, for us and for each peer in the
same run, and compares. Needs root, iproute2 and nftables; everything it makes goes when it ends.

  --quick                one round, one worker, short cases: under two minutes
  --rounds N             rounds, interleaved over the peers (default 5)
  --workers LIST         worker threads per proxy, one series each (default 1,2)
  --only NAME,...        of ${PEER_NAMES.join(", ")} (default: all that are here)
  --peer NAME=PATH       the program of ztunnel or envoy, or as "before" another checkout of this repository; repeatable
  --cases NAME,...       of ${CASE_NAMES.join(", ")} (default: all)
  --workloads N          workloads on other nodes, in the meshes of ztunnel and ours (default ${WORKLOADS}; quick 0)
  --profile              where each proxy spends its time, by place and function, and its system calls per MB or each
  --measure-ms N         length of each case (default ${FULL.measureMs}; quick ${QUICK.measureMs})
  -o, --output FORMAT    table, json or markdown (default table)
  --pin                  give every process cores of its own, where there are enough
  --congestion NAME      TCP congestion control for all peers alike, one that the host allows (default: the host's)
  --runtime-flags TEXT   flags of deno for our own processes, separated by blanks
  --keep                 leave configuration and logs in their folder, and say where
`;

/** Throws AMB9010 for what cannot be understood. */
export function parseOptions(args: readonly string[]): Options {
  const flags = parseArgs([...args], {
    string: [
      "rounds",
      "workers",
      "only",
      "peer",
      "output",
      "measure-ms",
      "runtime-flags",
      "cases",
      "workloads",
      "congestion",
    ],
    boolean: ["quick", "keep", "pin", "profile"],
    collect: ["peer"],
    alias: { o: "output" },
    unknown: (argument: string) => {
      throw wrong(`${argument} is not an option`);
    },
  });
  const paths: Partial<Record<PeerName, string>> = {};
  for (const pair of flags.peer) {
    const [name, path] = split(pair);
    paths[name] = path;
  }
  const only = flags.only?.split(",").map(peerName);
  const quick = flags.quick, timing = quick ? QUICK : FULL;
  return {
    rounds: wholeNumber("rounds", flags.rounds ?? (quick ? "1" : "5"), 100),
    workers: (flags.workers ?? (quick ? "1" : "1,2")).split(",").map((text: string) =>
      wholeNumber("workers", text, 64)
    ),
    peers: only ?? PEER_NAMES,
    required: [...new Set([...(only ?? []), ...Object.keys(paths).map(peerName)])],
    paths,
    timing: { ...timing, measureMs: wholeNumber("measure-ms", flags["measure-ms"] ?? `${timing.measureMs}`, 600_000) },
    cases: flags.cases?.split(",").map(caseName) ?? CASE_NAMES,
    workloads: wholeNumber("workloads", flags.workloads ?? (quick ? "0" : `${WORKLOADS}`), WORKLOADS_MAX, 0),
    profile: flags.profile,
    quick,
    output: outputFormat(flags.output ?? "table"),
    keep: flags.keep,
    pin: flags.pin,
    congestion: flags.congestion === undefined ? undefined : congestionControl(flags.congestion),
    // A profile is to name what was compiled.
    runtimeFlags: [
      ...(flags.profile ? ["--v8-flags=--perf-basic-prof,--no-logfile-per-isolate,--logfile=/dev/null"] : []),
      ...(flags["runtime-flags"] ?? "").split(" ").filter((flag: string) => flag !== ""),
    ],
  };
}

function split(pair: string): [PeerName, string] {
  const at = pair.indexOf("=");
  if (at < 1 || at === pair.length - 1) throw wrong(`--peer ${pair} is not NAME=PATH`);
  const name = peerName(pair.slice(0, at));
  if (name !== "ztunnel" && name !== "envoy" && name !== "before") throw wrong(`--peer ${pair}: ${name} takes no path`);
  return [name, pair.slice(at + 1)];
}

function peerName(text: string): PeerName {
  const name = PEER_NAMES.find((candidate) => candidate === text);
  if (name === undefined) throw wrong(`${text} is none of ${PEER_NAMES.join(", ")}`);
  return name;
}

function caseName(text: string): CaseName {
  const name = CASE_NAMES.find((candidate) => candidate === text);
  if (name === undefined) throw wrong(`${text} is none of ${CASE_NAMES.join(", ")}`);
  return name;
}

function wholeNumber(name: string, text: string, max: number, min = 1): number {
  const value = /^\d{1,9}$/.test(text) ? Number(text) : -1;
  if (value < min || value > max) throw wrong(`--${name} ${text} is not a whole number from ${min} to ${max}`);
  return value;
}

function congestionControl(name: string): string {
  const known = Deno.readTextFileSync("/proc/sys/net/ipv4/tcp_allowed_congestion_control").trim().split(" ");
  if (!known.includes(name)) throw wrong(`--congestion ${name} is none of ${known.join(", ")}`);
  return name;
}

function outputFormat(text: string): Options["output"] {
  if (text === "table" || text === "json" || text === "markdown") return text;
  throw wrong(`--output ${text} is none of table, json, markdown`);
}

function wrong(message: string): MeshError {
  return new MeshError("AMB9010", message, { remedy: "See deno task bench --help." });
}
