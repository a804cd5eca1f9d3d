/** Remote clusters by files: a folder of kubeconfigs, each one cluster, called what the file calls its cluster (CP-120). */
import { chain } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import { readTextBounded } from "../../kube/file_credentials.ts";
import { readKubeconfig } from "../../kube/kubeconfig.ts";
import { FolderWatch } from "../folder/folder_watch.ts";
import type { RemoteSecret } from "./remote_secrets.ts";

export interface RemoteFilesOptions {
  readonly folder: string;
  /** Told of all files that can be read, by path, at the start and whenever they have changed. */
  readonly onChange: (files: ReadonlyMap<string, RemoteSecret>) => void;
  readonly log: Logger;
  /** For tests; {@link LOOK_MS} otherwise. */
  readonly lookMs?: number;
}

const SETTLE_MS = 100; // what is written takes a moment to be whole
const LOOK_MS = 5_000; // where nothing tells of changes
const FILES_MAX = 1_000;

interface KnownFile {
  readonly text: string;
  readonly cluster: RemoteSecret | undefined;
}

export class RemoteFiles {
  readonly #options: RemoteFilesOptions;
  readonly #files = new Map<string, KnownFile>();
  /** What could not be read, as it was told. */
  readonly #told = new Map<string, string>();

  constructor(options: RemoteFilesOptions) {
    this.#options = options;
  }

  /** Follows the folder until the signal; a file that cannot be read stays what it was. */
  async run(signal: AbortSignal): Promise<void> {
    const { folder, onChange, log, lookMs = LOOK_MS } = this.#options;
    const watch = new FolderWatch(folder, log);
    try {
      for (let first = true; !signal.aborted; first = false) {
        await watch.renew();
        const changed = await this.#read(folder);
        if (signal.aborted) return;
        if (changed || first) onChange(this.#clusters());
        if (await watch.wait(lookMs, signal)) await watch.pause(SETTLE_MS, signal);
      }
    } finally {
      watch.close();
    }
  }

  #clusters(): ReadonlyMap<string, RemoteSecret> {
    const clusters = new Map<string, RemoteSecret>();
    for (const [path, { cluster }] of this.#files) if (cluster !== undefined) clusters.set(path, cluster);
    return clusters;
  }

  /** @returns Whether a file came, went or says something else. */
  async #read(folder: string): Promise<boolean> {
    const paths = await this.#list(folder);
    if (paths === undefined) return false;
    let changed = false;
    for (const path of [...this.#files.keys()]) {
      if (paths.includes(path)) continue;
      this.#files.delete(path);
      this.#told.delete(path);
      changed = true;
    }
    for (const path of paths) if (await this.#readFile(path)) changed = true;
    return changed;
  }

  /** The files; undefined if the folder cannot be read, which takes no cluster away. */
  async #list(folder: string): Promise<string[] | undefined> {
    const paths: string[] = [];
    try {
      const root = await Deno.realPath(folder);
      for await (const { name, isDirectory } of Deno.readDir(root)) {
        if (!name.startsWith(".") && !isDirectory) paths.push(`${root}/${name}`);
      }
    } catch (error) {
      if (!(error instanceof Error)) throw error;
      this.#tell(folder, chain(error));
      return undefined;
    }
    this.#told.delete(folder);
    if (paths.length > FILES_MAX) this.#tell(folder, `more than ${FILES_MAX} files: the rest is not read`);
    return paths.sort().slice(0, FILES_MAX);
  }

  async #readFile(path: string): Promise<boolean> {
    const before = this.#files.get(path);
    try {
      const text = await readTextBounded(path);
      if (text === before?.text) return false;
      const { cluster } = readKubeconfig(text, path);
      const kubeconfig = new TextEncoder().encode(text).toBase64();
      this.#files.set(path, {
        text,
        cluster: { name: path, createdAtMs: 0, kubeconfigs: new Map([[cluster, kubeconfig]]) },
      });
      this.#told.delete(path);
      return true;
    } catch (error) {
      if (!(error instanceof Error)) throw error;
      this.#tell(path, chain(error));
      if (before === undefined) this.#files.set(path, { text: "", cluster: undefined });
      return false;
    }
  }

  #tell(path: string, reason: string): void {
    if (this.#told.get(path) === reason) return;
    this.#told.set(path, reason);
    this.#options.log.error("kubeconfig of a remote cluster cannot be read; what it said before stays", {
      path,
      reason,
    });
  }
}
