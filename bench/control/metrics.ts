/** What `bench control` reads of each control plane. */
import type { Metric } from "../macro/metrics.ts";

const ms = { unit: "ms", better: "lower", digits: 0 } as const;
const seconds = { unit: "CPU s", better: "lower", digits: 2 } as const;
const memory = { unit: "PSS, MiB", better: "lower", digits: 0 } as const;

export const CONTROL_METRICS: readonly Metric[] = [
  { key: "ready.ms", label: "start until ready", ...ms },
  { key: "start.cpuSeconds", label: "start until ready", ...seconds },
  { key: "sync.ms", label: "every proxy has the whole mesh", ...ms },
  { key: "sync.cpuSeconds", label: "every proxy has the whole mesh", ...seconds },
  { key: "synced.pssMib", label: "memory when all are in step", ...memory },
  { key: "latency.p50", label: "change to proxy, p50", ...ms, digits: 1 },
  { key: "latency.p99", label: "change to proxy, p99", ...ms, digits: 1 },
  { key: "latency.max", label: "change to proxy, longest", ...ms, digits: 1 },
  { key: "churn.rate", label: "pods replaced", unit: "1/s", better: "higher", digits: 0 },
  { key: "churn.cpuSecondsPerSecond", label: "while pods change", unit: "CPU s/s", better: "lower", digits: 3 },
  { key: "churn.pssMib", label: "memory while pods change, most", ...memory },
  { key: "sign.perSecond", label: "certificates signed", unit: "1/s", better: "higher", digits: 0 },
  { key: "sign.cpuMs", label: "certificate signed", unit: "CPU ms", better: "lower", digits: 2 },
  { key: "sign.p99", label: "certificate, p99", ...ms, digits: 1 },
];
