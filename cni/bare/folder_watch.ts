/** Notices at once what happens in some folders: a namespace loses its name, a control group ends, an enrolment file changes (CNI-278). */
import { chain, ignore } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";

/** Files are written in several steps; one look after the last is enough. */
const SETTLE_MS = 30;

/** Without it the next pass finds out by itself, only later: so a folder that cannot be watched is no failure. */
export class FolderWatch implements Disposable {
  readonly #log: Logger;
  readonly #watchers = new Map<string, { readonly watcher: Deno.FsWatcher; readonly inode: number | null }>();
  readonly #refused = new Set<string>();
  #changed = false;
  #wake: () => void = () => {};

  constructor(log: Logger) {
    this.#log = log;
  }

  /** Watches these folders and no others. One that was removed and made anew is watched anew. */
  watch(folders: readonly string[]): void {
    for (const [folder, { watcher, inode }] of [...this.#watchers]) {
      if (folders.includes(folder) && inodeOf(folder) === inode) continue;
      watcher.close();
      this.#watchers.delete(folder);
    }
    for (const folder of folders) if (!this.#watchers.has(folder)) this.#add(folder);
  }

  /** As if something had changed: the next pass comes at once. */
  poke(): void {
    this.#changed = true;
    this.#wake();
  }

  /** Waits for a change or the interval. @returns False, at once, when the signal aborts. */
  async changed(ms: number, signal: AbortSignal): Promise<boolean> {
    if (!this.#changed) await this.#pause(ms, signal);
    if (this.#changed) await this.#pause(SETTLE_MS, signal, false);
    this.#changed = false;
    return !signal.aborted;
  }

  #pause(ms: number, signal: AbortSignal, endsEarly = true): Promise<void> {
    return new Promise((resolve) => {
      const end = () => {
        clearTimeout(timer);
        signal.removeEventListener("abort", end);
        this.#wake = () => {};
        resolve();
      };
      const timer = setTimeout(end, ms);
      signal.addEventListener("abort", end);
      if (endsEarly) this.#wake = end;
      if (signal.aborted) end();
    });
  }

  [Symbol.dispose](): void {
    for (const { watcher } of this.#watchers.values()) watcher.close();
    this.#watchers.clear();
  }

  #add(folder: string): void {
    try {
      const inode = inodeOf(folder);
      if (inode === undefined) return;
      const watcher = Deno.watchFs(folder, { recursive: false });
      this.#watchers.set(folder, { watcher, inode });
      ignore(this.#read(watcher), "it ends with the watcher, and fails only by our own mistake");
    } catch (error) {
      if (!this.#refused.has(folder)) this.#log.info("folder not watched", { folder, error: chain(error) });
      this.#refused.add(folder);
    }
  }

  async #read(watcher: Deno.FsWatcher): Promise<void> {
    for await (const { kind } of watcher) {
      if (kind === "access") continue;
      this.poke();
    }
  }
}

function inodeOf(folder: string): number | null | undefined {
  try {
    return Deno.statSync(folder).ino;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}
