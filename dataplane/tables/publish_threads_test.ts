import { assert, assertEquals } from "@std/assert";
import { createTables, openTables } from "./handles.ts";
import { SnapshotWriter } from "./publish.ts";
import { ipv4, SampleMesh, workloadOf } from "./testing.ts";

/** A thread that takes turns as a worker does, and reports the first generation that it sees in parts. */
const TURNS = `
import { openTables } from "${new URL("./handles.ts", import.meta.url)}";
import { SnapshotReader } from "${new URL("./lookup.ts", import.meta.url)}";
self.onmessage = ({ data: { handles, worker, until, count } }) => {
  const reader = new SnapshotReader(openTables(handles), worker);
  let seen = 0, torn = "";
  while (reader.generation < until && torn === "") {
    if (!reader.refresh()) continue;
    seen++;
    const of = new Set();
    for (let at = 0; at < count; at++) of.add(reader.workloadAt("", 0, 0, 0xffff, at)?.canonicalName ?? "none");
    if (of.size !== 1) torn = reader.generation + ": " + [...of].join();
  }
  self.postMessage({ seen, torn });
};`;

Deno.test("threads that read while snapshots follow each other see each one whole", async () => {
  const workers = 2, until = 400, count = 50;
  const handles = createTables({
    pods: 1,
    identities: 1,
    flowsPerWorker: 4,
    connectionsPerWorker: 4,
    workers,
    snapshotBytes: 1024 * 1024,
  });
  const tables = openTables(handles), mesh = new SampleMesh();
  const writer = new SnapshotWriter(tables, () => {}, 99);
  for (let worker = 0; worker < workers; worker++) writer.admit(worker);
  const url = URL.createObjectURL(new Blob([TURNS], { type: "application/typescript" }));
  const threads = Array.from({ length: workers }, () => new Worker(url, { type: "module" }));
  try {
    const ended = threads.map((thread, worker) =>
      new Promise<{ seen: number; torn: string }>((done) => {
        thread.onmessage = ({ data }) => done(data);
        thread.postMessage({ handles, worker, until, count });
      })
    );
    const results = Promise.all(ended).then((all) => all);
    let done = false;
    results.finally(() => done = true);
    const deadlineMs = performance.now() + 60_000;
    while (writer.generation < until && !done) {
      assert(performance.now() < deadlineMs, "the threads keep up in time");
      if (!writer.canPublish()) {
        await new Promise<void>((next) => setTimeout(next, 0)); // Lets a thread's message in; the state decides.
        continue;
      }
      const round = writer.generation + 1;
      for (let at = 0; at < count; at++) {
        mesh.putWorkload(
          workloadOf(`w${at}`, { addresses: [ipv4(at)], canonicalName: `v${round}${"x".repeat(round % 90)}` }),
        );
      }
      writer.publish(mesh);
    }
    for (const { seen, torn } of await results) {
      assertEquals(torn, "");
      assertEquals(seen, until, "no generation is published before the last one was seen");
    }
  } finally {
    for (const thread of threads) thread.terminate();
    URL.revokeObjectURL(url);
  }
});
