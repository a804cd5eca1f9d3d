/** What a run of `bench control` found, as text, JSON or Markdown. */
import type { RunFacts } from "../macro/report.ts";
import type { Readings } from "../macro/metrics.ts";
import { type Spread, spreadOf } from "../macro/summary.ts";
import { CONTROL_METRICS } from "./metrics.ts";

/** One control plane at one size of cluster with so many proxies. */
export interface ControlSeries {
  readonly peer: string;
  readonly pods: number;
  readonly proxies: number;
  readonly rounds: Readings[];
  readonly notes: string[];
}

interface Row {
  readonly label: string;
  readonly pods: number;
  readonly proxies: number;
  readonly digits: number;
  /** By peer. */
  readonly spreads: ReadonlyMap<string, Spread>;
}

export function toControlJson(facts: RunFacts, series: readonly ControlSeries[]): string {
  const all = series.map((it) => ({ ...it, rounds: it.rounds.map((readings) => Object.fromEntries(readings)) }));
  return JSON.stringify({ ...facts, series: all }, undefined, 2) + "\n";
}

export function toControlTable(facts: RunFacts, series: readonly ControlSeries[]): string {
  const peers = peersOf(series), lines = [...headLines(facts), ""];
  let block = "";
  for (const row of rowsOf(series)) {
    const title = `${row.pods} pods, ${row.proxies} proxies`;
    if (title !== block) {
      lines.push(
        title + " ".repeat(Math.max(1, 52 - title.length)) + peers.map((it) => it.padStart(12)).join("") +
          "  ours/other",
      );
    }
    block = title;
    const cells = peers.map((peer) => spreadMedian(row.spreads.get(peer), row.digits).padStart(12));
    lines.push(`  ${row.label.padEnd(50)}${cells.join("")}${ratios(row, peers).join("").padStart(12)}`.trimEnd());
  }
  return [...lines, "", ...noteLines(series), ""].join("\n");
}

/** One row a metric; median, then least and most where there was more than one round. */
export function toControlMarkdown(facts: RunFacts, series: readonly ControlSeries[]): string {
  const peers = peersOf(series), others = peers.filter((peer) => peer !== "ours");
  const lines = [...headLines(facts).map((line) => `- ${line}`), ""];
  lines.push(`| pods | proxies | metric | ${[...peers, ...others.map((peer) => `ours/${peer}`)].join(" | ")} |`);
  lines.push(`|---:|---:|---|${"---:|".repeat(peers.length + others.length)}`);
  for (const row of rowsOf(series)) {
    const cells = peers.map((peer) => spreadText(row.spreads.get(peer), row.digits));
    lines.push(`| ${row.pods} | ${row.proxies} | ${row.label} | ${[...cells, ...ratios(row, peers)].join(" | ")} |`);
  }
  const notes = noteLines(series).map((line) => `- ${line}`);
  return [...lines, ...(notes.length === 0 ? [] : ["", ...notes]), ""].join("\n");
}

function rowsOf(series: readonly ControlSeries[]): Row[] {
  const places = new Map(series.map(({ pods, proxies }) => [`${pods}/${proxies}`, { pods, proxies }]));
  return [...places.values()].flatMap(({ pods, proxies }) =>
    CONTROL_METRICS.flatMap(({ key, label, unit, digits }) => {
      const spreads = new Map<string, Spread>();
      for (const it of series) {
        if (it.pods !== pods || it.proxies !== proxies) continue;
        const values = it.rounds.flatMap((readings) => readings.get(key) ?? []);
        const measured = values.filter((value) => !Number.isNaN(value));
        const spread = spreadOf(measured.length > 0 ? measured : values);
        if (spread !== undefined) spreads.set(it.peer, spread);
      }
      return spreads.size === 0 ? [] : [{ label: `${label}, ${unit}`, pods, proxies, digits, spreads }];
    })
  );
}

function peersOf(series: readonly ControlSeries[]): string[] {
  return [...new Set(series.map(({ peer }) => peer))];
}

/** Median of ours divided by each other's. */
function ratios({ spreads }: Row, peers: readonly string[]): string[] {
  const ours = spreads.get("ours")?.median;
  return peers.filter((peer) => peer !== "ours").map((peer) => {
    const other = spreads.get(peer)?.median;
    if (ours === undefined || other === undefined || other === 0) return "";
    return Number.isNaN(ours / other) ? NOTHING : (ours / other).toFixed(2);
  });
}

/** A dash: it was measured, and there was nothing to measure. */
const NOTHING = "–";

function spreadMedian(spread: Spread | undefined, digits: number): string {
  if (spread === undefined) return "";
  return Number.isNaN(spread.median) ? NOTHING : spread.median.toFixed(digits);
}

function spreadText(spread: Spread | undefined, digits: number): string {
  if (spread === undefined) return "";
  if (Number.isNaN(spread.median)) return NOTHING;
  const [min, median, max] = [spread.min, spread.median, spread.max].map((value) => value.toFixed(digits));
  return min === max ? `${median}` : `${median} (${min}–${max})`;
}

function headLines(facts: RunFacts): string[] {
  const share = (part: number) => `${(part * 100).toFixed(0)} %`;
  return [
    `date: ${facts.date}`,
    `machine: ${facts.machine}`,
    `noise: up to ${share(facts.othersMax)} of the machine went to other processes, ${
      share(facts.stolenMax)
    } was stolen`,
    `commit: ${facts.commit}`,
    `command: ${facts.command}`,
    ...Object.entries(facts.peers).map(([name, description]) => `${name}: ${description}`),
  ];
}

function noteLines(series: readonly ControlSeries[]): string[] {
  return series.flatMap(({ peer, pods, proxies, notes }) =>
    notes.map((note) => `note: ${peer}, ${pods} pods, ${proxies} proxies: ${note}`)
  );
}
