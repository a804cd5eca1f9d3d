/**
 * A folder of Kubernetes YAML as a source of objects. It looks at the folder's state, never at what an event said: a
 * watch only says when to look, and a periodic pass finds what a watch misses.
 */
import { assert } from "../../base/assert.ts";
import { chain, MeshError } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import type { ObjectChange } from "../objects.ts";
import { Claims } from "./claims.ts";
import { FILE_BYTES_MAX, type FileState, readFileState, type Refusal, unreadable } from "./file_state.ts";
import { FolderWatch } from "./folder_watch.ts";
import { listFolder, type Listing, type Signature, signatureAt } from "./listing.ts";

export type { Refusal } from "./file_state.ts";

export interface FolderSourceOptions {
  readonly log: Logger;
  /** Called with every batch of changes, in one stable order; never with none. Must not throw. */
  readonly onChange: (changes: readonly ObjectChange[]) => void;
  /** Called once for each refusal that is new. */
  readonly onRefused: (refusal: Refusal) => void;
  /** How long a file must keep still before it is read, or stay away before it counts as deleted. */
  readonly settleMs?: number;
  /** How often the folder is looked at without being told to. */
  readonly rescanMs?: number;
}

/** A file whose newest state has not been taken yet. */
interface Unsettled {
  /** Undefined: the file is gone. */
  readonly signature: string | undefined;
  readonly sinceMs: number;
}

// Editors truncate and write, or move away and into place, within a few milliseconds.
const SETTLE_MS = 150;
const RESCAN_MS = 10_000;
// A file that never keeps still must not hold up the start: it is left for later.
const START_PASSES_MAX = 20;

/** Reads a folder, keeps watching it, and tells what changed. See {@link FolderSource.start}. */
export class FolderSource {
  readonly directory: string;
  readonly #options: Required<FolderSourceOptions>;
  readonly #claims = new Claims();
  readonly #taken = new Map<string, string>();
  readonly #unsettled = new Map<string, Unsettled>();
  readonly #told = new Set<string>();
  #failures: ReadonlyMap<string, string> = new Map();
  #watch: FolderWatch | undefined;
  #reachable = true;
  #stopped: Promise<void> | undefined;

  constructor(directory: string, options: FolderSourceOptions) {
    this.directory = directory;
    this.#options = { settleMs: SETTLE_MS, rescanMs: RESCAN_MS, ...options };
  }

  /**
   * Loads the folder and goes on watching it until the signal. @returns Once everything that is there has been reported.
   * Throws MeshError AMB0350 if the folder cannot be read. Call it once.
   */
  async start(signal: AbortSignal): Promise<void> {
    assert(this.#watch === undefined, "a folder source is started once");
    this.#options.log.info("watching a folder of Kubernetes objects", { directory: this.directory });
    const watch = this.#watch = new FolderWatch(this.directory, this.#options.log);
    try {
      await watch.renew();
      for (let pass = 0; pass < START_PASSES_MAX && !signal.aborted; pass++) {
        if (await this.#pass(true)) break;
        await watch.pause(this.#options.settleMs, signal);
      }
    } catch (error) {
      watch.close();
      throw error;
    }
    this.#stopped = this.#follow(watch, signal);
    this.#options.log.info("folder loaded", {
      directory: this.directory,
      files: this.#taken.size,
      objects: this.#claims.objectCount,
      refusals: this.refusals().length,
    });
  }

  /** Resolves when the source has stopped after its signal; nothing is reported afterwards. */
  get stopped(): Promise<void> {
    return this.#stopped ?? Promise.resolve();
  }

  /** Everything in the folder that is not in force as written, by file and line. */
  refusals(): Refusal[] {
    const failures = [...this.#failures].map(([file, reason]): Refusal => ({
      file,
      line: 1,
      field: "",
      reason: `cannot be read: ${reason}`,
      key: undefined,
      previousKept: [...this.#taken.keys()].some((path) => isAtOrUnder(path, file)),
    }));
    return [...this.#claims.refusals(), ...failures];
  }

  async #follow(watch: FolderWatch, signal: AbortSignal): Promise<void> {
    try {
      let still = this.#unsettled.size === 0;
      while (!signal.aborted) {
        const woken = await watch.wait(still ? this.#options.rescanMs : this.#options.settleMs, signal);
        // What woke us is most likely not over: look once it is.
        if (woken && !signal.aborted) await watch.pause(this.#options.settleMs, signal);
        if (signal.aborted) break;
        await watch.renew();
        still = await this.#pass(false);
      }
    } finally {
      watch.close();
    }
  }

  /** Looks at the folder once and takes what has settled. @returns Whether nothing is left that has not. */
  async #pass(first: boolean): Promise<boolean> {
    let listing: Listing;
    try {
      listing = await listFolder(this.directory);
    } catch (error) {
      this.#unreachable(error, first);
      return true;
    }
    if (!this.#reachable) this.#options.log.info("folder can be read again", { directory: this.directory });
    this.#reachable = true;
    this.#failures = listing.failures;
    const states = new Map<string, FileState | undefined>();
    for (const [path, signature] of listing.files) {
      if (!this.#hasSettled(path, signature)) continue;
      const state = await this.#read(path, signature);
      if (state === undefined) continue;
      this.#unsettled.delete(path);
      this.#taken.set(path, signature.text);
      states.set(path, state);
    }
    for (const path of this.#taken.keys()) {
      if (listing.files.has(path) || !this.#isGone(path)) continue;
      this.#unsettled.delete(path);
      this.#taken.delete(path);
      states.set(path, undefined);
    }
    for (const path of this.#unsettled.keys()) {
      if (!listing.files.has(path) && !this.#taken.has(path)) this.#unsettled.delete(path); // Came and went.
    }
    this.#report(states);
    return this.#unsettled.size === 0;
  }

  #unreachable(error: unknown, first: boolean): void {
    if (!(error instanceof Error)) throw error;
    if (first) {
      throw new MeshError("AMB0350", `reading the folder ${this.directory}`, {
        remedy: "Create the folder, and let this process read it.",
        cause: error,
      });
    }
    if (this.#reachable) {
      this.#options.log.warn("folder cannot be read; its objects stay", {
        directory: this.directory,
        error: chain(error),
      });
    }
    this.#reachable = false;
  }

  #hasSettled(path: string, signature: Signature): boolean {
    if (this.#taken.get(path) === signature.text) {
      this.#unsettled.delete(path);
      return false;
    }
    const ageMs = Date.now() - signature.changedAtMs;
    return ageMs >= this.#options.settleMs || this.#waited(path, signature.text);
  }

  #isGone(path: string): boolean {
    // In a directory that cannot be listed just now, nothing counts as deleted.
    for (const failed of this.#failures.keys()) if (isAtOrUnder(path, failed)) return false;
    return this.#waited(path, undefined);
  }

  /** Whether the path has been seen in this state for long enough; notes it if this is the first time. */
  #waited(path: string, signature: string | undefined): boolean {
    const seen = this.#unsettled.get(path), nowMs = performance.now();
    if (seen !== undefined && seen.signature === signature) return nowMs - seen.sinceMs >= this.#options.settleMs;
    this.#unsettled.set(path, { signature, sinceMs: nowMs });
    return false;
  }

  /** Reads a file. @returns undefined if it changed, or vanished, meanwhile: then it has not settled. */
  async #read(path: string, signature: Signature): Promise<FileState | undefined> {
    const previous = this.#claims.stateOf(path), full = `${this.directory}/${path}`;
    if (signature.bytes > FILE_BYTES_MAX) {
      return unreadable(path, previous, `is larger than ${FILE_BYTES_MAX} bytes; split it`);
    }
    let bytes: Uint8Array;
    try {
      bytes = await Deno.readFile(full);
    } catch (error) {
      if (!(error instanceof Error)) throw error;
      if (error instanceof Deno.errors.NotFound) return this.#notSettled(path);
      return unreadable(path, previous, `cannot be read: ${error.message}`);
    }
    if (await signatureAt(full) !== signature.text) return this.#notSettled(path);
    const state = readFileState(path, bytes, previous);
    if (state.ignoredKinds.length > 0) {
      this.#options.log.debug("kinds not read", { file: path, kinds: state.ignoredKinds.join(",") });
    }
    return state;
  }

  #notSettled(path: string): undefined {
    this.#unsettled.set(path, { signature: "", sinceMs: performance.now() });
  }

  #report(states: ReadonlyMap<string, FileState | undefined>): void {
    const changes = this.#claims.update(states);
    if (changes.length > 0) this.#options.onChange(changes);
    const refusals = this.refusals(), now = new Set<string>();
    for (const refusal of refusals) {
      const identity = JSON.stringify(refusal);
      now.add(identity);
      if (this.#told.has(identity)) continue;
      const { file, line, field, reason, previousKept } = refusal;
      this.#options.log.warn("document refused", { file, line, field, reason, previousKept });
      this.#options.onRefused(refusal);
    }
    this.#told.clear();
    for (const identity of now) this.#told.add(identity);
  }
}

function isAtOrUnder(path: string, ancestor: string): boolean {
  return path === ancestor || path.startsWith(`${ancestor}/`);
}
