/** Watches a shop: connections between workloads with their rates, as both ztunnels count them, and the last refusals. */
import { ignore } from "../base/errors.ts";
import type { Sample } from "./lab/metrics.ts";
import { NODE_NAMES } from "./lab/network.ts";
import { pause } from "./lab/until.ts";
import type { Shop } from "./shop.ts";

const INTERVAL_MS = 500;
const REFUSAL_SHOWN_MS = 4_000;
const METRIC = {
  opened: "istio_tcp_connections_opened_total",
  sent: "istio_tcp_sent_bytes_total",
  received: "istio_tcp_received_bytes_total",
} as const;

/** Traffic from one workload to another, secured one way. */
export interface Edge {
  readonly source: string;
  readonly destination: string;
  /** `namespace/account`, or empty where there is none. */
  readonly sourceIdentity: string;
  readonly destinationIdentity: string;
  readonly mutualTls: boolean;
  readonly connections: number;
  readonly bytes: number;
  readonly connectionsPerSecond: number;
  readonly bytesPerSecond: number;
  /** The policy that has just refused a connection of it, or empty. */
  readonly refusedBy: string;
}

interface Counted {
  connections: number;
  bytes: number;
}

/** The identity in a principal label, shortened to what differs. */
export function shortIdentity(principal: string): string {
  return /\/ns\/([^/]+)\/sa\/([^/]+)$/.exec(principal)?.slice(1).join("/") ?? "";
}

/** The refusal in a line of ztunnel's log. @returns undefined for any other line. */
export function readRefusal(line: string): { source: string; destination: string; policy: string } | undefined {
  const policy = /error="[^"]*denied by: ([^"]+)"/.exec(line)?.[1] ??
    (/error="[^"]*allow policies exist, but none allowed/.test(line) ? "no ALLOW policy names it" : undefined);
  const source = /src\.workload="([^"]*)"/.exec(line)?.[1], destination = /dst\.workload="([^"]*)"/.exec(line)?.[1];
  if (policy === undefined || source === undefined || destination === undefined) return undefined;
  return { source, destination, policy };
}

export class Observer implements AsyncDisposable {
  readonly #shop: Shop;
  readonly #before = new Map<string, Counted>();
  readonly #refusals = new Map<string, { policy: string; atMs: number }>();
  readonly #stop = new AbortController();
  readonly #done: Promise<void>;
  #edges: Edge[] = [];
  #lastMs = 0;

  constructor(shop: Shop) {
    this.#shop = shop;
    this.#done = this.#run();
  }

  /** As of the last look, by name. */
  get edges(): readonly Edge[] {
    return this.#edges;
  }

  /** Takes a line of a ztunnel's log. */
  note(line: string): void {
    const refusal = readRefusal(line);
    if (refusal === undefined) return;
    this.#refusals.set(`${refusal.source}>${refusal.destination}`, { policy: refusal.policy, atMs: performance.now() });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#done;
  }

  async #run(): Promise<void> {
    while (!this.#stop.signal.aborted) {
      await this.#look();
      await pause(INTERVAL_MS);
    }
  }

  async #look(): Promise<void> {
    const pages = await Promise.all(NODE_NAMES.map(async (name) => {
      try {
        return await this.#shop.mesh.nodes[name].metrics();
      } catch (error) {
        ignore(error, "a ztunnel that is away has no figures; its row says so");
        return [];
      }
    }));
    const nowMs = performance.now();
    this.#edges = this.#derive(pages.flat(), (nowMs - this.#lastMs) / 1_000, nowMs);
    this.#lastMs = nowMs;
  }

  #derive(samples: readonly Sample[], seconds: number, nowMs: number): Edge[] {
    const totals = new Map<string, Counted & { labels: Sample["labels"] }>();
    for (const { name, labels, value } of samples) {
      // The destination counts what comes from outside the mesh, too. Other families have other labels.
      if (labels.reporter !== "destination" || !Object.values<string>(METRIC).includes(name)) continue;
      const key = [labels.source_workload, labels.destination_workload, labels.connection_security_policy].join(">");
      const total = totals.get(key) ?? { connections: 0, bytes: 0, labels };
      if (name === METRIC.opened) total.connections += value;
      else if (name === METRIC.sent || name === METRIC.received) total.bytes += value;
      totals.set(key, total);
    }
    const edges = [...totals].map(([key, { connections, bytes, labels }]): Edge => {
      const before = this.#before.get(key) ?? { connections: 0, bytes: 0 };
      this.#before.set(key, { connections, bytes });
      const source = labels.source_workload ?? "", destination = labels.destination_workload ?? "";
      const refusal = this.#refusals.get(`${source}>${destination}`);
      // Counters begin anew with a new ztunnel: then the difference says nothing.
      const rate = (now: number, then: number) => seconds > 60 ? 0 : Math.max(0, now - then) / seconds;
      return {
        source,
        destination,
        sourceIdentity: shortIdentity(labels.source_principal ?? ""),
        destinationIdentity: shortIdentity(labels.destination_principal ?? ""),
        mutualTls: labels.connection_security_policy === "mutual_tls",
        connections,
        bytes,
        connectionsPerSecond: rate(connections, before.connections),
        bytesPerSecond: rate(bytes, before.bytes),
        refusedBy: refusal !== undefined && nowMs - refusal.atMs < REFUSAL_SHOWN_MS ? refusal.policy : "",
      };
    });
    return edges.sort((left, right) =>
      left.source.localeCompare(right.source) || left.destination.localeCompare(right.destination)
    );
  }
}
