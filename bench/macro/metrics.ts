/** What is measured: each metric's key, its place in the report, its unit, and which way is better. */

export interface Metric {
  readonly key: string;
  readonly label: string;
  readonly unit: string;
  readonly better: "higher" | "lower";
  /** Digits after the point. */
  readonly digits: number;
}

/** What --cases chooses from. */
export const CASE_NAMES = [
  "upload",
  "download",
  "exchanges",
  "churn",
  "handshakes",
  "latency",
  "idle",
  "update",
] as const;
export type CaseName = (typeof CASE_NAMES)[number];

export const CONNECTION_COUNTS = [1, 8, 64] as const;
export const LATENCY_RATES = [1000, 5000] as const;
export const LATENCY_CONNECTIONS = 16;
export const EXCHANGE_CONNECTIONS = 64;
export const CHURN_CONNECTIONS = 16;
/** Of all generators together; a multiple of their number. */
export const HANDSHAKE_CONNECTIONS = 24;
/** Load processes on the client's side that only join in for handshakes. */
export const HANDSHAKE_HELPERS = 2;
export const IDLE_CONNECTIONS = 10_000;
/** Exchanges per second while the mesh changes, over LATENCY_CONNECTIONS. */
export const UPDATE_RATE = 1000;

function transferMetrics(direction: "upload" | "download", connections: number): Metric[] {
  const key = `${direction}.${connections}`, label = `${direction}, ${connections} conn.`;
  const cost = { unit: "CPU s/GB", better: "lower", digits: 2 } as const;
  return [
    { key: `${key}.gbPerSecond`, label, unit: "GB/s", better: "higher", digits: 2 },
    { key: `${key}.cpuSecondsPerGb.out`, label: `${label}, outbound`, ...cost },
    { key: `${key}.cpuSecondsPerGb.in`, label: `${label}, inbound`, ...cost },
    { key: `${key}.cpuSecondsPerGb.both`, label: `${label}, both`, ...cost },
  ];
}

function latencyMetrics(rate: number): Metric[] {
  const label = `latency at ${rate}/s`;
  const lower = { unit: "us", better: "lower", digits: 0 } as const;
  return [
    { key: `latency.${rate}.p50`, label: `${label}, p50`, ...lower },
    { key: `latency.${rate}.p99`, label: `${label}, p99`, ...lower },
    { key: `latency.${rate}.p999`, label: `${label}, p99.9`, ...lower },
    { key: `latency.${rate}.cpu`, label: `${label}, both`, ...lower, unit: "CPU us/exchange" },
  ];
}

function updateMetrics(): Metric[] {
  const lower = { unit: "us", better: "lower", digits: 0 } as const;
  return [
    { key: "update.quiet.p99", label: "before all workloads change, p99", ...lower },
    { key: "update.quiet.largest", label: "before all workloads change, longest", ...lower },
    { key: "update.p99", label: "while all workloads change, p99", ...lower },
    { key: "update.largest", label: "while all workloads change, longest", ...lower },
    {
      key: "update.quiet.slowTurns",
      label: "before all workloads change, turns over 5 ms, both",
      ...lower,
      unit: "turns",
    },
    { key: "update.slowTurns", label: "while all workloads change, turns over 5 ms, both", ...lower, unit: "turns" },
    { key: "update.seconds", label: "until the change is in force", ...lower, unit: "s", digits: 1 },
  ];
}

function memoryMetrics(): Metric[] {
  const states = [["fresh", "before traffic"], ["loaded", "after the load"], [
    "idle",
    `${IDLE_CONNECTIONS} idle conn.`,
  ]];
  const metrics: Metric[] = [];
  for (const [state, words] of states) {
    for (const [name, side] of [["out", "outbound"], ["in", "inbound"]]) {
      const kind = { unit: "MiB", better: "lower", digits: 0 } as const;
      metrics.push({ key: `memory.${state}.${name}.resident`, label: `memory ${words}, ${side} RSS`, ...kind });
      metrics.push({ key: `memory.${state}.${name}.proportional`, label: `memory ${words}, ${side} PSS`, ...kind });
    }
  }
  return metrics;
}

/** Every metric, in the order of the report. */
export const METRICS: readonly Metric[] = [
  ...CONNECTION_COUNTS.flatMap((count) => transferMetrics("upload", count)),
  ...CONNECTION_COUNTS.flatMap((count) => transferMetrics("download", count)),
  { key: "exchanges.perSecond", label: "exchanges of 100 bytes, 64 conn.", unit: "1/s", better: "higher", digits: 0 },
  { key: "exchanges.cpu", label: "exchange of 100 bytes, both", unit: "CPU us each", better: "lower", digits: 1 },
  { key: "churn.perSecond", label: "connect, exchange, close", unit: "1/s", better: "higher", digits: 0 },
  { key: "churn.cpu", label: "connect, exchange, close, both", unit: "CPU us each", better: "lower", digits: 0 },
  { key: "handshakes.perSecond", label: "full TLS handshakes, inbound", unit: "1/s", better: "higher", digits: 0 },
  { key: "handshakes.cpu", label: "full TLS handshake, inbound", unit: "CPU us each", better: "lower", digits: 0 },
  ...LATENCY_RATES.flatMap(latencyMetrics),
  ...updateMetrics(),
  ...memoryMetrics(),
];

/** What one pass found: values by metric key. */
export type Readings = Map<string, number>;
