/** What a run and its process of simulated proxies say to each other, a line of JSON each. */

/** Where the control plane is, and as whom to come. */
export interface Endpoint {
  readonly address: string;
  readonly rootsPem: string;
  readonly token: string;
  readonly node: string;
}

export type ProxyCommand =
  /** Opens streams and answers when each has the whole mesh. */
  | { readonly do: "connect"; readonly endpoint: Endpoint; readonly count: number }
  /** Forgets what has arrived so far. */
  | { readonly do: "reset" }
  /** When, at the earliest and latest proxy, each named pod has arrived. */
  | { readonly do: "report"; readonly sentAtMs: Readonly<Record<string, number>> }
  /** Asks for certificates, this many at once. */
  | {
    readonly do: "sign";
    readonly endpoint: Endpoint;
    readonly identity: string;
    readonly atOnce: number;
    readonly ms: number;
  };

export interface ConnectedAnswer {
  readonly is: "connected";
  /** Milliseconds from the first dial until each proxy had everything. */
  readonly syncMs: readonly number[];
  readonly resources: number;
  readonly bytes: number;
}

export interface ReportAnswer {
  readonly is: "report";
  /** One for each pod and proxy: from the API server's answer until the proxy had it. */
  readonly latencyMs: readonly number[];
  /** Arrivals that did not come. */
  readonly missing: number;
  readonly ended: number;
  readonly cpuSeconds: number;
}

export interface SignAnswer {
  readonly is: "signed";
  readonly count: number;
  readonly seconds: number;
  readonly latencyMs: readonly number[];
  readonly failures: number;
  readonly firstFailure: string;
}

export type ProxyAnswer =
  | ConnectedAnswer
  | ReportAnswer
  | SignAnswer
  | { readonly is: "ready" }
  | { readonly is: "failed"; readonly why: string };

/** A clock that all processes of a machine share, in milliseconds. */
export const nowMs = () => performance.timeOrigin + performance.now();
