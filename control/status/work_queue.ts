/** Keys to look at: each once however often it was added, again after a failure, and not without end (CP-106). */
import { chain } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import { KubeError, KubeUnreachable } from "../../kube/api.ts";
import { KeyQueue } from "../../kube/key_queue.ts";
import { type Clock, SYSTEM_CLOCK } from "./clock.ts";
import type { ControllerMetrics } from "./controller_metrics.ts";

export interface WorkQueueOptions {
  /** The controller's name in logs and metrics. */
  readonly name: string;
  /** Looks at the state of one key and does what is to be done. May throw KubeError or KubeUnreachable. */
  readonly reconcile: (key: string) => Promise<void>;
  readonly metrics: ControllerMetrics;
  readonly log: Logger;
  readonly clock?: Clock;
}

const RETRIES_MAX = 5;
const RETRY_BASE_MS = 5; // 5, 10, 20, 40, 80
const PARKED_MS = 60_000; // An outage outlasts the retries; without this its writes were lost until something changes.
const WORKERS = 4; // One call takes milliseconds, and ten thousand objects wait when a leader begins.

/** Work of one leader's term: make it, add to it, run it until the term ends. */
export class WorkQueue {
  readonly #options: WorkQueueOptions;
  readonly #clock: Clock;
  readonly #queue: KeyQueue;
  readonly #failures = new Map<string, number>();

  constructor(options: WorkQueueOptions) {
    this.#options = options;
    this.#clock = options.clock ?? SYSTEM_CLOCK;
    this.#queue = new KeyQueue(WORKERS, (key, signal) => this.#work(key, signal));
  }

  get size(): number {
    return this.#queue.size;
  }

  add(key: string): void {
    this.#queue.add(key);
  }

  /** Works until the signal; resolves once no call is under way any more. */
  async run(signal: AbortSignal): Promise<void> {
    await this.#queue.run(signal);
  }

  async #work(key: string, signal: AbortSignal): Promise<void> {
    const failed = await this.#try(key);
    if (failed !== undefined) this.#fail(key, failed, signal);
    else this.#failures.delete(key);
  }

  async #try(key: string): Promise<Error | undefined> {
    const { name, metrics, reconcile } = this.#options;
    try {
      await reconcile(key);
      return undefined;
    } catch (error) {
      if (!(error instanceof KubeError || error instanceof KubeUnreachable)) throw error;
      if (error instanceof KubeError && error.status === 404) {
        metrics.wrote(name, "gone"); // Final: its removal is on its way to us (CP-276).
        return undefined;
      }
      metrics.wrote(name, error instanceof KubeError && error.status === 409 ? "conflict" : "failed");
      return error;
    }
  }

  #fail(key: string, error: Error, signal: AbortSignal): void {
    const { name, metrics, log } = this.#options, failures = (this.#failures.get(key) ?? 0) + 1;
    if (failures <= RETRIES_MAX) {
      this.#failures.set(key, failures);
      metrics.retried(name);
      this.#later(key, RETRY_BASE_MS * 2 ** (failures - 1), signal);
      return;
    }
    this.#failures.delete(key);
    metrics.dropped(name);
    log.error("cannot write to the API server", { controller: name, object: key, error: chain(error) });
    this.#later(key, PARKED_MS, signal);
  }

  #later(key: string, ms: number, signal: AbortSignal): void {
    void this.#clock.wait(ms, signal).then(() => {
      if (!signal.aborted) this.add(key);
    });
  }
}
