/** What every controller counts, by its name. */
import type { Counter, Metrics } from "../../base/metrics.ts";

/** What became of one write. */
export type WriteResult = "written" | "conflict" | "gone" | "failed";

export class ControllerMetrics {
  readonly #writes: Counter;
  readonly #retries: Counter;
  readonly #drops: Counter;
  readonly #queued = new Map<string, () => number>();

  constructor(metrics: Metrics) {
    this.#writes = metrics.counter("ambit_controller_writes", "Writes to the API server, by controller and result.", {
      labelled: true,
    });
    this.#retries = metrics.counter("ambit_controller_retries", "Objects tried again at once after a failure.", {
      labelled: true,
    });
    this.#drops = metrics.counter(
      "ambit_controller_drops",
      "Objects put off for a minute, having failed time after time.",
      {
        labelled: true,
      },
    );
    metrics.gauge(
      "ambit_controller_queue",
      "Objects that a controller has yet to look at.",
      () => [...this.#queued].map(([controller, read]) => [{ controller }, read()] as const),
    );
  }

  wrote(controller: string, result: WriteResult): void {
    this.#writes.increment({ controller, result });
  }

  retried(controller: string): void {
    this.#retries.increment({ controller });
  }

  dropped(controller: string): void {
    this.#drops.increment({ controller });
  }

  /** Reads the length of a controller's queue from here on. */
  watchQueue(controller: string, read: () => number): void {
    this.#queued.set(controller, read);
  }

  writes(controller: string, result: WriteResult): number {
    return this.#writes.get({ controller, result });
  }
}
