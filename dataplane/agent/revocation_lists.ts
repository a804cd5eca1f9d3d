/** Keeps the revocation lists of the workers in step with their file (ZT-087). */
import { chain, ignore, MeshError } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import { readRevocationLists, releaseLists, retainLists, type RevocationLists } from "../../os/revocation_lists.ts";
import { Command } from "../tables/layout.ts";
import { readCrlFile, splitCrlFile } from "./crl_file.ts";
import { FileWatch } from "./file_watch.ts";

/** As Istio's ztunnel waits (ZT-087), but for a first file, which is wanted at once; how often to look without an event. */
const TIMES = { debounceMs: 2_000, firstMs: 100, pollMs: 10_000 };

/** Tells workers; a {@link WorkerPool} does. */
export interface RevocationWorkers {
  readonly count: number;
  tellAllAndWait(command: number, word1: number, word2: number): Promise<void>;
}

export class RevocationFile {
  readonly #path: string;
  readonly #workers: RevocationWorkers;
  readonly #log: Logger;
  readonly #watch: FileWatch;
  /** What is in force; undefined until a file could be read. */
  #lists: RevocationLists | undefined;

  constructor(
    path: string,
    workers: RevocationWorkers,
    log: Logger,
    { debounceMs, firstMs, pollMs } = TIMES,
  ) {
    this.#path = path;
    this.#workers = workers;
    this.#log = log;
    this.#watch = new FileWatch(path, {
      onChange: () => this.#load(),
      debounceMs: () => this.#lists === undefined ? firstMs : debounceMs,
      pollMs,
      log,
    });
  }

  /** Reads the file and hands its lists to the workers, which run already; then follows its changes. */
  start(): Promise<void> {
    return this.#watch.start();
  }

  async close(): Promise<void> {
    await this.#watch.close();
    if (this.#lists !== undefined) await releaseLists(this.#lists);
    this.#lists = undefined;
  }

  /** Never throws: what cannot be read leaves in force what was. */
  async #load(): Promise<void> {
    const path = this.#path, inForce = this.#lists === undefined ? "none" : "those before";
    try {
      const bytes = await readCrlFile(path);
      if (bytes === undefined) {
        this.#log.warn("there is no file of revocation lists yet", { path, inForce });
        return;
      }
      const ders = splitCrlFile(bytes, path);
      if (ders.length === 0 && bytes.length > 0) this.#log.warn("no block of the file is a revocation list", { path });
      await this.#put(await readRevocationLists(ders));
      this.#log.info("revocation lists in force", { path, lists: ders.length, revoked: this.#lists!.revokedCount });
    } catch (error) {
      if (!(error instanceof MeshError)) throw error;
      this.#log.warn("revocation lists cannot be used", {
        path,
        inForce,
        code: error.code,
        error: chain(error),
        remedy: error.remedy,
      });
    }
  }

  /** When it returns, every worker judges handshakes by the new lists, and looks through its open sessions. */
  async #put(lists: RevocationLists): Promise<void> {
    const before = this.#lists;
    this.#lists = lists;
    for (let worker = 0; worker < this.#workers.count; worker++) retainLists(lists);
    try {
      await this.#workers.tellAllAndWait(Command.REVOCATIONS_CHANGED, lists.handle.low | 0, lists.handle.high | 0);
    } finally {
      // After the workers, so that none of them has a long list to free.
      if (before !== undefined) ignore(releaseLists(before), "another thread frees it");
    }
  }
}
