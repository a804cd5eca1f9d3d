/** What a run tells its load processes, and what they answer: a JSON object a line. */

/** Ports of the server side. */
export const PORTS = {
  /** Reads and drops: uploads. */
  sink: 9001,
  /** Writes as long as it can: downloads. */
  source: 9002,
  /** Answers with the bytes it received. */
  echo: 9003,
  /** Answers 100 bytes with 100 bytes and closes first, so that the client's side keeps no TIME_WAIT. */
  oneShot: 9004,
} as const;

/** Size of requests and of answers. */
export const EXCHANGE_BYTES = 100;

export type Command =
  | { readonly do: "listen" }
  | {
    readonly do: "upload" | "download" | "idle" | "exchanges" | "churn";
    readonly ip: string;
    readonly connections: number;
  }
  | { readonly do: "openLoop"; readonly ip: string; readonly connections: number; readonly ratePerSecond: number }
  | {
    readonly do: "handshakes";
    readonly ip: string;
    readonly port: number;
    readonly connections: number;
    readonly chain: string;
    readonly privateKey: string;
    readonly roots: string;
  }
  /** Counters now, and the CPU time of these processes at the same moment. `reset` forgets the latencies so far. */
  | { readonly do: "snapshot"; readonly pids: readonly number[]; readonly reset?: boolean }
  /** Closes every connection. */
  | { readonly do: "stop" };

export interface Snapshot {
  /** Milliseconds of this process' monotonic clock. */
  readonly atMs: number;
  /** Application bytes received so far. */
  readonly receivedBytes: number;
  /** Exchanges or handshakes completed so far. */
  readonly completed: number;
  /** Connections that failed or ended early so far. */
  readonly failures: number;
  /** Why the first of them failed. */
  readonly firstFailure: string;
  /** CPU seconds of the processes asked for, in their order. */
  readonly cpuSeconds: readonly number[];
  /** Microseconds; the open loop's, zeros otherwise. */
  readonly latency: {
    readonly count: number;
    readonly p50: number;
    readonly p99: number;
    readonly p999: number;
    readonly largest: number;
    /** How late requests were sent, 99th percentile: what of the latency is the generator's own doing. */
    readonly lateP99: number;
  };
}

export type Answer =
  /** The command took effect: sockets listen, or all connections stand (idle: and have exchanged once). */
  | { readonly is: "ready"; readonly memoryMib: number }
  | { readonly is: "snapshot"; readonly snapshot: Snapshot }
  | { readonly is: "refused"; readonly why: string };
