/** Rounds of readings, brought down to what a reader compares. */
import type { Metric, Readings } from "./metrics.ts";

export interface Spread {
  readonly min: number;
  readonly median: number;
  readonly max: number;
}

/** One peer with one number of workers. */
export interface SeriesResult {
  readonly peer: string;
  /** Undefined for a peer that has none. */
  readonly workers: number | undefined;
  readonly rounds: readonly Readings[];
  readonly notes: readonly string[];
}

/** Smallest, middle and largest; of an even number, the middle is the mean of two. @returns undefined of nothing. */
export function spreadOf(values: readonly number[]): Spread | undefined {
  if (values.length === 0) return undefined;
  const sorted = [...values].sort((left, right) => left - right), middle = sorted.length >> 1;
  const median = sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
  return { min: sorted[0]!, median, max: sorted.at(-1)! };
}

/** The spread of a metric over a series' rounds; undefined where no round has it. */
export function spreadOfMetric(series: SeriesResult, key: string): Spread | undefined {
  return spreadOf(series.rounds.flatMap((readings) => readings.get(key) ?? []));
}

export interface Comparison {
  readonly metric: Metric;
  readonly series: SeriesResult;
  readonly spread: Spread;
  /** Median of ours with as many workers ÷ this median; undefined for ours itself, and where ours has no figure. */
  readonly oursToThis: number | undefined;
  /** This median ÷ direct's. */
  readonly thisToDirect: number | undefined;
}

/** Every figure there is, metric by metric, with its ratios. `ours` and `direct` are looked up by name. */
export function compare(metrics: readonly Metric[], results: readonly SeriesResult[]): Comparison[] {
  const comparisons: Comparison[] = [];
  const median = (series: SeriesResult | undefined, key: string) =>
    series === undefined ? undefined : spreadOfMetric(series, key)?.median;
  const direct = results.find((series) => series.peer === "direct");
  for (const metric of metrics) {
    for (const series of results) {
      const spread = spreadOfMetric(series, metric.key);
      if (spread === undefined) continue;
      const ours = series.peer === "ours" || series.peer === "direct"
        ? undefined
        : results.find((other) => other.peer === "ours" && other.workers === series.workers);
      comparisons.push({
        metric,
        series,
        spread,
        oursToThis: ratio(median(ours, metric.key), spread.median),
        thisToDirect: series === direct ? undefined : ratio(spread.median, median(direct, metric.key)),
      });
    }
  }
  return comparisons;
}

function ratio(above: number | undefined, below: number | undefined): number | undefined {
  return above === undefined || below === undefined || below === 0 ? undefined : above / below;
}
