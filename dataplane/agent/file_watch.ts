/** Told when a file may have changed: by its folder's events, and by a look now and then for what gives no event. */
import { chain, ignore } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";

export interface FileWatchOptions {
  /** Runs at the start and after a change, never twice at a time. Must not throw. */
  readonly onChange: () => Promise<void>;
  /** Changes that come within this time of the first are one. */
  readonly debounceMs: () => number;
  /** How often to look without an event. */
  readonly pollMs: number;
  readonly log: Logger;
}

/**
 * A watch over a file and whatever its path leads to. The folder is what is watched, so that a file that is replaced, or
 * that is a link of a volume whose target is swapped, counts as changed too. The folder may be missing at first.
 */
export class FileWatch {
  readonly #path: string;
  readonly #folder: string;
  readonly #options: FileWatchOptions;
  #watcher: Deno.FsWatcher | undefined;
  /** The folder that the watcher looks at. */
  #watched = "";
  #seen = "";
  #debounce: ReturnType<typeof setTimeout> | undefined;
  #poll: ReturnType<typeof setTimeout> | undefined;
  #closed = false;
  #running: Promise<void> = Promise.resolve();

  constructor(path: string, options: FileWatchOptions) {
    this.#path = path;
    const slash = path.lastIndexOf("/");
    this.#folder = slash < 0 ? "." : slash === 0 ? "/" : path.slice(0, slash);
    this.#options = options;
  }

  /** Begins to watch, and then calls for what is there now, so that no change goes unseen. */
  async start(): Promise<void> {
    await this.#watch();
    this.#pollLater();
    await this.#call();
  }

  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#debounce);
    clearTimeout(this.#poll);
    this.#watcher?.close();
    await this.#running;
  }

  #pollLater(): void {
    if (this.#closed) return;
    this.#poll = setTimeout(async () => {
      await this.#watch();
      if (await stampOf(this.#path) !== this.#seen) this.#changed(); // Also where the path leads elsewhere without an event.
      this.#pollLater();
    }, this.#options.pollMs);
  }

  /** Watches the folder that the path leads to now. */
  async #watch(): Promise<void> {
    const identity = await stampOf(this.#folder, false);
    if (this.#closed || identity === this.#watched) return;
    this.#watcher?.close();
    this.#watcher = undefined;
    this.#watched = identity;
    if (identity === "") return;
    try {
      this.#watcher = Deno.watchFs(this.#folder, { recursive: false });
    } catch (error) {
      if (!(error instanceof Error)) throw error;
      const { log, pollMs } = this.#options;
      log.warn("a folder cannot be watched; it is looked at instead", {
        folder: this.#folder,
        everyMs: pollMs,
        error: chain(error),
      });
      return;
    }
    ignore(this.#pump(this.#watcher), "it ends when the watcher is closed");
  }

  async #pump(watcher: Deno.FsWatcher): Promise<void> {
    for await (const { kind } of watcher) if (kind !== "access") this.#changed(); // Reading is no change.
  }

  #changed(): void {
    if (this.#closed) return;
    this.#debounce ??= setTimeout(() => {
      this.#debounce = undefined;
      ignore(this.#call(), "closing waits for it");
    }, this.#options.debounceMs());
  }

  #call(): Promise<void> {
    return this.#running = this.#running.then(async () => {
      this.#seen = await stampOf(this.#path);
      if (!this.#closed) await this.#options.onChange();
    });
  }
}

/** What changes with a file. @returns "" if there is none. */
async function stampOf(path: string, withContent = true): Promise<string> {
  try {
    const { dev, ino, size, mtime } = await Deno.stat(path);
    return withContent ? `${dev}:${ino}:${size}:${mtime?.getTime()}` : `${dev}:${ino}`;
  } catch (error) {
    ignore(error, "missing, or not to be reached: to be looked at again");
    return "";
  }
}
