/** What a run found, as text, JSON or Markdown. */
import { METRICS } from "./metrics.ts";
import { compare, type Comparison, type SeriesResult } from "./summary.ts";

export interface RunFacts {
  /** ISO 8601. */
  readonly date: string;
  readonly machine: string;
  readonly commit: string;
  readonly command: string;
  /** What each peer is, by name. */
  readonly peers: Readonly<Record<string, string>>;
  /** The largest share of the machine that went to other processes during any pass: how quiet it was. */
  readonly othersMax: number;
  /** The same of time that the hypervisor took away. */
  readonly stolenMax: number;
}

/** `ours W2`. */
export function seriesLabel(series: { readonly peer: string; readonly workers: number | undefined }): string {
  return series.workers === undefined ? series.peer : `${series.peer} W${series.workers}`;
}

export function toJson(facts: RunFacts, results: readonly SeriesResult[]): string {
  const series = results.map((it) => ({
    peer: it.peer,
    workers: it.workers,
    notes: it.notes,
    rounds: it.rounds.map((readings) => Object.fromEntries(readings)),
  }));
  const figures = compare(METRICS, results).map(({ metric, series, spread, oursToThis, thisToDirect }) => ({
    metric: metric.key,
    unit: metric.unit,
    better: metric.better,
    peer: series.peer,
    workers: series.workers,
    ...spread,
    oursToThis,
    thisToDirect,
  }));
  return JSON.stringify({ ...facts, figures, series }, undefined, 2) + "\n";
}

/** A block for each metric, a line for each series. */
export function toTable(facts: RunFacts, results: readonly SeriesResult[]): string {
  const lines = [...headLines(facts), ""];
  const head = ["", "min", "median", "max", "ours/this", "this/direct"];
  for (const [title, rows] of byMetric(results)) {
    const cells = rows.map((row) => [
      `  ${seriesLabel(row.series)}`,
      ...[row.spread.min, row.spread.median, row.spread.max].map((value) => value.toFixed(row.metric.digits)),
      ratioText(row.oursToThis),
      ratioText(row.thisToDirect),
    ]);
    lines.push(...align([[title, ...head.slice(1)], ...cells]), "");
  }
  return [...lines, ...noteLines(results), ""].join("\n");
}

/** One row a metric, one column a series: median, then min to max. */
export function toMarkdown(facts: RunFacts, results: readonly SeriesResult[]): string {
  const lines = headLines(facts).map((line) => `- ${line}`);
  lines.push("", `| metric | ${results.map(seriesLabel).join(" | ")} |`, `|---|${"---:|".repeat(results.length)}`);
  for (const [title, rows] of byMetric(results)) {
    const cells = results.map((series) => {
      const row = rows.find((candidate) => candidate.series === series);
      if (row === undefined) return "";
      const [min, median, max] = [row.spread.min, row.spread.median, row.spread.max].map((value) =>
        value.toFixed(row.metric.digits)
      );
      return min === max ? median : `${median} (${min}–${max})`;
    });
    lines.push(`| ${title} | ${cells.join(" | ")} |`);
  }
  const others = results.filter((series) => series.peer !== "ours" && series.peer !== "direct");
  lines.push("", "Ours divided by the peer with as many workers (medians):", "");
  lines.push(
    `| metric | better | ${others.map(seriesLabel).join(" | ")} |`,
    `|---|---|${"---:|".repeat(others.length)}`,
  );
  for (const [title, rows] of byMetric(results)) {
    const ratios = others.map((series) => ratioText(rows.find((row) => row.series === series)?.oursToThis));
    if (ratios.some((text) => text !== "")) {
      lines.push(`| ${title} | ${rows[0]!.metric.better} | ${ratios.join(" | ")} |`);
    }
  }
  const notes = noteLines(results).map((line) => `- ${line}`);
  return [...lines, ...(notes.length > 0 ? ["", ...notes] : []), ""].join("\n");
}

function headLines(facts: RunFacts): string[] {
  return [
    `date: ${facts.date}`,
    `machine: ${facts.machine}`,
    `noise: up to ${percent(facts.othersMax)} of the machine went to other processes, ${
      percent(facts.stolenMax)
    } was stolen`,
    `commit: ${facts.commit}`,
    `command: ${facts.command}`,
    ...Object.entries(facts.peers).map(([name, description]) => `${name}: ${description}`),
  ];
}

function percent(share: number): string {
  return `${(share * 100).toFixed(0)} %`;
}

function noteLines(results: readonly SeriesResult[]): string[] {
  return results.flatMap((series) => series.notes.map((note) => `note: ${seriesLabel(series)}: ${note}`));
}

function byMetric(results: readonly SeriesResult[]): Map<string, Comparison[]> {
  const groups = new Map<string, Comparison[]>();
  for (const row of compare(METRICS, results)) {
    const title = `${row.metric.label}, ${row.metric.unit}`, rows = groups.get(title) ?? [];
    rows.push(row);
    groups.set(title, rows);
  }
  return groups;
}

function ratioText(ratio: number | undefined): string {
  return ratio === undefined ? "" : ratio.toFixed(2);
}

const TITLE_COLUMNS = 52, FIGURE_COLUMNS = 12;

function align(rows: readonly (readonly string[])[]): string[] {
  return rows.map(([title, ...cells]) =>
    (title!.padEnd(TITLE_COLUMNS) + cells.map((cell) => cell.padStart(FIGURE_COLUMNS)).join("")).trimEnd()
  );
}
