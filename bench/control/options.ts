/** The command line of `deno task bench control`. */
import { parseArgs } from "@std/cli";
import { MeshError } from "../../base/errors.ts";

export const PEER_NAMES = ["ours", "before", "istiod"] as const;
export type PeerName = (typeof PEER_NAMES)[number];

export interface ControlOptions {
  /** In the order in which a round takes them. */
  readonly peers: readonly PeerName[];
  readonly paths: Readonly<Partial<Record<PeerName, string>>>;
  readonly rounds: number;
  readonly pods: readonly number[];
  readonly proxies: readonly number[];
  /** Pods replaced per second while latency is measured. */
  readonly churnPerSecond: number;
  readonly churnMs: number;
  readonly signMs: number;
  readonly output: "table" | "json" | "markdown";
  readonly keep: boolean;
}

export const CONTROL_USAGE = `usage: deno task bench control [options]

Runs control planes in turn against one real API server and the same pods: how fast they know them all, how soon a
change reaches the proxies that are connected, what that costs, and how many certificates they sign.

  --pods LIST            pods in the cluster, one series each (default 1000,10000)
  --proxies LIST         connected proxies, one series each (default 1,10,200)
  --peer NAME=PATH       the program of istiod, or as "before" another checkout of this repository; repeatable
  --only NAME,...        of ${PEER_NAMES.join(", ")} (default: ours, and those that have a path)
  --rounds N             rounds, interleaved over the peers (default 1)
  --churn N              pods replaced per second (default 100)
  --churn-ms N           how long (default 20000)
  --sign-ms N            how long certificates are asked for (default 5000)
  --quick                1000 pods, 1 and 10 proxies, short cases
  -o, --output FORMAT    table, json or markdown (default table)
  --keep                 leave configuration and logs in their folder, and say where
`;

/** @throws MeshError AMB9010 for what cannot be understood. */
export function parseControlOptions(args: readonly string[]): ControlOptions {
  const flags = parseArgs([...args], {
    string: ["pods", "proxies", "peer", "only", "rounds", "churn", "churn-ms", "sign-ms", "output"],
    boolean: ["quick", "keep"],
    collect: ["peer"],
    alias: { o: "output" },
    unknown: (argument: string) => {
      throw wrong(`${argument} is not an option`);
    },
  });
  const paths: Partial<Record<PeerName, string>> = {};
  for (const pair of flags.peer) {
    const [, name = "", path = ""] = /^([^=]+)=(.+)$/.exec(`${pair}`) ?? [];
    if (name !== "istiod" && name !== "before") throw wrong(`--peer ${pair} is not istiod=PATH or before=PATH`);
    paths[name] = path;
  }
  const quick = flags.quick;
  const number = (name: "rounds" | "churn" | "churn-ms" | "sign-ms", preset: number, max: number) =>
    wholeNumber(name, flags[name] ?? `${preset}`, max);
  const numbers = (name: "pods" | "proxies", preset: string, max: number) =>
    (flags[name] ?? preset).split(",").map((text: string) => wholeNumber(name, text, max));
  return {
    peers: flags.only?.split(",").map(peerName) ?? PEER_NAMES.filter((name) => name === "ours" || paths[name]),
    paths,
    rounds: number("rounds", 1, 100),
    pods: numbers("pods", quick ? "1000" : "1000,10000", 100_000),
    proxies: numbers("proxies", quick ? "1,10" : "1,10,200", 1_000),
    churnPerSecond: number("churn", 100, 1_000),
    churnMs: number("churn-ms", quick ? 5_000 : 20_000, 600_000),
    signMs: number("sign-ms", quick ? 2_000 : 5_000, 600_000),
    output: outputFormat(flags.output ?? "table"),
    keep: flags.keep,
  };
}

function peerName(text: string): PeerName {
  const name = PEER_NAMES.find((candidate) => candidate === text);
  if (name === undefined) throw wrong(`${text} is none of ${PEER_NAMES.join(", ")}`);
  return name;
}

function wholeNumber(name: string, text: string, max: number): number {
  const value = /^\d{1,9}$/.test(text) ? Number(text) : -1;
  if (value < 1 || value > max) throw wrong(`--${name} ${text} is not a whole number from 1 to ${max}`);
  return value;
}

function outputFormat(text: string): ControlOptions["output"] {
  if (text === "table" || text === "json" || text === "markdown") return text;
  throw wrong(`--output ${text} is none of table, json, markdown`);
}

function wrong(message: string): MeshError {
  return new MeshError("AMB9010", message, { remedy: "See deno task bench control --help." });
}
