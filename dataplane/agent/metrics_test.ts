import { assert, assertEquals } from "@std/assert";
import { AccessKind, type AccessRecord, AccessWriter } from "../tables/access.ts";
import { type FlowLabel, parseFlowLabel } from "../tables/flow_label.ts";
import { FlowTable } from "../tables/flows.ts";
import { createTables, openTables } from "../tables/handles.ts";
import { Direction, FLOW, FlowState, ResponseFlag, WORKER, WorkerState } from "../tables/layout.ts";
import { serviceOf, workloadOf } from "../tables/testing.ts";
import { FlowTotals } from "./flow_totals.ts";
import { contentTypeFor, dataplaneMetrics, onDemandDnsLabels } from "./metrics.ts";
import { MetricsRegistry } from "./metrics_registry.ts";

const CLIENT = workloadOf("c//Pod/shop/cart-1", {
  name: "cart-1",
  namespace: "shop",
  workloadName: "cart",
  canonicalName: 'ca"rt\\',
  canonicalRevision: "v1",
  locality: { region: "r", zone: "", subzone: "" },
});
const SERVER = workloadOf("c//Pod/shop/db-1", {
  name: "db-1",
  namespace: "shop",
  workloadName: "db",
  canonicalName: "db",
});
const SERVICE = serviceOf("shop", "db.shop.svc");
const NOTHING = () => {};

function start(workers = 1, flowsPerWorker = 16) {
  const sizes = { workers, flowsPerWorker, pods: 1, identities: 1, connectionsPerWorker: 1, snapshotBytes: 4096 };
  const tables = openTables(createTables(sizes));
  const flowTables = tables.flows.map((rows, worker) => new FlowTable(rows, tables.workers, worker));
  const flows = new FlowTotals(tables);
  const openFiles = () => undefined as { open: number; max: number } | undefined;
  const metrics = dataplaneMetrics({ tables, flows, version: "1.0", openFiles });
  const text = () => {
    flows.collect(NOTHING);
    return metrics.registry.text();
  };
  return { tables, flowTables, flows, metrics, text };
}

function acquire(flows: FlowTable, source = CLIENT): number {
  const uri = "spiffe://cluster.local/ns/shop/sa/default";
  return flows.acquire(Direction.OUTBOUND, true, source, uri, undefined, SERVER, "", undefined, SERVICE);
}

function linesOf(text: string, start: string): string[] {
  return text.split("\n").filter((line) => line.startsWith(start));
}

const IDENTITY = "spiffe://cluster.local/ns/shop/sa/default";
const LABELS = [
  'reporter="source"',
  'source_workload="cart",source_canonical_service="ca\\"rt\\\\",source_canonical_revision="v1"',
  `source_workload_namespace="shop",source_principal="${IDENTITY}"`,
  'source_app="ca\\"rt\\\\",source_version="v1",source_cluster="Kubernetes"',
  'destination_service="db.shop.svc",destination_service_namespace="shop",destination_service_name="db"',
  'destination_workload="db",destination_canonical_service="db",destination_canonical_revision="unknown"',
  `destination_workload_namespace="shop",destination_principal="${IDENTITY}"`,
  'destination_app="db",destination_version="unknown",destination_cluster="Kubernetes"',
  'request_protocol="tcp",response_flags="-",connection_security_policy="mutual_tls"',
  'source_region="r",source_zone="unknown",destination_region="unknown",destination_zone="unknown"',
].join(",");

Deno.test("the text of an idle data plane: families without samples are left out (ZT-191, ZT-192)", () => {
  const { text } = start();
  assertEquals(
    text(),
    [
      "# HELP istio_build Istio component build info.",
      "# TYPE istio_build gauge",
      'istio_build{component="ztunnel",tag="1.0"} 1',
      "# HELP workload_manager_active_proxy_count The total number current workloads with active proxies (unstable).",
      "# TYPE workload_manager_active_proxy_count gauge",
      "workload_manager_active_proxy_count 0",
      "# HELP workload_manager_pending_proxy_count The total number current workloads with pending proxies (unstable).",
      "# TYPE workload_manager_pending_proxy_count gauge",
      "workload_manager_pending_proxy_count 0",
      "# EOF",
      "",
    ].join("\n"),
  );
});

Deno.test("one connection with its traffic: names, HELP, label order and values (ZT-192, ZT-193, ZT-196, ZT-197)", () => {
  const { text, flowTables } = start();
  const flows = flowTables[0]!, row = acquire(flows);
  flows.countOpened(row);
  flows.countBytes(row, 11, 22);
  flows.countClosed(row, ResponseFlag.CONNECT);
  flows.release(row);
  const failed = LABELS.replace('response_flags="-"', 'response_flags="CONNECT"');
  const expected = [
    "# HELP istio_tcp_connections_opened The total number of TCP connections opened.",
    "# TYPE istio_tcp_connections_opened counter",
    `istio_tcp_connections_opened_total{${LABELS}} 1`,
    "# HELP istio_tcp_connections_closed The total number of TCP connections closed.",
    "# TYPE istio_tcp_connections_closed counter",
    `istio_tcp_connections_closed_total{${failed}} 1`,
    "# HELP istio_tcp_received_bytes The size of total bytes received during request in case of a TCP connection.",
    "# TYPE istio_tcp_received_bytes counter",
    `istio_tcp_received_bytes_total{${LABELS}} 11`,
    "# HELP istio_tcp_sent_bytes The size of total bytes sent during response in case of a TCP connection.",
    "# TYPE istio_tcp_sent_bytes counter",
    `istio_tcp_sent_bytes_total{${LABELS}} 22`,
    "# HELP istio_tcp_connections_failed The total number of TCP connections that failed to establish (unstable).",
    "# TYPE istio_tcp_connections_failed counter",
    `istio_tcp_connections_failed_total{${failed}} 1`,
  ];
  assertEquals(text().split("\n").slice(3, 3 + expected.length), expected);
  assertEquals(text(), text(), "nothing is added twice");
});

Deno.test("labels of nobody known leave the locality out (ZT-193)", () => {
  const { text, flowTables } = start();
  const row = flowTables[0]!.acquire(
    Direction.INBOUND,
    false,
    undefined,
    "",
    undefined,
    undefined,
    "",
    undefined,
    undefined,
  );
  flowTables[0]!.countOpened(row);
  const [line] = linesOf(text(), "istio_tcp_connections_opened_total");
  assert(line!.endsWith('response_flags="-",connection_security_policy="unknown"} 1'), line);
  assert(line!.startsWith('istio_tcp_connections_opened_total{reporter="destination",source_workload="unknown"'), line);
});

Deno.test("pods of one workload, and all workers, add up to one series", () => {
  const { text, flowTables } = start(2);
  for (const flows of flowTables) {
    for (const source of [CLIENT, { ...CLIENT, name: "cart-2" }]) flows.countOpened(acquire(flows, source));
  }
  assertEquals(linesOf(text(), "istio_tcp_connections_opened_total"), [
    `istio_tcp_connections_opened_total{${LABELS}} 4`,
  ]);
});

Deno.test("totals outlive their rows: what a retired row counted stays, whatever the row is used for next", () => {
  const { flows, flowTables, tables } = start(1, 6);
  const table = flowTables[0]!, rows = tables.flows[0]!, total = 200;
  for (let at = 0; at < total; at++) {
    const row = acquire(table, workloadOf(`w${at}`, { workloadName: `w${at}` }));
    table.countOpened(row);
    table.countBytes(row, 1, 2);
    table.release(row);
    flows.collect(NOTHING);
  }
  const sums = [0, 0, 0];
  for (const { opened, receivedBytes, sentBytes } of flows.series) {
    sums[0]! += opened;
    sums[1]! += receivedBytes;
    sums[2]! += sentBytes;
  }
  assertEquals(sums, [total, total, 2 * total]);
  assert([...flows.series].length > rows.rowCount, "more series than rows");
});

Deno.test("past the limit of series new labels count as unknown, and no count is lost", () => {
  const { flowTables, tables } = start(), flows = new FlowTotals(tables, 3);
  for (let at = 0; at < 8; at++) {
    flowTables[0]!.countOpened(acquire(flowTables[0]!, workloadOf(`w${at}`, { workloadName: `w${at}` })));
  }
  flows.collect(NOTHING);
  const series = [...flows.series].map(({ label, opened }) => [label.reporter, label.sourceWorkload, opened]);
  // The two overflow rows of the table are unknown from the start.
  assertEquals(series, [["source", "", 7], ["destination", "", 0], ["source", "w0", 1]]);
});

Deno.test("a thousand workloads that came and went leave no totals behind", () => {
  let nowMs = 0;
  const { flowTables: [table], tables } = start(1, 64), flows = new FlowTotals(tables, undefined, () => nowMs);
  let most = 0;
  for (let at = 0; at < 1_000; at++) {
    const row = acquire(table!, workloadOf(`w${at}`, { workloadName: `w${at}` }));
    table!.countOpened(row);
    table!.countClosed(row, ResponseFlag.NONE);
    table!.release(row);
    flows.collect(NOTHING);
    nowMs += 6_000;
    if (at % 10 === 0) flows.forgetGone(() => new Set(["shop/db"]));
    most = Math.max(most, [...flows.series].length);
  }
  assert(most <= 2 + 60 + 1, `five minutes' worth of them, and a round's: ${most}`);
  nowMs += 300_000;
  flows.forgetGone(() => new Set(["shop/db"]));
  assertEquals([...flows.series].map(({ label }) => label.reporter), ["source", "destination"]); // The overflow's.
});

Deno.test("totals stay while their workloads do, or a connection of theirs; forgotten ones begin at 0", () => {
  let nowMs = 0;
  const { flowTables: [table], tables } = start(), flows = new FlowTotals(tables, undefined, () => nowMs);
  const writer = new AccessWriter(tables.handles, 0);
  const seen = () => [...flows.series].filter(({ label }) => label.sourceWorkload === "cart").map((it) => it.opened);
  const forget = (...names: string[]) => {
    nowMs += 300_000;
    flows.forgetGone(() => new Set(names));
  };
  const row = acquire(table!);
  table!.countOpened(row);
  table!.countOpened(row);
  flows.collect(NOTHING);
  forget();
  assertEquals(seen(), [2], "its connection is open");
  table!.release(row);
  forget("shop/cart", "shop/db");
  assertEquals(seen(), [2], "its workloads are there");
  forget("shop/cart");
  assertEquals(seen(), [], "one of them has gone");
  flows.collect(NOTHING);
  assertEquals(seen(), [], "nothing was counted since");
  writer.begin(AccessKind.COMPLETE, Direction.OUTBOUND, row, table!.epochOf(row), ResponseFlag.NONE);
  writer.push();
  const names: (string | undefined)[] = [];
  flows.collect((_, label) => names.push(label?.sourceName));
  assertEquals(names, ["cart-1"], "the log knows the flow");
  assertEquals(acquire(table!), row);
  table!.countOpened(row);
  flows.collect(NOTHING);
  assertEquals(seen(), [1]);
});

Deno.test("collect() hands over each record with its flow's label, even if the row was retired meanwhile", () => {
  const { flows, flowTables, tables } = start();
  const table = flowTables[0]!, rows = tables.flows[0]!, writer = new AccessWriter(tables.handles, 0);
  const row = acquire(table);
  writer.begin(AccessKind.COMPLETE, Direction.OUTBOUND, row, table.epochOf(row), ResponseFlag.NONE);
  writer.push();
  writer.begin(AccessKind.COMPLETE, Direction.OUTBOUND, row, table.epochOf(row) - 1, ResponseFlag.NONE);
  writer.push();
  writer.begin(AccessKind.EARLY, Direction.OUTBOUND, -1, 0, ResponseFlag.NONE);
  writer.push();
  table.release(row);
  rows.store(row, FLOW.state, FlowState.RETIRED);
  const seen: [AccessRecord, FlowLabel | undefined][] = [];
  flows.collect((record, label) => seen.push([record, label]));
  assertEquals(seen.map(([, label]) => label?.sourceName), ["cart-1", undefined, undefined]);
  assertEquals(rows.load(row, FLOW.state), FlowState.FREE);
});

Deno.test("sockets and revocations come from the worker rows, by reporter (ZT-198)", () => {
  const { text, tables } = start(2);
  for (const worker of [0, 1]) {
    tables.workers.store(worker, WORKER.state, WorkerState.LIVE);
    tables.workers.addF64(worker, WORKER.accepted, 3);
    tables.workers.addF64At(worker, WORKER.socketsOpen, Direction.INBOUND, 2);
  }
  tables.workers.addF64At(1, WORKER.revocationRejections, Direction.OUTBOUND, 1);
  const now = text();
  assertEquals(linesOf(now, "istio_tcp_sockets_open{"), [
    'istio_tcp_sockets_open{reporter="source"} 0',
    'istio_tcp_sockets_open{reporter="destination"} 4',
  ]);
  assertEquals(linesOf(now, "istio_crl_policy_rejections_total"), [
    'istio_crl_policy_rejections_total{reporter="source"} 1',
  ]);
  assertEquals(linesOf(now, "istio_crl_untracked"), []);
  assertEquals(linesOf(now, "ambit_worker_accepted_total"), [
    'ambit_worker_accepted_total{worker="0"} 3',
    'ambit_worker_accepted_total{worker="1"} 3',
  ]);
});

Deno.test("the agent's own counters (ZT-132, ZT-175, ZT-192)", () => {
  const { text, metrics } = start();
  metrics.xdsTerminations.add({ reason: "Reconnect" });
  metrics.xdsMessages.add({ url: "type.googleapis.com/istio.workload.Address" });
  metrics.xdsMessageBytes.add({ url: "type.googleapis.com/istio.workload.Address" }, 100);
  metrics.activeProxies.add({}, 1);
  metrics.proxiesStarted.add({});
  const source = parseFlowLabel("source\u0001n\u0001w");
  metrics.onDemandDns.add(onDemandDnsLabels(source, "example.com"));
  const now = text();
  for (
    const line of [
      'istio_xds_connection_terminations_total{reason="Reconnect"} 1',
      "# HELP istio_xds_message_bytes Total number of bytes received (unstable).",
      "# TYPE istio_xds_message_bytes counter",
      "# UNIT istio_xds_message_bytes bytes",
      'istio_xds_message_bytes_total{url="type.googleapis.com/istio.workload.Address"} 100',
      "workload_manager_active_proxy_count 1",
      "workload_manager_proxies_started_total 1",
      'istio_on_demand_dns_total{source_workload="w",source_canonical_service="unknown",' +
      'source_canonical_revision="unknown",source_workload_namespace="unknown",source_principal="unknown",' +
      'source_app="unknown",source_version="unknown",source_cluster="unknown",hostname="example.com"} 1',
    ]
  ) assert(now.split("\n").includes(line), line);
});

Deno.test("contentTypeFor() answers OpenMetrics only where it is asked for (ZT-191)", () => {
  const open = "application/openmetrics-text;charset=utf-8;version=1.0.0";
  assertEquals(contentTypeFor("text/plain, application/openmetrics-text; version=1.0.0;q=0.5"), open);
  assertEquals(contentTypeFor("*/*"), "text/plain; charset=utf-8");
  assertEquals(contentTypeFor(""), "text/plain; charset=utf-8");
});

Deno.test("a histogram counts below each bound, and everything below infinity (ZT-188)", () => {
  const registry = new MetricsRegistry(), histogram = registry.histogram("d_seconds", { help: "D" }, [0.001, 1]);
  for (const seconds of [0.0005, 0.5, 7]) histogram.observe({ a: "x\n" }, seconds);
  assertEquals(
    registry.text(),
    [
      "# HELP d_seconds D.",
      "# TYPE d_seconds histogram",
      'd_seconds_sum{a="x\\n"} 7.5005',
      'd_seconds_count{a="x\\n"} 3',
      'd_seconds_bucket{a="x\\n",le="0.001"} 1',
      'd_seconds_bucket{a="x\\n",le="1"} 2',
      'd_seconds_bucket{a="x\\n",le="+Inf"} 3',
      "# EOF",
      "",
    ].join("\n"),
  );
});
