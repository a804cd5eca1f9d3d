import { assertEquals } from "@std/assert";
import { LEVELS, LogFilter, Logger } from "../../base/log.ts";
import { AccessKind, type AccessRecord, LogScope } from "../tables/access.ts";
import { type FlowLabel, flowLabelOf, parseFlowLabel } from "../tables/flow_label.ts";
import { createTables, openTables } from "../tables/handles.ts";
import { Direction, HEADER, ResponseFlag } from "../tables/layout.ts";
import { ipv4, serviceOf, workloadOf } from "../tables/testing.ts";
import { AccessLog } from "./access_log.ts";

const CLIENT = workloadOf("c//Pod/shop/cart-1", { name: "cart-1", namespace: "shop", canonicalName: "cart" });
const SERVER = workloadOf("c//Pod/shop/db-1", { name: "db-1", namespace: "shop", canonicalName: "db" });
const URI = "spiffe://cluster.local/ns/shop/sa/default";

const COMPLETE: AccessRecord = {
  kind: AccessKind.COMPLETE,
  direction: Direction.OUTBOUND,
  flowRow: 0,
  flowEpoch: 1,
  flag: ResponseFlag.NONE,
  source: { ip: ipv4(0x0a000001), port: 40000 },
  destination: { ip: ipv4(0x0a000002), port: 15008 },
  authority: { ip: ipv4(0x0a000064), port: 80 },
  receivedBytes: 11,
  sentBytes: 22,
  durationMs: 12.9,
  error: undefined,
};

function labelOf(direction: number, mutualTls: boolean): FlowLabel {
  const service = serviceOf("shop", "db.shop.svc");
  return parseFlowLabel(
    flowLabelOf(direction, mutualTls, CLIENT, mutualTls ? URI : "", undefined, SERVER, "", undefined, service),
  );
}

/** The lines a record makes, without their time. */
function linesOf(record: AccessRecord, label: FlowLabel | undefined, level: "info" | "debug" = "info", json = false) {
  const lines: string[] = [];
  const log = new Logger("agent", { filter: new LogFilter(level), json, sink: (line) => lines.push(line) });
  new AccessLog(log).write(record, label);
  return lines.map((line) => json ? line.replace(/"time":"[^"]*",/, "") : line.slice(line.indexOf("\t") + 1));
}

Deno.test("a tunnelled outbound connection: fields, order, addresses without quotes (ZT-200, ZT-201, ZT-202)", () => {
  assertEquals(linesOf(COMPLETE, labelOf(Direction.OUTBOUND, true)), [
    "info\taccess\tconnection complete\t" + [
      "src.addr=10.0.0.1:40000",
      'src.workload="cart-1"',
      'src.namespace="shop"',
      `src.identity="${URI}"`,
      'src.cluster="Kubernetes"',
      "dst.addr=10.0.0.2:15008",
      "dst.hbone_addr=10.0.0.100:80",
      'dst.service="db.shop.svc"',
      'dst.workload="db-1"',
      'dst.namespace="shop"',
      `dst.identity="${URI}"`,
      'dst.cluster="Kubernetes"',
      'direction="outbound"',
      "bytes_sent=11",
      "bytes_recv=22",
      'duration="12ms"',
    ].join(" "),
  ]);
});

Deno.test("an inbound plaintext connection: no identities, bytes seen from the destination, failures as errors (ZT-203)", () => {
  const record = {
    ...COMPLETE,
    direction: Direction.INBOUND,
    authority: undefined,
    flag: ResponseFlag.DENY,
    error: "connection closed due to policy rejection: explicitly denied by: shop/deny",
  };
  assertEquals(linesOf(record, labelOf(Direction.INBOUND, false)), [
    "error\taccess\tconnection complete\t" + [
      "src.addr=10.0.0.1:40000",
      'src.workload="cart-1"',
      'src.namespace="shop"',
      'src.cluster="Kubernetes"',
      "dst.addr=10.0.0.2:15008",
      'dst.service="db.shop.svc"',
      'dst.workload="db-1"',
      'dst.namespace="shop"',
      'dst.cluster="Kubernetes"',
      'direction="inbound"',
      "bytes_sent=22",
      "bytes_recv=11",
      'duration="12ms"',
      'error="connection closed due to policy rejection: explicitly denied by: shop/deny"',
    ].join(" "),
  ]);
});

Deno.test("a failure without a text of its own is logged by its flag", () => {
  const [line] = linesOf({ ...COMPLETE, flag: ResponseFlag.TLS_FAILURE }, undefined);
  assertEquals(line!.split(" ").at(-1), 'error="TLS_FAILURE"');
});

Deno.test("JSON lines hold the same fields as strings and numbers (ZT-200)", () => {
  const [line] = linesOf(
    { ...COMPLETE, authority: "db.shop.svc:80" },
    labelOf(Direction.OUTBOUND, false),
    "info",
    true,
  );
  assertEquals(JSON.parse(line!), {
    level: "info",
    scope: "access",
    message: "connection complete",
    "src.addr": "10.0.0.1:40000",
    "src.workload": "cart-1",
    "src.namespace": "shop",
    "src.cluster": "Kubernetes",
    "dst.addr": "10.0.0.2:15008",
    "dst.hbone_addr": "db.shop.svc:80",
    "dst.service": "db.shop.svc",
    "dst.workload": "db-1",
    "dst.namespace": "shop",
    "dst.cluster": "Kubernetes",
    direction: "outbound",
    bytes_sent: 11,
    bytes_recv: 22,
    duration: "12ms",
  });
});

Deno.test("an opened connection is logged at debug, with the fields up to direction (ZT-204)", () => {
  const record = { ...COMPLETE, kind: AccessKind.OPENED }, label = labelOf(Direction.OUTBOUND, true);
  assertEquals(linesOf(record, label), []);
  const [line] = linesOf(record, label, "debug");
  assertEquals(line!.split("\t").slice(0, 3), ["debug", "access", "connection opened"]);
  assertEquals(line!.split(" ").at(-1), 'direction="outbound"');
});

Deno.test("announce() tells workers what somebody wants to read, as levels change (ZT-204, ZT-206, ZT-216)", () => {
  const { header } = openTables(createTables({ workers: 1, connectionsPerWorker: 64 }));
  const filter = new LogFilter("info"), log = new AccessLog(new Logger("test", { filter, sink: () => {} }));
  const told = (policyAtInfo: boolean) => {
    log.announce(header, policyAtInfo);
    return [header.load(0, HEADER.accessOpened), LEVELS[header.load(0, HEADER.policyLevel)]];
  };
  assertEquals([told(false), told(true)], [[0, "off"], [0, "info"]]);
  filter.set("debug", "access");
  assertEquals(told(false), [1, "off"]);
  filter.set("debug");
  filter.set("warn", "access");
  assertEquals([told(false), told(true)], [[0, "debug"], [0, "info"]]);
  filter.set("off", "policy");
  assertEquals(told(true), [0, "off"]);
});

Deno.test("a policy's decision is a line of the scope policy (ZT-206)", () => {
  const record = { ...COMPLETE, kind: AccessKind.LOG, direction: LogScope.POLICY, flag: 4, error: "allowed" };
  assertEquals(linesOf(record, undefined), []);
  assertEquals(linesOf(record, undefined, "debug"), ["debug\tpolicy\tallowed"]);
});

Deno.test("a connection that was never counted is a warning with four fields (ZT-205)", () => {
  const record = { ...COMPLETE, kind: AccessKind.EARLY, flowRow: -1, error: "attempted recursive call to ourselves" };
  assertEquals(linesOf(record, undefined), [
    "warn\taccess\tconnection failed\tsrc.addr=10.0.0.1:40000 dst.addr=10.0.0.2:15008 " +
    'direction="outbound" error="attempted recursive call to ourselves"',
  ]);
});

Deno.test("nothing that came from the network can forge a field or a line", () => {
  const forged = 'x:1 src.identity="spiffe://a"\n2026-01-01T00:00:00Z\tinfo';
  const [line, ...more] = linesOf({ ...COMPLETE, authority: forged, error: "a\nb" }, undefined);
  assertEquals(more, []);
  assertEquals(line!.includes("\n"), false);
  assertEquals(line!.includes(`dst.hbone_addr=${JSON.stringify(forged)}`), true);
  const [own] = linesOf({ ...COMPLETE, kind: AccessKind.LOG, flag: 3, error: "policy\nmissing" }, undefined);
  assertEquals(own, "info\tworker\tpolicy missing");
});
