/** A successor takes over where it can serve as its predecessor does, and not before. */
import { assertEquals, assertRejects } from "@std/assert";
import { MeshError } from "../../../base/errors.ts";
import { Logger } from "../../../base/log.ts";
import { ownNetns } from "../../../os/netns.ts";
import { createTables, openTables } from "../../tables/handles.ts";
import { acquireIdentity, putContext, putFailure } from "../../tables/identities.ts";
import { POD } from "../../tables/layout.ts";
import { Inheritance, type InheritanceOptions } from "./inheritance.ts";

const SIZES = { workers: 1, pods: 4, identities: 2, flowsPerWorker: 4, connectionsPerWorker: 4, snapshotBytes: 4096 };
const URI = "spiffe://cluster.local/ns/test/sa/test", POD_ROW = 2, PREDECESSORS_ROW = 3;

/** One pod whose certificate the CA has refused so far. */
function scene() {
  const tables = openTables(createTables(SIZES)), identity = acquireIdentity(tables.identities, URI);
  tables.pods.set(POD_ROW, POD.identityRow, identity);
  putFailure(tables.identities, identity, "the CA is down");
  let published = 0;
  const parts = {
    pods: { adoptPod: () => Promise.resolve(), list: () => new Map([["uid", { row: POD_ROW }]]) },
    zds: { adopt: () => {}, disown: () => Promise.resolve() },
    publisher: { published: () => Promise.resolve(published++) },
  } as unknown as Pick<InheritanceOptions, "pods" | "zds" | "publisher">;
  const log = new Logger("test", { sink: () => {} });
  const inheritance = new Inheritance({ ...parts, tables, log, readyTimeoutMs: 50 });
  return { tables, identity, inheritance, published: () => published };
}

function offer(certified: boolean) {
  const info = { name: "pod", namespace: "test", serviceAccount: "test" };
  const dnsSockets: number[] = [];
  return [{ row: PREDECESSORS_ROW, uid: "uid", info, transparent: true, certified, netns: ownNetns(), dnsSockets }];
}

Deno.test("prepare() fails where only the successor lacks a pod's certificate, and the predecessor serves on", async () => {
  const { inheritance, published } = scene(), [pod] = offer(true);
  await assertRejects(() => inheritance.prepare([pod!]), MeshError, "1 pods that the predecessor has one for");
  assertEquals(published(), 0);
  pod!.netns[Symbol.dispose]();
});

Deno.test("prepare() goes on once the certificate comes, and at once where the predecessor has none either", async () => {
  const { tables, identity, inheritance } = scene(), [pod] = offer(true);
  putContext(tables.identities, identity, 4_096, Number.MAX_SAFE_INTEGER);
  assertEquals(await inheritance.prepare([pod!]), new Map([[PREDECESSORS_ROW, POD_ROW]]));
  const [other] = offer(false), without = scene();
  assertEquals(await without.inheritance.prepare([other!]), new Map([[PREDECESSORS_ROW, POD_ROW]]));
  for (const it of [pod!, other!]) it.netns[Symbol.dispose]();
});
