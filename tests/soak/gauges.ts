/** The roles' processes under a soak: what they occupy from interval to interval, and what ztunnel counts. */
import type { Mesh } from "../../demo/lab/mesh.ts";
import { sumOf } from "../../demo/lab/metrics.ts";
import { NODE_NAMES, type NodeName } from "../../demo/lab/network.ts";
import { until } from "../../demo/lab/until.ts";
import { descriptorKinds, type Quantity, type Sample, takeSample, type Trend, trendOf } from "./samples.ts";

const MIB = 1024 ** 2;
const PAGE_WITHIN_MS = 10_000;
const WARM_UP_MS = 60_000; // until every path has been compiled and every pool filled
const JUDGED_FROM_MS = 8 * 60_000; // a collector may wait two minutes, and each third must have seen one
/** Growth of memory from the first to the last third that is still noise of a garbage collector. */
export const GROWTH_BYTES_MAX = 40 * MIB;
/** The same in shares, for roles that are large to begin with. */
export const GROWTH_SHARE_MAX = 0.2;

export const QUANTITIES = ["rssBytes", "pssBytes", "descriptors", "threads"] as const satisfies readonly Quantity[];

/** What one process was over time. A role that is started again is another process. */
export interface Life {
  readonly role: string;
  readonly pid: number;
  readonly samples: Sample[];
}

/** What ztunnel counts of its connections. */
export interface Books {
  readonly opened: number;
  readonly closed: number;
  readonly open: number;
  readonly sessions: number;
}

export class Gauges {
  readonly #mesh: Mesh;
  readonly #lives = new Map<string, Life>();

  constructor(mesh: Mesh) {
    this.#mesh = mesh;
  }

  get lives(): readonly Life[] {
    return [...this.#lives.values()];
  }

  /** Looks at every role. @returns What was seen now. */
  sample(atMs: number): { role: string; sample: Sample }[] {
    return this.#roles().flatMap(([role, pid]) => {
      const sample = takeSample(pid, atMs);
      if (sample === undefined) return [];
      const key = `${role} ${pid}`, life = this.#lives.get(key) ?? { role, pid, samples: [] };
      this.#lives.set(key, life);
      life.samples.push(sample);
      return [{ role, sample }];
    });
  }

  /** What a role's process has open, by kind. */
  kinds(role: string): Record<string, number> {
    const pid = this.#roles().find(([name]) => name === role)?.[1];
    return pid === undefined ? {} : descriptorKinds(pid);
  }

  async books(node: NodeName): Promise<Books> {
    // While one ztunnel takes over from another nobody serves the page for a moment.
    const samples = await until(`metrics of ${node}`, PAGE_WITHIN_MS, () => this.#mesh.nodes[node].metrics());
    return {
      opened: sumOf(samples, "istio_tcp_connections_opened_total"),
      closed: sumOf(samples, "istio_tcp_connections_closed_total"),
      open: sumOf(samples, "ambit_worker_connections"),
      sessions: sumOf(samples, "ambit_worker_upstream_sessions") + sumOf(samples, "ambit_worker_downstream_sessions"),
    };
  }

  #roles(): [string, number][] {
    const nodes = NODE_NAMES.flatMap((name): [string, number][] => {
      const { ztunnel, cni } = this.#mesh.nodes[name], letter = name.slice(-1);
      return [[`ztunnel ${letter}`, ztunnel.pid], [`cni ${letter}`, cni.pid]];
    });
    return [["istiod", this.#mesh.istiod.pid], ...nodes];
  }
}

/** The samples of a life that tell something: those after its first minute. */
export function settledSamples({ samples }: Life): readonly Sample[] {
  return samples.filter((sample) => sample.atMs - samples[0]!.atMs >= WARM_UP_MS);
}

/** Why a life's memory counts as growing, or undefined. */
export function memoryGrowth(life: Life): string | undefined {
  const samples = settledSamples(life);
  if (samples.length === 0 || samples.at(-1)!.atMs - samples[0]!.atMs < JUDGED_FROM_MS) return undefined;
  const trend = trendOf(samples, "pssBytes"), bound = Math.max(GROWTH_BYTES_MAX, GROWTH_SHARE_MAX * trend.median);
  if (trend.growth <= bound) return undefined;
  return `${life.role} (${life.pid}) by ${mib(trend.growth)} from ${mib(trend.first)} to ${mib(trend.last)}`;
}

/** A line on what a life occupied: first/median/last and the slope. */
export function lifeLine(life: Life): string {
  const show = (quantity: Quantity, format: (value: number) => string) => {
    const { first, median, last, perMinute }: Trend = trendOf(life.samples, quantity);
    return `${[first, median, last].map(format).join("/")} (${perMinute < 0 ? "" : "+"}${format(perMinute)}/min)`;
  };
  const round = (value: number) => value.toFixed(Number.isInteger(value) ? 0 : 1);
  return `${life.role.padEnd(10)} ${String(life.pid).padStart(7)}  RSS ${show("rssBytes", mib)}  PSS ${
    show("pssBytes", mib)
  }  descriptors ${show("descriptors", round)}  threads ${show("threads", round)}`;
}

export function mib(bytes: number): string {
  return `${(bytes / MIB).toFixed(1)} MiB`;
}
