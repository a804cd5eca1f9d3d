import { assertEquals } from "@std/assert";
import { Logger } from "../../base/log.ts";
import { encodeWorkloadAddress } from "../../mesh/proto/workload_codec.ts";
import { createTables, openTables } from "../tables/handles.ts";
import { SnapshotWriter } from "../tables/publish.ts";
import { workloadOf } from "../tables/testing.ts";
import { Publisher } from "./publisher.ts";
import { MeshState } from "./state.ts";

function rig(snapshotBytes: number) {
  const sizes = { workers: 1, pods: 2, identities: 2, flowsPerWorker: 4, connectionsPerWorker: 4, snapshotBytes };
  const writer = new SnapshotWriter(openTables(createTables(sizes)), () => {}, 1), state = new MeshState("");
  const add = (name: string) => {
    state.applyAddresses([{ name, bytes: encodeWorkloadAddress(workloadOf(name)) }], []);
  };
  return { writer, state, add, publisher: new Publisher(writer, state, new Logger("test", { sink: () => {} })) };
}

Deno.test("published() tells when workers can see the state as it was at the call, and asks for no empty publication", async () => {
  const { writer, add, publisher } = rig(1 << 16);
  assertEquals([await publisher.published(), writer.generation], [true, 0]);
  add("one");
  const waiting = [publisher.published(), publisher.published()];
  assertEquals(writer.generation, 0);
  assertEquals([await Promise.all(waiting), writer.generation], [[true, true], 1]);
  add("two");
  publisher.soon();
  assertEquals([await publisher.published(), writer.generation], [true, 2]);
  publisher.stop();
  assertEquals(await publisher.published(), false);
});

Deno.test("published() says no when the mesh does not fit, and again as long as nothing changed: nobody may rely on it", async () => {
  const { add, publisher } = rig(1 << 12);
  for (let nth = 0; nth < 100; nth++) add(`workload-${nth}`);
  assertEquals([await publisher.published(), await publisher.published()], [false, false]);
  publisher.stop();
});

Deno.test("who waits for a publication when everything ends is told no", async () => {
  const { add, publisher } = rig(1 << 16);
  add("one");
  const waiting = publisher.published();
  publisher.stop();
  assertEquals(await waiting, false);
});
