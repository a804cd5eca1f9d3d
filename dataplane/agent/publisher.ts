/** Publishes the mesh state to the workers: soon after a change, and never while one of them still reads the idle slot. */
import { chain, MeshError } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import type { SnapshotWriter } from "../tables/publish.ts";
import type { MeshState } from "./state.ts";

const DELAY_MS = 5; // Changes that come together are published together.
const RETRY_MS = 2; // Until the last worker has taken a turn.

export class Publisher {
  readonly #snapshots: SnapshotWriter;
  readonly #state: MeshState;
  readonly #log: Logger;
  readonly #onPublished: () => void;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #stopped = false;
  /** Whether the last publication went through: if not, workers see an older state than there is. */
  #fits = true;
  /** Who wait for the next publication. */
  #waiting: ((published: boolean) => void)[] = [];

  constructor(snapshots: SnapshotWriter, state: MeshState, log: Logger, onPublished: () => void = () => {}) {
    this.#snapshots = snapshots;
    this.#state = state;
    this.#log = log;
    this.#onPublished = onPublished;
  }

  /** The state has changed. */
  readonly soon = (): void => {
    this.#timer ??= this.#stopped ? undefined : setTimeout(() => this.#publish(), DELAY_MS);
  };

  /** Publishes without delay. @returns Whether workers now see, or are about to see, the state as it was at the call. */
  published(): Promise<boolean> {
    if (this.#stopped) return Promise.resolve(false);
    const { promise, resolve } = Promise.withResolvers<boolean>();
    this.#waiting.push(resolve);
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#publish(), 0); // What comes in the same turn of the event loop goes along.
    return promise;
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
    this.#settle(false);
  }

  #settle(published: boolean): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const resolve of waiting) resolve(published);
  }

  #publish(): void {
    this.#timer = undefined;
    if (this.#stopped) return;
    if (!this.#state.changed) return this.#settle(this.#fits);
    if (!this.#snapshots.canPublish()) {
      this.#timer = setTimeout(() => this.#publish(), RETRY_MS);
      return;
    }
    try {
      const startedMs = performance.now();
      const generation = this.#snapshots.publish(this.#state);
      this.#fits = true;
      this.#settle(true);
      this.#onPublished();
      this.#log.debug("snapshot published", { generation, ms: Math.round(performance.now() - startedMs) });
    } catch (error) {
      if (!(error instanceof MeshError)) throw error;
      this.#fits = false;
      this.#settle(false);
      this.#log.error("the mesh does not fit the workers' memory; the last snapshot stays in force", {
        error: chain(error),
        remedy: error.remedy,
      });
    }
  }
}
