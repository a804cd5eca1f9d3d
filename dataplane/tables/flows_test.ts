import { assert, assertEquals, assertThrows } from "@std/assert";
import { AssertionError } from "../../base/assert.ts";
import { type BaggageLabel, flowLabelOf, parseFlowLabel } from "./flow_label.ts";
import { FlowTable, OVERFLOW_ROWS } from "./flows.ts";
import { createTables, openTables, type Tables } from "./handles.ts";
import { Direction, FLOW, FlowState, LABEL_BYTES_MAX, ResponseFlag, WORKER } from "./layout.ts";
import { serviceOf, workloadOf } from "./testing.ts";

const CART = workloadOf("c//Pod/shop/cart-1", {
  name: "cart-1",
  namespace: "shop",
  workloadName: "cart",
  canonicalName: "cart",
  canonicalRevision: "v1",
  serviceAccount: "cart",
  locality: { region: "r", zone: "z", subzone: "" },
});
const DATABASE = workloadOf("c//Pod/shop/db-1", { name: "db-1", namespace: "shop", workloadName: "db" });
const BAGGAGE: BaggageLabel = {
  cluster: "K1",
  namespace: "far",
  workloadName: "w",
  canonicalName: "s",
  canonicalRevision: "v2",
  region: "r1",
  zone: "z1",
};
const CART_URI = "spiffe://cluster.local/ns/shop/sa/cart";

function start(flowsPerWorker: number): { tables: Tables; flows: FlowTable; rows: Tables["flows"][0] } {
  const tables = openTables(
    createTables({ pods: 1, identities: 1, flowsPerWorker, connectionsPerWorker: 1, snapshotBytes: 4096 }),
  );
  const rows = tables.flows[0]!;
  return { tables, rows, flows: new FlowTable(rows, tables.workers, 0) };
}

function acquireNamed(flows: FlowTable, name: string): number {
  const workload = workloadOf(name, { workloadName: name });
  return flows.acquire(Direction.OUTBOUND, false, workload, "", undefined, undefined, "", undefined, undefined);
}

Deno.test("flowLabelOf() takes a side from its workload; the source's principal only from mTLS (ZT-193, ZT-194)", () => {
  const service = serviceOf("shop", "db.shop.svc");
  const label = parseFlowLabel(
    flowLabelOf(Direction.OUTBOUND, false, CART, "", BAGGAGE, DATABASE, "", undefined, service),
  );
  assertEquals(label, {
    reporter: "source",
    sourceName: "cart-1",
    sourceWorkload: "cart",
    sourceCanonicalService: "cart",
    sourceCanonicalRevision: "v1",
    sourceNamespace: "shop",
    sourcePrincipal: "",
    sourceApp: "cart",
    sourceCluster: "Kubernetes",
    destinationService: "db.shop.svc",
    destinationServiceNamespace: "shop",
    destinationServiceName: "db",
    destinationName: "db-1",
    destinationWorkload: "db",
    destinationCanonicalService: "",
    destinationCanonicalRevision: "",
    destinationNamespace: "shop",
    destinationPrincipal: "spiffe://cluster.local/ns/shop/sa/default",
    destinationApp: "",
    destinationCluster: "Kubernetes",
    securityPolicy: "",
    hasLocality: "1",
    sourceRegion: "r",
    sourceZone: "z",
    destinationRegion: "",
    destinationZone: "",
  });
  const tunnelled = flowLabelOf(Direction.OUTBOUND, true, CART, CART_URI, undefined, DATABASE, "", undefined, service);
  assertEquals(parseFlowLabel(tunnelled).sourcePrincipal, CART_URI);
  assertEquals(parseFlowLabel(tunnelled).securityPolicy, "mutual_tls");
});

Deno.test("flowLabelOf() takes an unknown source from baggage, and a far destination from the answer's (ZT-194, ZT-047)", () => {
  const inbound = parseFlowLabel(
    flowLabelOf(Direction.INBOUND, true, undefined, CART_URI, BAGGAGE, DATABASE, "", undefined, undefined),
  );
  assertEquals(
    [inbound.reporter, inbound.sourceName, inbound.sourceWorkload, inbound.sourceApp, inbound.sourceCanonicalService],
    ["destination", "s", "w", "w", "s"],
  );
  assertEquals([inbound.sourceRegion, inbound.sourceZone, inbound.sourcePrincipal], ["r1", "z1", CART_URI]);
  const far = parseFlowLabel(
    flowLabelOf(
      Direction.OUTBOUND,
      true,
      CART,
      CART_URI,
      undefined,
      DATABASE,
      "spiffe://x/ns/a/sa/b",
      BAGGAGE,
      undefined,
    ),
  );
  assertEquals([far.destinationWorkload, far.destinationPrincipal], ["w", "spiffe://x/ns/a/sa/b"]);
});

Deno.test("flowLabelOf() keeps any label within a row, with all its fields", () => {
  const long = "é".repeat(400);
  const workload = workloadOf(long, {
    workloadName: long,
    canonicalName: long,
    namespace: long,
    canonicalRevision: long,
  });
  const service = serviceOf(long, long, { name: long });
  const text = flowLabelOf(Direction.INBOUND, true, workload, long, undefined, workload, long, undefined, service);
  assert(new TextEncoder().encode(text).length <= LABEL_BYTES_MAX);
  assertEquals(text.split("\u0001").length, 26);
  assertEquals(parseFlowLabel(text).reporter, "destination");
});

Deno.test("acquire() gives equal telemetry one row, and each difference another", () => {
  const { flows, rows } = start(32);
  const acquire = (source = CART, service = undefined as ReturnType<typeof serviceOf> | undefined, mutualTls = false) =>
    flows.acquire(Direction.OUTBOUND, mutualTls, source, "", undefined, DATABASE, "", undefined, service);
  const row = acquire();
  assertEquals(acquire(), row); // by the cache
  assertEquals(acquire({ ...CART }), row); // by the text: an object of another generation
  assertEquals(rows.get(row, FLOW.references), 3);
  const others = [
    acquire(CART, undefined, true),
    acquire(CART, serviceOf("a", "b")),
    acquire({ ...CART, name: "cart-2" }),
    flows.acquire(Direction.INBOUND, false, CART, "", undefined, DATABASE, "", undefined, undefined),
  ];
  assertEquals(new Set([row, ...others]).size, 5);
});

Deno.test("counts go to the acquired row; release() is asserted", () => {
  const { flows, rows } = start(8);
  const row = acquireNamed(flows, "a");
  flows.countOpened(row);
  flows.countBytes(row, 11, 22);
  flows.countBytes(row, 1, 0);
  flows.countClosed(row, ResponseFlag.CONNECT);
  assertEquals(
    [rows.getF64(row, FLOW.opened), rows.getF64(row, FLOW.receivedBytes), rows.getF64(row, FLOW.sentBytes)],
    [1, 12, 22],
  );
  assertEquals(rows.getF64At(row, FLOW.closed, ResponseFlag.CONNECT), 1);
  flows.release(row);
  assertThrows(() => flows.release(row), AssertionError, "as often");
});

Deno.test("a full table of used rows gives the overflow row of the direction, and counts it", () => {
  const { flows, tables } = start(OVERFLOW_ROWS + 4);
  const rows = Array.from({ length: 4 }, (_, at) => acquireNamed(flows, `w${at}`));
  assertEquals(new Set(rows).size, 4);
  assertEquals(acquireNamed(flows, "one-more"), Direction.OUTBOUND);
  const inbound = flows.acquire(Direction.INBOUND, false, CART, "", undefined, undefined, "", undefined, undefined);
  assertEquals(inbound, Direction.INBOUND);
  assertEquals(tables.workers.getF64(0, WORKER.flowOverflows), 2);
  assertEquals(acquireNamed(flows, "w2"), rows[2]);
});

Deno.test("unused rows are retired when room is scarce, and used again only once the agent freed them", () => {
  const { flows, rows } = start(OVERFLOW_ROWS + 8);
  const first = Array.from({ length: 8 }, (_, at) => acquireNamed(flows, `w${at}`));
  for (const row of first) flows.release(row);
  const epochs = first.map((row) => flows.epochOf(row));
  assertEquals(acquireNamed(flows, "x0"), Direction.OUTBOUND); // The first sweep only takes their second chance.
  assertEquals(acquireNamed(flows, "x1"), Direction.OUTBOUND);
  const retired = first.filter((row) => rows.load(row, FLOW.state) === FlowState.RETIRED);
  assert(retired.length > 0);
  for (const row of retired) rows.store(row, FLOW.state, FlowState.FREE); // as the agent does
  const row = acquireNamed(flows, "x2");
  assert(retired.includes(row));
  assertEquals(flows.epochOf(row), epochs[first.indexOf(row)]! + 1);
  assertEquals(rows.getF64(row, FLOW.opened), 0);
  // A cached place of the row's former label does not lead to it any more.
  assert(acquireNamed(flows, `w${first.indexOf(row)}`) !== row);
});

Deno.test("a new worker leaves the rows of the one before to the agent", () => {
  const { flows, rows, tables } = start(8);
  const row = acquireNamed(flows, "a");
  const again = new FlowTable(rows, tables.workers, 0);
  assertEquals(rows.load(row, FLOW.state), FlowState.RETIRED);
  assert(acquireNamed(again, "a") !== row);
});
