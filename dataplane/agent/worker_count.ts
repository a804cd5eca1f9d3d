/** How many workers a node gets (ZT-012). */
import type { Kind } from "../../base/config.ts";

/** Workers as asked for: so many (0: as many as CPUs), or a part of the CPUs. */
export type WorkerShare = { readonly threads: number } | { readonly percent: number };

/** What the machine and its container offer; quantities are whole CPUs, rounded up. */
export interface CpuFacts {
  readonly logicalCores: number;
  /** ZTUNNEL_RESOURCE_CPU_LIMIT: an explicit limit of the container. */
  readonly resourceLimit: number | undefined;
  /** ZTUNNEL_CPU_LIMIT: the limit, or the node's cores if there is none. */
  readonly cpuLimit: number | undefined;
  /** ZTUNNEL_RESOURCE_CPU_REQUEST. */
  readonly resourceRequest: number | undefined;
}

const DEFAULT_PART = 0.25, DEFAULT_MIN = 2;

/** Workers for a machine; `share` is undefined where nobody has said. At least 1. */
export function workerCountOf(share: WorkerShare | undefined, cpu: CpuFacts): number {
  const available = cpu.resourceLimit ?? cpu.cpuLimit ?? cpu.logicalCores;
  if (share === undefined) {
    const request = cpu.resourceRequest ?? 0;
    if (cpu.resourceLimit !== undefined) return Math.max(cpu.resourceLimit, request);
    return Math.max(Math.ceil(available * DEFAULT_PART), request, DEFAULT_MIN);
  }
  if ("percent" in share) return Math.max(1, Math.ceil(available * share.percent / 100));
  return share.threads === 0 ? available : share.threads;
}

/** `4`, `0` or `50%`. */
export function workerShare(): Kind<WorkerShare> {
  return {
    placeholder: "N|N%",
    range: "a number of threads, 0 for one per CPU, or more than 0% to 100% of the CPUs",
    parse(text) {
      if (text.endsWith("%")) {
        const percent = quantity(text.slice(0, -1));
        if (percent === undefined) return { wrong: "is an invalid percentage" };
        return percent > 0 && percent <= 100
          ? { value: { percent } }
          : { wrong: "percentage must be between 0 and 100" };
      }
      return /^\d{1,5}$/.test(text) ? { value: { threads: Number(text) } } : { wrong: "is an invalid number" };
    },
    show: (share) => "percent" in share ? `${share.percent}%` : String(share.threads),
  };
}

/** A quantity of CPUs as Kubernetes writes it, such as `2`, `1.5` or `500m`, as whole CPUs, rounded up. */
export function cpuQuantity(): Kind<number> {
  return {
    placeholder: "CPUS",
    range: "more than 0, such as 2, 1.5 or 500m",
    parse(text) {
      const milli = text.endsWith("m"), number = quantity(milli ? text.slice(0, -1) : text);
      const value = number === undefined ? 0 : Math.ceil(milli ? number / 1_000 : number);
      return value > 0 ? { value } : { wrong: "must be a positive CPU quantity" };
    },
    show: String,
  };
}

function quantity(text: string): number | undefined {
  return /^\d{1,9}(\.\d{1,9})?$/.test(text) ? Number(text) : undefined;
}
