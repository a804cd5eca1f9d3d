import { assert, assertEquals, assertThrows } from "@std/assert";
import { AssertionError } from "../../base/assert.ts";
import { MeshError } from "../../base/errors.ts";
import { AccessKind, AccessReader, AccessWriter } from "./access.ts";
import { createTables, openCommandRing, openRequestRing, openTables, planTables, pushWords } from "./handles.ts";
import { DEFAULT_SIZES } from "./handles.ts";
import {
  acquireIdentity,
  putContext,
  putFailure,
  readContext,
  readFailure,
  readUri,
  releaseIdentity,
} from "./identities.ts";
import * as layouts from "./layout.ts";
import { Command, COMMAND_WORDS, Direction, IDENTITY, IdentityState, ResponseFlag } from "./layout.ts";

const SMALL = { pods: 2, identities: 2, flowsPerWorker: 4, connectionsPerWorker: 4, snapshotBytes: 4096 };

Deno.test("the shared structs are as tests/golden/data/layouts.txt shows them", async () => {
  const { HEADER, WORKER, POD, TAKEOVER, FLOW, CONNECTION } = layouts;
  const text =
    [HEADER, WORKER, POD, IDENTITY, TAKEOVER, FLOW, CONNECTION].map((shape) => shape.description).join("\n\n") + "\n";
  const golden = new URL("../../tests/golden/data/layouts.txt", import.meta.url);
  if (Deno.env.get("UPDATE_GOLDEN") === "1") await Deno.writeTextFile(golden, text);
  assertEquals(text, await Deno.readTextFile(golden), "run with UPDATE_GOLDEN=1 and read the difference");
});

Deno.test("planTables() gives every table whole cache lines of its own", () => {
  const plan = planTables({ ...DEFAULT_SIZES, workers: 3 });
  const starts = [plan.header, plan.workers, plan.pods, plan.identities, plan.takeover];
  const perWorker = [plan.flows, plan.connections, plan.commands, plan.requests, plan.questions, plan.access];
  const all = [...starts, ...perWorker.flat()];
  assertEquals(all.length, 5 + 3 * 6);
  assertEquals(new Set(all).size, all.length);
  assert(all.every((at) => at % 64 === 0 && at < plan.totalBytes));
  assertThrows(() => planTables({ ...DEFAULT_SIZES, workers: 17 }), AssertionError, "workers");
});

Deno.test("openTables() opens what createTables() made, after structured clone too, and refuses anything else", () => {
  const handles = createTables({ ...SMALL, workers: 2 }, "net");
  const opened = openTables(structuredClone(handles));
  assertEquals([opened.flows.length, opened.connections[1]!.rowCount, opened.pods.rowCount], [2, 4, 2]);
  opened.header.store(0, layouts.HEADER.generation, 5);
  assertEquals(openTables(handles).header.load(0, layouts.HEADER.generation), 5);
  const moved = { ...handles, plan: { ...handles.plan, pods: handles.plan.identities } };
  assertThrows(() => openTables(moved), AssertionError, "layout pod");
});

Deno.test("commands and requests each go their own way, by worker", () => {
  const handles = createTables({ ...SMALL, workers: 2 }), woken: number[] = [];
  const toFirst = openCommandRing(handles, 0, () => woken.push(0)), toSecond = openCommandRing(handles, 1);
  const words = new Int32Array(COMMAND_WORDS);
  assert(pushWords(toFirst, Command.POD_ADDED, 7, 1));
  assertEquals(toSecond.length, 0);
  assertEquals(openRequestRing(handles, 0).pop(words), false);
  assert(openCommandRing(handles, 0).pop(words));
  assertEquals([...words], [Command.POD_ADDED, 7, 1, 0, 0, 0, 0, 0]);
  assertEquals(woken, [0]);
});

Deno.test("an identity row goes from pending to ready with a context address of more than 32 bits", () => {
  const { identities } = openTables(createTables(SMALL));
  const uri = "spiffe://cluster.local/ns/ä/sa/b", row = acquireIdentity(identities, uri);
  assertEquals([identities.load(row, IDENTITY.state), readUri(identities, row)], [IdentityState.PENDING, uri]);
  assertEquals(readContext(identities, row), 0);
  for (const address of [0x7f12_8765_4321, 0xffff_ffff, 1, 2 ** 47 - 1]) {
    putContext(identities, row, address, 1_000);
    assertEquals(readContext(identities, row), address);
  }
  assertEquals(identities.load(row, IDENTITY.state), IdentityState.READY);
  putFailure(identities, row, "x".repeat(300));
  assertEquals([identities.load(row, IDENTITY.state), readFailure(identities, row).length], [
    IdentityState.FAILED,
    256,
  ]);
});

Deno.test("acquireIdentity() says what to do when rows or bytes run out", () => {
  const { identities } = openTables(createTables(SMALL));
  const row = acquireIdentity(identities, "a");
  acquireIdentity(identities, "b");
  assertEquals(assertThrows(() => acquireIdentity(identities, "c"), MeshError).code, "AMB2001");
  releaseIdentity(identities, row);
  assertEquals(assertThrows(() => acquireIdentity(identities, "x".repeat(600)), MeshError).code, "AMB2002");
  assertEquals(acquireIdentity(identities, "c"), row);
});

Deno.test("an access record arrives as it was written", () => {
  const handles = createTables(SMALL);
  const writer = new AccessWriter(handles, 0), reader = new AccessReader(handles, 0);
  assertEquals(reader.read(), undefined);
  writer.begin(AccessKind.COMPLETE, Direction.INBOUND, 3, 9, ResponseFlag.DENY);
  writer.source(0x20010db8, 0, 0, 0xffff_fffe, 65535);
  writer.destination(0, 0, 0xffff, 0x0a000001, 15008);
  writer.authorityText("db.shop.svc:5432");
  writer.amounts(2 ** 40, 5, 1.5);
  writer.error("explicitly denied by: shop/ü");
  assert(writer.push());
  writer.begin(AccessKind.EARLY, Direction.OUTBOUND, -1, 0, 0);
  writer.authorityAddress(0, 0, 0xffff, 1, 80);
  assert(writer.push());
  assertEquals(reader.waiting, 2);
  assertEquals(reader.read(), {
    kind: AccessKind.COMPLETE,
    direction: Direction.INBOUND,
    flowRow: 3,
    flowEpoch: 9,
    flag: ResponseFlag.DENY,
    source: { ip: [0x20010db8, 0, 0, 0xffff_fffe], port: 65535 },
    destination: { ip: [0, 0, 0xffff, 0x0a000001], port: 15008 },
    authority: "db.shop.svc:5432",
    receivedBytes: 2 ** 40,
    sentBytes: 5,
    durationMs: 1.5,
    error: "explicitly denied by: shop/ü",
  });
  const second = reader.read()!;
  assertEquals([second.flowRow, second.error, second.receivedBytes], [-1, undefined, 0]);
  assertEquals(second.authority, { ip: [0, 0, 0xffff, 1], port: 80 });
});

Deno.test("an access record cuts text that is too long, and a full ring drops and counts", () => {
  const handles = createTables(SMALL);
  const writer = new AccessWriter(handles, 0), reader = new AccessReader(handles, 0);
  writer.begin(AccessKind.EARLY, Direction.OUTBOUND, -1, 0, 0);
  writer.authorityText("é".repeat(500));
  writer.error("lost");
  writer.push();
  const { authority, error } = reader.read()!;
  assertEquals([authority, error], ["é".repeat(200), undefined]);
  let pushed = 0;
  while (writer.push()) pushed++;
  assertEquals([pushed, reader.waiting, reader.dropped], [4096, 4096, 1]);
});
