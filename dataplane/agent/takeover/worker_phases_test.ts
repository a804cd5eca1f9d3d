/** What a successor's agent hears of its workers. */
import { assertEquals } from "@std/assert";
import { countDescriptors } from "../../../os/descriptors_testing.ts";
import { createMemoryFile } from "../../../os/memory_file.ts";
import { createTables, openTables } from "../../tables/handles.ts";
import { TAKEOVER } from "../../tables/layout.ts";
import { LISTENING_CODEC } from "../../tables/takeover_format.ts";
import { WorkerPhases } from "./worker_phases.ts";

const WORKERS = 3;
const SIZES = { pods: 4, identities: 2, flowsPerWorker: 4, connectionsPerWorker: 4, snapshotBytes: 4096 };

Deno.test("listening() gathers what each worker has adopted, by pods, and keeps no file", () => {
  const tables = openTables(createTables({ ...SIZES, workers: WORKERS })), name = `listening-${crypto.randomUUID()}`;
  const tell = (worker: number, bytes: Uint8Array<ArrayBuffer>) =>
    tables.takeover.set(worker, TAKEOVER.listeningFd, createMemoryFile(name, bytes));
  tell(0, LISTENING_CODEC.encode({ sockets: [{ pod: 2, fd: 31 }, { pod: 1, fd: 32 }] }));
  tell(1, LISTENING_CODEC.encode({ sockets: [{ pod: 2, fd: 41 }] }));
  tables.takeover.set(2, TAKEOVER.listeningFd, -1);
  const phases = new WorkerPhases(tables, { count: WORKERS, wake: () => {} });
  assertEquals(phases.listening(), new Map([[2, [31, 41]], [1, [32]]]));
  assertEquals(countDescriptors(`/memfd:${name} (deleted)`), 0);
});
