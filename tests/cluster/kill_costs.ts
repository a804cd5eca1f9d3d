/** What kills cost, the bound on it, and tables of it, as they may stand in bench/RESULTS.md. */
import type { Failure } from "./stage.ts";

export type Part = "istiod" | "ztunnel" | "cni";

/** What one kill cost. Times are from the kill. */
export interface Cost {
  readonly part: Part;
  readonly node: string;
  /** A parent starts the next program, not the kubelet. */
  readonly supervised: boolean;
  readonly killedAtMs: number;
  readonly asked: number;
  readonly lost: readonly Lost[];
  /** When the next program of the part began to run: until then all is the kubelet's and the runtime's. */
  readonly startedMs: number;
  readonly readyMs: number;
}

/** A request that failed, `atMs` after the kill. */
export interface Lost extends Failure {
  readonly lane: string;
}

/** Of the load: four protocols, with a connection that is kept and with new ones. */
const LANES = 8;
/** How long an application of the load waits for an answer, as tests/cluster/apps/lanes.ts has it. */
const PATIENCE_MS = 4_000;
/**
 * From ztunnel's first instruction until it serves whoever waited: 0.5 s in quiet, 2.2 s were seen at a load of 38
 * (decision 47).
 */
const SERVE_MS_MAX = 4_000;
/** A parent starts the next program in the same moment; what is more is waiting for a core. */
const PARENT_MS_MAX = 2_000;

export const lastMs = ({ lost }: Cost) => Math.max(0, ...lost.map(({ atMs }) => atMs));

/**
 * What is wrong with what a kill cost. Nobody carries anything but a ztunnel; and its sockets are held, so that a lane
 * loses what was open, and after that only what it gives up by itself while it waits for the next one.
 */
export function beyondBound(cost: Cost): string[] {
  const { part, lost, startedMs, supervised } = cost, wrong: string[] = [];
  if (part !== "ztunnel") return lost.length === 0 ? [] : [`${part} carries nothing, and ${lost.length} were lost`];
  const lostMax = LANES * (1 + Math.floor((startedMs + SERVE_MS_MAX) / PATIENCE_MS));
  if (lost.length > lostMax) wrong.push(`${lost.length} were lost, at most ${lostMax} may be`);
  const lateMs = lastMs(cost) - startedMs;
  if (lateMs > SERVE_MS_MAX) wrong.push(`one was lost ${lateMs} ms after the next program's start`);
  if (supervised && startedMs > PARENT_MS_MAX) wrong.push(`the parent started the next program after ${startedMs} ms`);
  return wrong;
}

/** A line for each part that was killed. */
export function costTable(costs: readonly Cost[]): string[] {
  const rows = [...new Set(costs.map(({ part }) => part))].map((part) => {
    const own = costs.filter((it) => it.part === part);
    const sum = (of: (cost: Cost) => number) => own.reduce((all, it) => all + of(it), 0);
    const spread = (of: (cost: Cost) => number) => {
      const sorted = own.map(of).sort((one, other) => one - other);
      return `${grouped(sorted[(sorted.length - 1) >> 1]!)} / ${grouped(sorted.at(-1)!)}`;
    };
    return row([
      part,
      own.length,
      grouped(sum((it) => it.asked)),
      grouped(sum(({ lost }) => lost.length)),
      spread(({ lost }) => lost.length),
      spread(lastMs),
      spread((it) => it.startedMs),
      spread((it) => it.readyMs),
      own.filter(({ lost }) => lost.length === 0).length,
    ]);
  });
  return [
    "| killed | times | requests | lost | a kill, p50 / max | last one lost after, ms, p50 / max | next program after, ms, p50 / max | ready again after, ms, p50 / max | kills that cost nothing |",
    "|---|---|---|---|---|---|---|---|---|",
    ...rows,
  ];
}

/** The kills with the longest reach, a line each. */
export function worstTable(costs: readonly Cost[], count: number): string[] {
  const worst = costs.filter(({ lost }) => lost.length > 0).toSorted((one, other) => lastMs(other) - lastMs(one));
  return [
    "| killed | at | lost | last one lost after, ms | next program after, ms | ready again after, ms | what was lost: lane, ms after the kill, ms waited |",
    "|---|---|---|---|---|---|---|",
    ...worst.slice(0, count).map((it) =>
      row([
        `${it.part} of ${it.node}`,
        new Date(it.killedAtMs).toISOString().slice(11, 23),
        it.lost.length,
        grouped(lastMs(it)),
        grouped(it.startedMs),
        grouped(it.readyMs),
        it.lost.toSorted((one, other) => one.atMs - other.atMs).map((lost) =>
          `${lost.lane} ${lost.atMs} ${lost.tookMs}`
        ).join("; "),
      ])
    ),
  ];
}

const row = (cells: readonly (string | number)[]) => `| ${cells.join(" | ")} |`;
const grouped = (count: number) => count.toLocaleString("en-US");

/** Numbers that look random and are the same each time, from 0 to below 1 (mulberry32). */
export function sequence(seed: number): () => number {
  let state = seed;
  return () => {
    state = state + 0x6d2b79f5 | 0;
    let mixed = Math.imul(state ^ state >>> 15, 1 | state);
    mixed = mixed + Math.imul(mixed ^ mixed >>> 7, 61 | mixed) ^ mixed;
    return ((mixed ^ mixed >>> 14) >>> 0) / 2 ** 32;
  };
}
