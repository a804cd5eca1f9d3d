/** What the agent leaves in its run folder for others, and for itself after a reboot (CNI-021, CNI-054). */
import { bootId } from "../../os/boot_id.ts";
import { chain, MeshError } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import { removeNodeFile, textOf, writeNodeFile } from "../install/node_files.ts";
import { formatAmbientNamespaces, NAMESPACES_FILE } from "../namespaces_file.ts";

const BOOT_FILE = "boot-id";

/** The namespaces that may have pods in the mesh, for a plugin that reaches neither us nor the API server (CNI-021). */
export class NamespacesFile {
  readonly #path: string;
  readonly #log: Logger;
  #written: string | undefined;

  constructor(runDir: string, log: Logger) {
    this.#path = `${runDir}/${NAMESPACES_FILE}`;
    this.#log = log;
  }

  /** Writes it if it differs. What cannot be written is said: the plugin then fails closed, or by an older list. */
  write(namespaces: readonly string[]): void {
    const text = formatAmbientNamespaces(namespaces);
    if (text === this.#written) return;
    try {
      writeNodeFile(this.#path, text, 0o644);
      this.#written = text;
    } catch (error) {
      if (!(error instanceof MeshError)) throw error;
      this.#log.warn("list of namespaces not written", { error: chain(error) });
    }
  }
}

/** Takes away all files of the run folder, which is ours alone; the folder itself is the node's mount. */
export function removeRunFiles(runDir: string): void {
  for (const { name, isDirectory } of [...Deno.readDirSync(runDir)]) {
    if (!isDirectory) removeNodeFile(`${runDir}/${name}`);
  }
}

/** Pods that an enrolment has begun with and not ended, over the agent's death: their rules may be there without any annotation. */
export interface Journal {
  /** Throws MeshError if it cannot be noted: then nothing may begin. */
  begin(uid: string): void;
  /** It is enrolled and says so, or nothing of it is left. */
  end(uid: string): void;
  has(uid: string): boolean;
}

const JOURNAL_FOLDER = "enrolling", UID = /^[0-9A-Za-z._-]{1,253}$/;

/** One empty file for each such pod (CNI-313). The run folder does not outlive a boot, nor do rules. */
export class JournalFolder implements Journal {
  readonly #folder: string;
  readonly #uids: Set<string>;

  /** Throws AMB7130. */
  constructor(runDir: string) {
    this.#folder = `${runDir}/${JOURNAL_FOLDER}`;
    Deno.mkdirSync(this.#folder, { recursive: true, mode: 0o700 });
    this.#uids = new Set([...Deno.readDirSync(this.#folder)].map(({ name }) => name));
  }

  begin(uid: string): void {
    if (this.#uids.has(uid) || !UID.test(uid)) return;
    writeNodeFile(`${this.#folder}/${uid}`, "", 0o600);
    this.#uids.add(uid);
  }

  end(uid: string): void {
    if (!this.#uids.has(uid)) return;
    removeNodeFile(`${this.#folder}/${uid}`);
    this.#uids.delete(uid);
  }

  has(uid: string): boolean {
    return this.#uids.has(uid);
  }

  /** Of pods that have gone meanwhile nothing is left: what was done in their namespaces went with these. */
  keepOnly(uids: ReadonlySet<string>): void {
    for (const uid of [...this.#uids]) if (!uids.has(uid)) this.end(uid);
  }
}

/**
 * Whether the node was booted since an agent last ran on it, as far as the file in the run folder says, which is then made
 * to say that of now. After a boot no annotation means anything (CNI-054). Throws AMB7130.
 */
export function noteBoot(runDir: string, boot = bootId()): boolean {
  const before = textOf(`${runDir}/${BOOT_FILE}`)?.trim();
  writeNodeFile(`${runDir}/${BOOT_FILE}`, `${boot}\n`, 0o644);
  return before !== boot;
}
