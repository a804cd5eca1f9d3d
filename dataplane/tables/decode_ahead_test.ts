/** A change of thousands of resources costs a worker's turn a bounded part of them. */
import { assert, assertEquals } from "@std/assert";
import { DECODED_PER_TURN_MAX } from "./decode_ahead.ts";
import { createTables, openTables } from "./handles.ts";
import { SnapshotReader } from "./lookup.ts";
import { SnapshotWriter } from "./publish.ts";
import { ipv4, SampleMesh, serviceOf, workloadOf } from "./testing.ts";

const ENDPOINTS = 2_000;

function start() {
  const sizes = { pods: 8, identities: 8, flowsPerWorker: 8, connectionsPerWorker: 8, snapshotBytes: 8 << 20 };
  const tables = openTables(createTables(sizes)), mesh = new SampleMesh();
  const writer = new SnapshotWriter(tables, () => {}, 7);
  writer.admit(0);
  const reader = new SnapshotReader(tables, 0);
  const put = (from: number, count: number, revision: string) => {
    for (let at = from; at < from + count; at++) {
      const services = new Map([["ns/big.svc", []]]);
      mesh.putWorkload(workloadOf(`w${at}`, { addresses: [ipv4(1000 + at)], canonicalRevision: revision, services }));
    }
  };
  mesh.putService(serviceOf("ns", "big.svc", { addresses: [{ network: "", ip: ipv4(1) }] }));
  put(0, ENDPOINTS, "one");
  writer.publish(mesh);
  assert(reader.refresh());
  const endpoints = () => reader.endpointsOf(reader.serviceNamed("ns", "big.svc")!);
  assertEquals(endpoints().length, ENDPOINTS);
  return { writer, reader, mesh, put, endpoints };
}

/** Refreshes until the reader has moved. @returns How often it had not. */
function move(reader: SnapshotReader): number {
  for (let refreshes = 0;; refreshes++) {
    if (reader.refresh()) return refreshes;
    assert(reader.warming && refreshes < 1_000);
  }
}

Deno.test("a worker decodes a change of all endpoints in parts, and stays at the old snapshot until it has them", () => {
  const { writer, reader, mesh, put, endpoints } = start();
  put(0, ENDPOINTS, "two");
  put(ENDPOINTS, 100, "two"); // New to the worker, and part of a list that it uses.
  writer.publish(mesh);
  assertEquals(reader.refresh(), false);
  assert(reader.warming);
  assertEquals([reader.generation, writer.canPublish()], [1, false]);
  assertEquals(new Set(endpoints().map((it) => it.canonicalRevision)), new Set(["one"]));
  const refreshes = 1 + move(reader);
  assertEquals(refreshes, Math.ceil((ENDPOINTS + 100) / DECODED_PER_TURN_MAX) - 1);
  assertEquals([reader.generation, reader.warming, writer.canPublish()], [2, false, true]);
  assertEquals(new Set(endpoints().map((it) => it.canonicalRevision)), new Set(["two"]));
  assertEquals(endpoints().length, ENDPOINTS + 100);
});

Deno.test("what a worker never looked at is not decoded ahead, and what has gone is left out", () => {
  const { writer, reader, mesh, endpoints } = start();
  for (let at = 0; at < ENDPOINTS; at++) mesh.removeWorkload(`w${at}`);
  for (let at = 0; at < ENDPOINTS; at++) mesh.putWorkload(workloadOf(`other${at}`, { addresses: [ipv4(9_000 + at)] }));
  writer.publish(mesh);
  // Rows of what has gone are used again; the reader cannot know that nobody will ask for them.
  assert(move(reader) <= Math.ceil(ENDPOINTS / DECODED_PER_TURN_MAX));
  assertEquals(endpoints().length, 0);
  mesh.putWorkload(workloadOf("one", { addresses: [ipv4(77)] }));
  writer.publish(mesh);
  assertEquals(move(reader), 0);
  assertEquals(reader.workloadAt("", 0, 0, 0xffff, ipv4(77)[3])?.uid, "one");
});
