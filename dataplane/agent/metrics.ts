/** The metrics of the data plane: traffic from the flow tables, sockets and turns from the worker rows, the agent's own (ZT section 12.1). */
import type { FlowLabel } from "../tables/flow_label.ts";
import type { Tables } from "../tables/handles.ts";
import { Direction, RESPONSE_FLAG_NAMES, ResponseFlag, WORKER, WorkerState } from "../tables/layout.ts";
import type { FlowSeries, FlowTotals } from "./flow_totals.ts";
import {
  type Counter,
  type Gauge,
  type Histogram,
  labelText,
  MetricsRegistry,
  ReadFamily,
} from "./metrics_registry.ts";

export const PLAIN_CONTENT_TYPE = "text/plain; charset=utf-8";
export const OPEN_METRICS_CONTENT_TYPE = "application/openmetrics-text;charset=utf-8;version=1.0.0";

const REPORTERS = ["source", "destination"] as const;

/** What the metrics are read from. */
export interface MetricsSources {
  readonly tables: Tables;
  readonly flows: FlowTotals;
  /** The build's tag, for `istio_build`. */
  readonly version: string;
  /** Open file descriptors of the process and their limit; undefined where the system does not tell. */
  readonly openFiles: () => { readonly open: number; readonly max: number } | undefined;
}

/** The agent's own counters, for whoever counts. */
export interface AgentMetrics {
  readonly registry: MetricsRegistry;
  readonly xdsTerminations: Counter; // reason
  readonly xdsMessages: Counter; // url
  readonly xdsMessageBytes: Counter; // url
  readonly activeProxies: Gauge;
  readonly pendingProxies: Gauge;
  readonly proxiesStarted: Counter;
  readonly proxiesStopped: Counter;
  readonly onDemandDns: Counter; // labels by onDemandDnsLabels
  readonly dnsRequests: Counter;
  readonly dnsUpstreamRequests: Counter;
  readonly dnsUpstreamFailures: Counter;
  readonly dnsUpstreamSeconds: Histogram;
}

/** Makes all families. The caller runs `flows.collect` before it asks for the text. */
export function dataplaneMetrics(sources: MetricsSources): AgentMetrics {
  const registry = new MetricsRegistry();
  const build = registry.gauge("istio_build", { help: "Istio component build info" });
  build.set({ component: "ztunnel", tag: sources.version }, 1);
  addTraffic(registry, sources.flows);
  addSockets(registry, sources.tables);
  const onDemandDns = registry.counter("istio_on_demand_dns", {
    help: "The total number of requests that used on-demand DNS (unstable)",
  });
  const agent = {
    registry,
    onDemandDns,
    xdsTerminations: registry.counter("istio_xds_connection_terminations", {
      help: "The total number of completed connections to xds server (unstable)",
    }),
    xdsMessages: registry.counter("istio_xds_message", { help: "Total number of messages received (unstable)" }),
    xdsMessageBytes: registry.counter("istio_xds_message_bytes", {
      help: "Total number of bytes received (unstable)",
      unit: "bytes",
    }),
    ...workloadManagerFamilies(registry),
    ...dnsFamilies(registry),
  };
  addProcess(registry, sources.openFiles);
  addWorkers(registry, sources.tables, sources.flows);
  return agent;
}

/** The content type that answers an Accept header (ZT-191). The body is the same text either way. */
export function contentTypeFor(accept: string): string {
  const wanted = accept.toLowerCase().split(",").some((element) =>
    element.split(";")[0]!.trim() === "application/openmetrics-text"
  );
  return wanted ? OPEN_METRICS_CONTENT_TYPE : PLAIN_CONTENT_TYPE;
}

/** The eight source labels and the hostname of `istio_on_demand_dns_total` (ZT-192). */
export function onDemandDnsLabels(source: FlowLabel, hostname: string): Record<string, string> {
  return { ...sideLabels(source, "source"), hostname: known(hostname) };
}

/** The traffic labels in their order, up to `response_flags` and after it (ZT-193). */
export function trafficLabels(label: FlowLabel): readonly [before: string, after: string] {
  const before = labelText({
    reporter: label.reporter,
    ...sideLabels(label, "source"),
    destination_service: known(label.destinationService),
    destination_service_namespace: known(label.destinationServiceNamespace),
    destination_service_name: known(label.destinationServiceName),
    ...sideLabels(label, "destination"),
    request_protocol: "tcp",
  });
  const labels: Record<string, string> = { connection_security_policy: known(label.securityPolicy) };
  if (label.hasLocality !== "") {
    labels["source_region"] = known(label.sourceRegion);
    labels["source_zone"] = known(label.sourceZone);
    labels["destination_region"] = known(label.destinationRegion);
    labels["destination_zone"] = known(label.destinationZone);
  }
  return [before, labelText(labels)];
}

function known(value: string): string {
  return value === "" ? "unknown" : value;
}

function sideLabels(label: FlowLabel, side: "source" | "destination"): Record<string, string> {
  return {
    [`${side}_workload`]: known(label[`${side}Workload`]),
    [`${side}_canonical_service`]: known(label[`${side}CanonicalService`]),
    [`${side}_canonical_revision`]: known(label[`${side}CanonicalRevision`]),
    [`${side}_workload_namespace`]: known(label[`${side}Namespace`]),
    [`${side}_principal`]: known(label[`${side}Principal`]),
    [`${side}_app`]: known(label[`${side}App`]),
    [`${side}_version`]: known(label[`${side}CanonicalRevision`]),
    [`${side}_cluster`]: known(label[`${side}Cluster`]),
  };
}

/** A series, and its labels under each flag. */
interface Shown {
  readonly series: FlowSeries;
  readonly labels: (flag: number) => string;
}

/** All five families at once: labels are long, so they are made once each time, and kept by nobody. */
function addTraffic(registry: MetricsRegistry, flows: FlowTotals): void {
  type Read = (shown: Shown) => Iterable<readonly [string, number]>;
  const single = (amount: (series: FlowSeries) => number): Read =>
    function* ({ series, labels }) {
      if (series.opened > 0) yield [labels(ResponseFlag.NONE), amount(series)];
    };
  const byFlag = (from: number): Read =>
    function* ({ series: { closed }, labels }) {
      for (let flag = from; flag < closed.length; flag++) if (closed[flag]! > 0) yield [labels(flag), closed[flag]!];
    };
  const families: readonly (readonly [name: string, help: string, read: Read])[] = [
    ["connections_opened", "The total number of TCP connections opened", single((series) => series.opened)],
    ["connections_closed", "The total number of TCP connections closed", byFlag(ResponseFlag.NONE)],
    [
      "received_bytes",
      "The size of total bytes received during request in case of a TCP connection",
      single((series) => series.receivedBytes),
    ],
    [
      "sent_bytes",
      "The size of total bytes sent during response in case of a TCP connection",
      single((series) => series.sentBytes),
    ],
    [
      "connections_failed",
      "The total number of TCP connections that failed to establish (unstable)",
      byFlag(ResponseFlag.DENY),
    ],
  ];
  registry.add({
    write(lines) {
      const all = [...flows.series].map((series): Shown => {
        const [before, after] = trafficLabels(series.label);
        return { series, labels: (flag) => `${before},response_flags="${RESPONSE_FLAG_NAMES[flag]}",${after}` };
      });
      for (const [name, help, read] of families) {
        const samples = function* () {
          for (const shown of all) yield* read(shown);
        };
        new ReadFamily(`istio_tcp_${name}`, "counter", { help }, samples).write(lines);
      }
    },
  });
}

function addSockets(registry: MetricsRegistry, tables: Tables): void {
  const { workers } = tables;
  const byReporter = (
    name: string,
    type: "counter" | "gauge",
    help: string,
    field: typeof WORKER.socketsOpen,
    present: (direction: number, value: number) => boolean,
  ) =>
    registry.add(
      new ReadFamily(name, type, { help }, function* () {
        for (const direction of [Direction.OUTBOUND, Direction.INBOUND]) {
          let value = 0;
          for (let worker = 0; worker < workers.rowCount; worker++) value += workers.getF64At(worker, field, direction);
          if (present(direction, value)) yield [labelText({ reporter: REPORTERS[direction] }), value];
        }
      }),
    );
  const everOpen = [false, false]; // A gauge stays once it was there, also at 0.
  byReporter(
    "istio_tcp_sockets_open",
    "gauge",
    "The current number of open TCP sockets (unstable)",
    WORKER.socketsOpen,
    (direction, value) => everOpen[direction] ||= value > 0 || acceptedAny(tables),
  );
  byReporter(
    "istio_crl_policy_rejections",
    "counter",
    "The total number of connections rejected due to CRL certificate revocation (unstable)",
    WORKER.revocationRejections,
    (_, value) => value > 0,
  );
  byReporter(
    "istio_crl_untracked_connections",
    "counter",
    "The total number of connections not tracked for CRL enforcement (unstable)",
    WORKER.revocationUntracked,
    (_, value) => value > 0,
  );
}

function acceptedAny({ workers }: Tables): boolean {
  for (let worker = 0; worker < workers.rowCount; worker++) {
    if (workers.getF64(worker, WORKER.accepted) > 0) return true;
  }
  return false;
}

function workloadManagerFamilies(registry: MetricsRegistry) {
  const activeProxies = registry.gauge("workload_manager_active_proxy_count", {
    help: "The total number current workloads with active proxies (unstable)",
  });
  const pendingProxies = registry.gauge("workload_manager_pending_proxy_count", {
    help: "The total number current workloads with pending proxies (unstable)",
  });
  activeProxies.set({}, 0);
  pendingProxies.set({}, 0);
  const proxiesStarted = registry.counter("workload_manager_proxies_started", {
    help: "The total number of proxies that were started (unstable)",
  });
  const proxiesStopped = registry.counter("workload_manager_proxies_stopped", {
    help: "The total number of proxies that were stopped (unstable)",
  });
  return { activeProxies, pendingProxies, proxiesStarted, proxiesStopped };
}

function dnsFamilies(registry: MetricsRegistry) {
  return {
    dnsRequests: registry.counter("istio_dns_requests", { help: "Total number of DNS requests (unstable)" }),
    dnsUpstreamRequests: registry.counter("istio_dns_upstream_requests", {
      help: "Total number of DNS requests forwarded to upstream (unstable)",
    }),
    dnsUpstreamFailures: registry.counter("istio_dns_upstream_failures", {
      help: "Total number of DNS requests that failed to forward upstream (unstable)",
    }),
    dnsUpstreamSeconds: registry.histogram("istio_dns_upstream_request_duration_seconds", {
      help: "Total time in seconds Istio takes to get DNS response from upstream (unstable)",
      unit: "seconds",
    }, [0.0005, 0.001, 0.01, 0.1, 1, 5]),
  };
}

function addProcess(registry: MetricsRegistry, openFiles: MetricsSources["openFiles"]): void {
  const family = (name: string, help: string, key: "open" | "max") =>
    registry.add(
      new ReadFamily(name, "gauge", { help }, () => {
        const files = openFiles();
        return files === undefined ? [] : [["", files[key]]];
      }),
    );
  family("process_open_fds", "Number of open file descriptors", "open");
  family("process_max_fds", "Maximum number of file descriptors", "max");
}

/** What stands where the original shows the internals of its runtime (ZT-192): ours. */
function addWorkers(registry: MetricsRegistry, tables: Tables, flows: FlowTotals): void {
  const { workers } = tables;
  const family = (name: string, type: "counter" | "gauge", help: string, read: (worker: number) => number) =>
    registry.add(
      new ReadFamily(`ambit_worker_${name}`, type, { help: `${help} (unstable)` }, function* () {
        for (let worker = 0; worker < workers.rowCount; worker++) {
          if (workers.load(worker, WORKER.state) === WorkerState.ABSENT) continue;
          yield [labelText({ worker: String(worker) }), read(worker)];
        }
      }),
    );
  const counter = (name: string, help: string, field: typeof WORKER.turns) =>
    family(name, "counter", help, (worker) => workers.getF64(worker, field));
  counter("turns", "Turns of the worker's reactor", WORKER.turns);
  counter("slow_turns", "Turns that took longer than 5 ms", WORKER.slowTurns);
  family(
    "longest_turn_seconds",
    "gauge",
    "The longest turn since the start",
    (worker) => workers.getF64(worker, WORKER.longestTurnUs) / 1e6,
  );
  counter("accepted", "Connections accepted", WORKER.accepted);
  counter("handshakes", "TLS handshakes completed", WORKER.handshakes);
  counter("handshake_failures", "TLS handshakes failed", WORKER.handshakeFailures);
  counter("glitches", "Protocol oddities met", WORKER.glitches);
  counter("flow_overflows", "Connections counted without labels for want of room", WORKER.flowOverflows);
  family("upstream_sessions", "gauge", "HBONE sessions we opened", (at) => workers.getF64(at, WORKER.upstreamSessions));
  family(
    "downstream_sessions",
    "gauge",
    "HBONE sessions opened to us",
    (at) => workers.getF64(at, WORKER.downstreamSessions),
  );
  family("connections", "gauge", "Open connections", (worker) => workers.load(worker, WORKER.load));
  registry.add(
    new ReadFamily(
      "ambit_access_records_dropped",
      "counter",
      { help: "Access records lost because the log could not keep up (unstable)" },
      () => flows.droppedRecords > 0 ? [["", flows.droppedRecords]] : [],
    ),
  );
}
