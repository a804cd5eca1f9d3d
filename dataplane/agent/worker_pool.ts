/** The node's workers: starts them, tells them things, and reports one that ends when it should not. */
import { assert } from "../../base/assert.ts";
import { MeshError } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import { type Ring, ringBytes } from "../../base/shm/ring.ts";
import { closeFd, createEventFd, signalEventFd } from "../../os/sockets.ts";
import { openCommandRing, openRequestRing, pushWords, type TableHandles, type Tables } from "../tables/handles.ts";
import { Command, Request, REQUEST_WORDS } from "../tables/layout.ts";
import type { SnapshotWriter } from "../tables/publish.ts";
import type { ShardOptions } from "../worker/shard_options.ts";
import { HANDOVER_ENTRIES, HANDOVER_WORDS, type WorkerStart } from "../worker/start.ts";

const DONE_POLL_MS = 5, DONE_TIMEOUT_MS = 4_000; // The node agent waits 5 s for an acknowledgement.

export class WorkerPool {
  readonly count: number;
  readonly #log: Logger;
  readonly #wakeFds: readonly number[];
  readonly #commands: readonly Ring[];
  readonly #requests: readonly Ring[];
  readonly #workers: Worker[] = [];
  readonly #stopped: Promise<void>[] = [];
  /** Commands carried out, by `command/argument/argument`: how many workers have said so. */
  readonly #done = new Map<string, number>();
  #ending = false;
  /** Rejects when a worker dies: the process cannot serve its pods any more. */
  readonly failure = Promise.withResolvers<never>();

  constructor(handles: TableHandles, tables: Tables, log: Logger) {
    this.count = tables.workers.rowCount;
    this.#log = log;
    this.#wakeFds = Array.from({ length: this.count }, createEventFd);
    this.#commands = this.#wakeFds.map((fd, worker) => openCommandRing(handles, worker, () => signalEventFd(fd)));
    this.#requests = this.#wakeFds.map((_, worker) => openRequestRing(handles, worker));
    this.failure.promise.catch(() => {}); // Whoever awaits it sees it; nobody awaiting it is no second failure.
  }

  /** Starts all workers; each serves from its first turn on. */
  start(
    handles: TableHandles,
    snapshots: SnapshotWriter,
    options: Omit<ShardOptions, "worker">,
    own: Pick<WorkerStart, "memoryBytes" | "agentFd" | "tls">,
  ): void {
    const handoverBytes = Math.ceil(ringBytes(HANDOVER_ENTRIES, HANDOVER_WORDS) / 64) * 64;
    const handover = new SharedArrayBuffer(handoverBytes * this.count * this.count);
    for (let worker = 0; worker < this.count; worker++) {
      snapshots.admit(worker);
      const thread = new Worker(new URL("../worker/entry.ts", import.meta.url), { type: "module" });
      const stopped = Promise.withResolvers<void>();
      thread.onmessage = () => {
        snapshots.dismiss(worker);
        stopped.resolve();
      };
      thread.onerror = (event) => {
        event.preventDefault();
        snapshots.dismiss(worker);
        stopped.resolve();
        this.#log.error("a worker ended", { worker, error: event.message });
        if (this.#ending) return;
        this.failure.reject(
          new MeshError("AMB2401", `worker ${worker} ended: ${event.message}`, {
            remedy: "this is a mistake of ztunnel itself; report it with the log",
          }),
        );
      };
      const start: WorkerStart = {
        handles,
        options: { ...options, worker },
        wakeFds: this.#wakeFds,
        handover,
        handoverBytes,
        ...own,
      };
      thread.postMessage(start);
      this.#workers.push(thread);
      this.#stopped.push(stopped.promise);
    }
  }

  /** Wakes a worker that may sleep, so that it looks at the snapshot. */
  wake(worker: number): void {
    signalEventFd(this.#wakeFds[worker]!);
  }

  /** Tells one worker. */
  tell(worker: number, command: number, word1 = 0, word2 = 0, word3 = 0): void {
    // A full ring means a worker that has not turned for thousands of commands: it is as good as dead.
    assert(pushWords(this.#commands[worker]!, command, word1, word2, word3), "a worker reads its commands");
  }

  /** Gives one worker the answer to its question. One that has ended wants none. */
  answer(worker: number, number: number, status: number, ip: readonly [number, number, number, number]): void {
    const [word0, word1, word2, word3] = ip;
    const told = pushWords(this.#commands[worker]!, Command.ANSWER, number, status, word0, word1, word2, word3);
    assert(told || this.#ending, "a worker has room for the answers to what it asked"); // QUESTIONS_MAX of the worker
  }

  tellAll(command: number, word1 = 0, word2 = 0, word3 = 0): void {
    for (let worker = 0; worker < this.count; worker++) this.tell(worker, command, word1, word2, word3);
  }

  /** Tells all workers and waits until each has carried it out. @throws MeshError AMB2402 after 4 s. */
  async tellAllAndWait(command: number, word1: number, word2: number): Promise<void> {
    const key = `${command}/${word1}/${word2}`;
    this.#done.set(key, 0);
    this.tellAll(command, word1, word2);
    try {
      for (let waitedMs = 0; waitedMs < DONE_TIMEOUT_MS; waitedMs += DONE_POLL_MS) {
        this.readRequests();
        if (this.#done.get(key)! >= this.count) return;
        await new Promise((resolve) => setTimeout(resolve, DONE_POLL_MS));
      }
    } finally {
      this.#done.delete(key);
    }
    throw new MeshError("AMB2402", `a worker did not carry out command ${command} within ${DONE_TIMEOUT_MS} ms`, {
      remedy: "the node is overloaded; give ztunnel more CPU",
    });
  }

  /** Takes in what workers have said. */
  readRequests(): void {
    const record = new Int32Array(REQUEST_WORDS);
    for (const ring of this.#requests) {
      while (ring.pop(record)) {
        if (record[0] !== Request.DONE) continue;
        const key = `${record[2]}/${record[3]}/${record[4]}`;
        const count = this.#done.get(key);
        if (count !== undefined) this.#done.set(key, count + 1);
      }
    }
  }

  /** Lets workers end what runs, at most until the deadline, and waits for them. */
  async drain(deadlineMs: number): Promise<void> {
    this.#ending = true;
    this.tellAll(Command.DRAIN, deadlineMs);
    await Promise.all(this.#stopped);
    this.#close();
  }

  /** Ends all workers now. */
  async stop(): Promise<void> {
    this.#ending = true;
    this.tellAll(Command.STOP);
    await Promise.all(this.#stopped);
    this.#close();
  }

  #close(): void {
    for (const fd of this.#wakeFds) closeFd(fd);
  }
}
