/** Notices at once what others do to the rules of enrolled namespaces: a firewall that is started anew empties the host's (CNI-097). */
import { chain, MeshError } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import type { Netns } from "../../os/netns.ts";
import { ChangeWatch } from "../change_watch.ts";

/** On a host others write rules all day long: no more than one look a second for that. */
const REST_MS = 1_000;

export interface NamespaceWatchOptions {
  /** Somebody should look whether all is as it should be. */
  readonly onChange: () => void;
  readonly log: Logger;
}

/** Without it the audit finds out by itself, only later: so a namespace that cannot be watched is no failure. */
export class NamespaceWatch implements AsyncDisposable {
  readonly #options: NamespaceWatchOptions;
  readonly #changes = new ChangeWatch();
  readonly #watched = new Map<string, Disposable>();

  constructor(options: NamespaceWatchOptions) {
    this.#options = options;
  }

  /** Watches these namespaces and no others; they stay the caller's. */
  watch(namespaces: readonly Netns[]): void {
    const wanted = new Map(namespaces.map((netns) => [`${netns.device}:${netns.inode}`, netns]));
    for (const [key, watching] of [...this.#watched]) {
      if (wanted.has(key)) continue;
      watching[Symbol.dispose]();
      this.#watched.delete(key);
    }
    for (const [key, netns] of wanted) {
      if (this.#watched.has(key)) continue;
      try {
        const { onChange } = this.#options;
        this.#watched.set(key, this.#changes.watch(netns, onChange, ["firewall", "routes"], REST_MS));
      } catch (error) {
        if (!(error instanceof MeshError)) throw error;
        this.#options.log.warn("changes of rules are found by the audit only", { error: chain(error) });
        this.#watched.set(key, { [Symbol.dispose]() {} }); // Said once.
      }
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.watch([]);
    await this.#changes[Symbol.asyncDispose]();
  }
}
