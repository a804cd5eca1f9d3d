/** Waiting for a folder to change, with a deadline: a hint that it is time to look, which may also come for nothing. */
import { chain } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";

/** A watch over one folder. Without a working watch (inotify's limits), waiting just lasts until its deadline. */
export class FolderWatch {
  readonly #directory: string;
  readonly #log: Logger;
  #watcher: Deno.FsWatcher | undefined;
  /** Which directory the watcher looks at: a symbolic link may have been swapped since. */
  #watched = "";
  #woken = false;
  #wake: (() => void) | undefined;

  constructor(directory: string, log: Logger) {
    this.#directory = directory;
    this.#log = log;
  }

  /** Watches whatever the folder's path leads to now. Never throws: a missing folder is the caller's to report. */
  async renew(): Promise<void> {
    try {
      const { dev, ino } = await Deno.stat(this.#directory);
      const identity = `${dev}:${ino}`;
      if (identity === this.#watched) return;
      this.close();
      this.#watcher = Deno.watchFs(this.#directory, { recursive: true });
      this.#watched = identity;
      this.#pump(this.#watcher);
    } catch (error) {
      if (!(error instanceof Error)) throw error;
      if (error instanceof Deno.errors.NotFound) return;
      this.#log.warn("folder cannot be watched; it is looked at from time to time", {
        directory: this.#directory,
        error: chain(error),
      });
    }
  }

  async #pump(watcher: Deno.FsWatcher): Promise<void> {
    for await (const { kind } of watcher) {
      if (kind === "access") continue; // Our own reading.
      this.#woken = true;
      this.#wake?.();
    }
  }

  /** Waits for a change, the deadline or the signal. @returns Whether there was a change, also one since the last wait. */
  async wait(deadlineMs: number, signal: AbortSignal): Promise<boolean> {
    if (!this.#woken) await this.#sleep(deadlineMs, signal, true);
    const woken = this.#woken;
    this.#woken = false;
    return woken;
  }

  /** Lets time pass, whatever changes meanwhile; those changes count as seen. */
  async pause(durationMs: number, signal: AbortSignal): Promise<void> {
    await this.#sleep(durationMs, signal, false);
    this.#woken = false;
  }

  #sleep(durationMs: number, signal: AbortSignal, wakeable: boolean): Promise<void> {
    if (signal.aborted) return Promise.resolve();
    return new Promise((resolve) => {
      const finish = () => {
        clearTimeout(timer);
        signal.removeEventListener("abort", finish);
        this.#wake = undefined;
        resolve();
      };
      const timer = setTimeout(finish, durationMs);
      signal.addEventListener("abort", finish, { once: true });
      if (wakeable) this.#wake = finish;
    });
  }

  close(): void {
    this.#watcher?.close();
    this.#watcher = undefined;
    this.#watched = "";
  }
}
