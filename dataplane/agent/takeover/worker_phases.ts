/** Asks all workers for a phase of a takeover, and waits until each has reached it. */
import { readMemoryFile } from "../../../os/memory_file.ts";
import { closeFd } from "../../../os/sockets.ts";
import { TAKEOVER, TakeoverPhase } from "../../tables/layout.ts";
import type { Tables } from "../../tables/handles.ts";
import { LISTENING_CODEC } from "../../tables/takeover_format.ts";

const LOOK_MS = 1;

/** What is needed of the worker pool. */
export interface Wakes {
  readonly count: number;
  wake(worker: number): void;
}

export class WorkerPhases {
  readonly #tables: Tables;
  readonly #workers: Wakes;

  constructor(tables: Tables, workers: Wakes) {
    this.#tables = tables;
    this.#workers = workers;
  }

  get count(): number {
    return this.#workers.count;
  }

  /**
   * @returns undefined once all are there; else why it did not come to that: the caller asks for another phase then. To go
   * on as if nothing had been cannot fail: a worker that says so speaks of the phase before.
   */
  async reach(phase: TakeoverPhase, timeoutMs: number): Promise<string | undefined> {
    const { takeover } = this.#tables, deadline = performance.now() + timeoutMs;
    for (let worker = 0; worker < this.count; worker++) {
      takeover.store(worker, TAKEOVER.asked, phase);
      this.#workers.wake(worker);
    }
    for (let worker = 0; worker < this.count;) {
      const reached = takeover.load(worker, TAKEOVER.reached);
      if (reached === phase) worker++;
      else if (reached === TakeoverPhase.FAILED && phase !== TakeoverPhase.RUN) return this.#reasonOf(worker);
      else if (performance.now() > deadline) return `worker ${worker} did not answer within ${timeoutMs} ms`;
      else await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
    }
    return undefined;
  }

  /** What the workers have adopted to listen on, once all are live: pods by their rows, with our own descriptors. */
  listening(): ReadonlyMap<number, readonly number[]> {
    const { takeover } = this.#tables, byRow = new Map<number, number[]>();
    for (let worker = 0; worker < this.count; worker++) {
      const fd = takeover.getI32(worker, TAKEOVER.listeningFd);
      if (fd < 0) continue;
      const bytes = readMemoryFile(fd), told = bytes && LISTENING_CODEC.decode(bytes);
      closeFd(fd);
      for (const { pod, fd } of told?.sockets ?? []) byRow.set(pod, [...byRow.get(pod) ?? [], fd]);
    }
    return byRow;
  }

  #reasonOf(worker: number): string {
    const { takeover } = this.#tables;
    const bytes = takeover.readBytes(worker, TAKEOVER.reason, takeover.get(worker, TAKEOVER.reasonBytes));
    return new TextDecoder().decode(bytes);
  }
}
