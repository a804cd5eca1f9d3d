/** A ztunnel at its start, before one that does not hand over; and what one leaves that ends. */
import { assertEquals, assertRejects } from "@std/assert";
import { MeshError } from "../../../base/errors.ts";
import { Logger } from "../../../base/log.ts";
import { SeqpacketListener } from "../../../os/seqpacket.ts";
import { createTables, openTables } from "../../tables/handles.ts";
import { encodeMessage, PACKET_BYTES_MAX } from "./messages.ts";
import { Succession, type SuccessionOptions } from "./succession.ts";

const SIZES = { workers: 1, pods: 4, identities: 2, flowsPerWorker: 4, connectionsPerWorker: 4, snapshotBytes: 4096 };

function successionAt(path: string, goesOnBeside: boolean): Succession {
  const tables = openTables(createTables(SIZES)), log = new Logger("test", { sink: () => {} });
  const parts = { workers: { count: 1 }, pods: {}, zds: {}, publisher: {} } as unknown as SuccessionOptions;
  return new Succession({ ...parts, path, program: "test", tables, goesOnBeside, log });
}

Deno.test("Succession starts beside a predecessor that refuses where it may, and ends with AMB2420 where not", async () => {
  const folder = await Deno.makeTempDir(), path = `${folder}/takeover.sock`;
  const listener = SeqpacketListener.listen(path, { mode: 0o600 });
  const refuse = async () => {
    const socket = (await listener.accept())!;
    await socket.receiveLoaded(PACKET_BYTES_MAX, { timeoutMs: 60_000 });
    await socket.sendLoaded(encodeMessage({ kind: "refused", reason: "another format" }), []);
    await socket.close();
  };
  const refusals = refuse().then(refuse);
  await using ends = successionAt(path, false);
  await using goesOn = successionAt(path, true);
  assertEquals((await assertRejects(() => ends.takeOver(), MeshError)).code, "AMB2420");
  assertEquals(await goesOn.takeOver(), false);
  await refusals;
  await listener.close();
  await Deno.remove(folder, { recursive: true });
});

Deno.test("Succession that ends without a successor takes its socket with it", async () => {
  const folder = await Deno.makeTempDir();
  {
    await using succession = successionAt(`${folder}/takeover.sock`, false);
    await succession.awaitSuccessor(false);
    assertEquals([...Deno.readDirSync(folder)].map(({ name }) => name), ["takeover.sock"]);
  }
  assertEquals([...Deno.readDirSync(folder)], []);
  await Deno.remove(folder, { recursive: true });
});
