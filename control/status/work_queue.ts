/** Keys to look at: each once however often it was added, again after a failure, and not without end (CP-106). */
import { chain } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import { KubeError, KubeUnreachable } from "../../kube/api.ts";
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
  /** Waiting, in order of their first addition. */
  readonly #waiting = new Set<string>();
  readonly #active = new Set<string>();
  /** Added while it was active: looked at again, since what was read may be old. */
  readonly #again = new Set<string>();
  readonly #failures = new Map<string, number>();
  readonly #wakes: (() => void)[] = [];

  constructor(options: WorkQueueOptions) {
    this.#options = options;
    this.#clock = options.clock ?? SYSTEM_CLOCK;
  }

  get size(): number {
    return this.#waiting.size + this.#active.size + this.#again.size;
  }

  add(key: string): void {
    if (this.#active.has(key)) this.#again.add(key);
    else this.#waiting.add(key);
    this.#wakes.shift()?.();
  }

  /** Works until the signal; resolves once no call is under way any more. */
  async run(signal: AbortSignal): Promise<void> {
    const wakeAll = () => {
      for (const wake of this.#wakes.splice(0)) wake();
    };
    signal.addEventListener("abort", wakeAll, { once: true });
    await Promise.all(Array.from({ length: WORKERS }, () => this.#work(signal)));
  }

  async #work(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const [key] = this.#waiting;
      if (key === undefined) {
        await new Promise<void>((resolve) => this.#wakes.push(resolve));
        continue;
      }
      this.#waiting.delete(key);
      this.#active.add(key);
      const failed = await this.#try(key);
      this.#active.delete(key);
      if (failed !== undefined) this.#fail(key, failed, signal);
      else this.#failures.delete(key);
      if (this.#again.delete(key)) this.add(key);
    }
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
