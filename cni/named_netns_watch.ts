/** Notices at once when a named network namespace loses its name, so that our descriptor does not keep it alive (CNI-278). */
import { chain, ignore } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import { NAMED_NETNS_FOLDER } from "../os/netns.ts";

/** Without it the audit finds out by itself, only later: so a folder that cannot be watched is no failure. */
export class NamedNetnsWatch implements Disposable {
  #watcher: Deno.FsWatcher | undefined;
  #removed = false;
  #listener: (() => void) | undefined;

  constructor(log: Logger) {
    try {
      Deno.mkdirSync(NAMED_NETNS_FOLDER, { recursive: true, mode: 0o755 });
      this.#watcher = Deno.watchFs(NAMED_NETNS_FOLDER, { recursive: false });
    } catch (error) {
      log.info("named network namespaces are not watched", { error: chain(error) });
      return;
    }
    ignore(this.#read(this.#watcher), "it ends with the watcher, and fails only by our own mistake");
  }

  /** Calls `listener` once, at the next removal, or now if there was one since the last call. */
  onRemoved(listener: () => void): void {
    this.#listener = listener;
    if (this.#removed) this.#tell();
  }

  [Symbol.dispose](): void {
    this.#watcher?.close();
    this.#watcher = undefined;
  }

  async #read(watcher: Deno.FsWatcher): Promise<void> {
    for await (const { kind } of watcher) {
      if (kind !== "remove") continue;
      this.#removed = true;
      this.#tell();
    }
  }

  #tell(): void {
    const listener = this.#listener;
    if (listener === undefined) return;
    this.#listener = undefined;
    this.#removed = false;
    listener();
  }
}
