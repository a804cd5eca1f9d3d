/** A worker's first and only message: opens the real system and OpenSSL, then turns until it is told to stop. */
/// <reference no-default-lib="true" />
/// <reference lib="deno.worker" />
import { MeshError } from "../../base/errors.ts";
import { Ring } from "../../base/shm/ring.ts";
import { Arena } from "../../os/arena.ts";
import { LinuxOs } from "../../os/libc.ts";
import { createMemoryFile, readMemoryFile } from "../../os/memory_file.ts";
import { OpenSsl } from "../../os/openssl.ts";
import { AccessWriter } from "../tables/access.ts";
import { FlowTable } from "../tables/flows.ts";
import { openCommandRing, openRequestRing, openTables } from "../tables/handles.ts";
import { WORKER } from "../tables/layout.ts";
import { SnapshotReader } from "../tables/lookup.ts";
import { QuestionWriter } from "../tables/questions.ts";
import { Inbox } from "./commands.ts";
import { POLL_IN } from "./reactor.ts";
import { Shard } from "./shard.ts";
import { HANDOVER_ENTRIES, HANDOVER_WORDS, type WorkerStart } from "./start.ts";
import { type StateFiles, TakeoverPhases } from "./takeover/phases.ts";

const STATE_FILES: StateFiles = {
  write(bytes) {
    try {
      return createMemoryFile("ambit-takeover", bytes);
    } catch (error) {
      if (error instanceof MeshError) return -1;
      throw error;
    }
  },
  read: readMemoryFile,
};

function run(start: WorkerStart): void {
  const { handles, options, wakeFds, handoverBytes } = start, { worker } = options;
  const os = new LinuxOs(new Arena(start.memoryBytes, { hugePages: false }), options.keepaliveTimes);
  const tables = openTables(handles);
  const workers = wakeFds.length;
  const ring = (from: number, to: number) =>
    new Ring(start.handover, (from * workers + to) * handoverBytes, HANDOVER_ENTRIES, HANDOVER_WORDS, () => {
      os.signalEvent(wakeFds[to]!);
    });
  const outgoing = wakeFds.map((_, to) => ring(worker, to));
  const shared = {
    tables,
    flows: new FlowTable(tables.flows[worker]!, tables.workers, worker),
    access: new AccessWriter(handles, worker),
    view: new SnapshotReader(tables, worker),
    questions: new QuestionWriter(handles, worker, () => os.signalEvent(start.agentFd)),
  };
  const tls = new OpenSsl(os.memory, start.tls);
  const shard = new Shard(os, tls, shared, options, (to, pod, fd, kind) => {
    const record = outgoing[to]!.record;
    record[0] = kind;
    record[1] = pod.row;
    record[2] = pod.epoch;
    record[3] = fd;
    return outgoing[to]!.push();
  });
  const inbox = new Inbox(shard, {
    worker,
    wakeFd: wakeFds[worker]!,
    commands: openCommandRing(handles, worker),
    requests: openRequestRing(handles, worker),
    handovers: wakeFds.map((_, from) => ring(from, worker)),
  });
  shard.reactor.watch(wakeFds[worker]!, POLL_IN, inbox);
  const takeover = new TakeoverPhases(shard, inbox, { worker, wakeFd: wakeFds[worker]!, files: STATE_FILES });
  shard.refresh();
  shard.reactor.run(() => {
    tables.workers.setF64(worker, WORKER.turns, shard.reactor.turns);
    tables.workers.setF64(worker, WORKER.longestTurnUs, shard.reactor.longestTurnMs * 1000);
    tables.workers.setF64(worker, WORKER.slowTurns, shard.reactor.slowTurns);
    shard.refresh();
    takeover.step();
    if (inbox.drained) shard.reactor.running = false;
  });
}

self.onmessage = (message: MessageEvent<WorkerStart>) => {
  run(message.data);
  self.postMessage("stopped"); // Back in Deno's event loop: the shared memory is left alone from here on.
  self.close();
};
