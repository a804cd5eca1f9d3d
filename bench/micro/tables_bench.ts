/** The shared tables on the data path: lookups of a new connection, counting of an old one, the idle turn. */
import { AccessWriter } from "../../dataplane/tables/access.ts";
import { FlowTable } from "../../dataplane/tables/flows.ts";
import { createTables, openTables } from "../../dataplane/tables/handles.ts";
import { FLOW } from "../../dataplane/tables/layout.ts";
import { SnapshotReader } from "../../dataplane/tables/lookup.ts";
import { SnapshotWriter } from "../../dataplane/tables/publish.ts";
import { ipv4, SampleMesh, serviceOf, workloadOf } from "../../dataplane/tables/testing.ts";

const WORKLOADS = 10_000, SERVICES = 200;
const FIRST_POD = 0x0a000000, FIRST_VIP = 0x0b000000;

const tables = openTables(createTables({ snapshotBytes: 64 * 1024 * 1024 }));
const writer = new SnapshotWriter(tables, () => {}, 1), mesh = new SampleMesh();
writer.admit(0);
for (let at = 0; at < WORKLOADS; at++) {
  const services = new Map([[`default/s${at % SERVICES}`, []]]);
  mesh.putWorkload(workloadOf(`c//Pod/default/w${at}`, { addresses: [ipv4(FIRST_POD + at)], services }));
}
for (let at = 0; at < SERVICES; at++) {
  mesh.putService(serviceOf("default", `s${at}`, { addresses: [{ network: "", ip: ipv4(FIRST_VIP + at) }] }));
}
mesh.putService(serviceOf("default", "range", { addresses: [{ network: "", ip: ipv4(0x0c000000), prefixLength: 8 }] }));
writer.publish(mesh);
const reader = new SnapshotReader(tables, 0);
reader.refresh();
const workloads = Array.from({ length: 1000 }, (_, at) => reader.workloadAt("", 0, 0, 0xffff, FIRST_POD + at)!);
const services = Array.from({ length: SERVICES }, (_, at) => reader.serviceNamed("default", `s${at}`)!);
const flows = new FlowTable(tables.flows[0]!, tables.workers, 0), access = new AccessWriter(tables.handles, 0);
const flowRows = tables.flows[0]!;
const uri = "spiffe://cluster.local/ns/default/sa/default";
let at = 0, sink = 0;

Deno.bench("turn: refresh, nothing new", () => {
  if (reader.refresh()) sink++;
});
Deno.bench("lookup: workload by address, of 10,000", () => {
  if (reader.workloadAt("", 0, 0, 0xffff, FIRST_POD + at++ % WORKLOADS) !== undefined) sink++;
});
Deno.bench("lookup: address of nobody", () => {
  if (reader.workloadAt("", 0, 0, 0xffff, 0x0d000000 + at++ % WORKLOADS) !== undefined) sink++;
});
Deno.bench("lookup: service by VIP", () => {
  if (reader.serviceAt("", 0, 0, 0xffff, FIRST_VIP + at++ % SERVICES, "default") !== undefined) sink++;
});
Deno.bench("lookup: service by CIDR", () => {
  if (reader.serviceAt("", 0, 0, 0xffff, 0x0c000000 + at++ % SERVICES, "default") !== undefined) sink++;
});
Deno.bench("lookup: endpoints of a service", () => {
  sink += reader.endpointsOf(services[at++ % SERVICES]!).length;
});
Deno.bench("lookup: policies for a workload", () => {
  sink += reader.policiesFor(workloads[at++ % workloads.length]!).length;
});
Deno.bench("flow: acquire, count and release", () => {
  const source = workloads[at++ % 50]!, destination = workloads[at * 7 % 40]!;
  const row = flows.acquire(0, true, source, uri, undefined, destination, "", undefined, services[3]);
  flows.countOpened(row);
  flows.countBytes(row, 1, 1);
  flows.countClosed(row, 0);
  flows.release(row);
});
Deno.bench("flow: one addition to a counter", () => flowRows.addF64(5, FLOW.receivedBytes, 1));
Deno.bench("access record, ring full", () => {
  access.begin(0, 0, 1, 1, 0);
  access.source(0, 0, 0xffff, 1, 1);
  access.destination(0, 0, 0xffff, 2, 2);
  access.amounts(1, 1, 1);
  access.push();
});
