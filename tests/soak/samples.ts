/** What a process occupies, sampled over time: memory, descriptors, threads; and whether it grows. */
import { ignore } from "../../base/errors.ts";

const KIB = 1024;

export interface Sample {
  readonly atMs: number;
  readonly rssBytes: number;
  /** Shared pages divided among those who share them. */
  readonly pssBytes: number;
  readonly descriptors: number;
  readonly threads: number;
}

export type Quantity = "rssBytes" | "pssBytes" | "descriptors" | "threads";

/** Looks at a process. @returns undefined when it has ended. */
export function takeSample(pid: number, atMs: number): Sample | undefined {
  try {
    const status = Deno.readTextFileSync(`/proc/${pid}/status`),
      rollup = Deno.readTextFileSync(`/proc/${pid}/smaps_rollup`);
    return {
      atMs,
      rssBytes: field(status, "VmRSS") * KIB,
      pssBytes: field(rollup, "Pss") * KIB,
      descriptors: [...Deno.readDirSync(`/proc/${pid}/fd`)].length,
      threads: field(status, "Threads"),
    };
  } catch (error) {
    ignore(error, "ended while we looked");
    return undefined;
  }
}

/** What a process has open, by kind: sockets, event counters, namespaces, files. */
export function descriptorKinds(pid: number): Record<string, number> {
  const kinds: Record<string, number> = {};
  for (const { name } of Deno.readDirSync(`/proc/${pid}/fd`)) {
    try {
      const kind = Deno.readLinkSync(`/proc/${pid}/fd/${name}`).replace(/:?\[\d+\]$|\d+/g, "");
      kinds[kind] = (kinds[kind] ?? 0) + 1;
    } catch (error) {
      ignore(error, "closed while we looked");
    }
  }
  return kinds;
}

function field(text: string, name: string): number {
  return Number(new RegExp(`^${name}:\\s+(\\d+)`, "m").exec(text)?.[1] ?? 0);
}

/** First, median and last of a quantity, and the line through all, per minute. */
export interface Trend {
  readonly first: number;
  readonly median: number;
  readonly last: number;
  readonly perMinute: number;
  /** The lowest of the last third less that of the first: a collector's sawtooth has the same foot all the time. */
  readonly growth: number;
}

/** The trend of samples in their order. There must be one at least. */
export function trendOf(samples: readonly Sample[], quantity: Quantity): Trend {
  const values = samples.map((sample) => sample[quantity]), third = Math.max(1, Math.floor(values.length / 3));
  return {
    first: values[0]!,
    median: median(values),
    last: values.at(-1)!,
    perMinute: slope(samples.map((sample) => [sample.atMs / 60_000, sample[quantity]] as const)),
    growth: Math.min(...values.slice(-third)) - Math.min(...values.slice(0, third)),
  };
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((left, right) => left - right);
  return (sorted[Math.floor((sorted.length - 1) / 2)]! + sorted[Math.ceil((sorted.length - 1) / 2)]!) / 2;
}

/** Of the least-squares line. */
function slope(points: readonly (readonly [number, number])[]): number {
  const count = points.length;
  const meanX = points.reduce((sum, [x]) => sum + x, 0) / count,
    meanY = points.reduce((sum, [, y]) => sum + y, 0) / count;
  const spread = points.reduce((sum, [x]) => sum + (x - meanX) ** 2, 0);
  return spread === 0 ? 0 : points.reduce((sum, [x, y]) => sum + (x - meanX) * (y - meanY), 0) / spread;
}
