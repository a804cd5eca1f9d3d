/** Files that the agent puts on its node: each appears whole, and is written only where it differs (CNI-033, CNI-043). */
import { MeshError } from "../../base/errors.ts";
import type { ConfFile } from "./conflist.ts";

/** A text file. @returns Whether it was written. Throws AMB7130. */
export function writeNodeFile(path: string, text: string, mode: number): boolean {
  return guarded(path, () => {
    if (textOf(path) === text && (modeOf(path) & 0o777) === mode) return false;
    const fresh = draftOf(path);
    Deno.writeTextFileSync(fresh, text, { mode, createNew: true });
    Deno.chmodSync(fresh, mode); // The process's mask does not decide.
    putInPlace(fresh, path);
    return true;
  });
}

/** Copies a program or library. @returns Whether it was copied: one of the same size and time is the same. Throws AMB7130. */
export function copyNodeFile(from: string, to: string, mode: number): boolean {
  return guarded(to, () => {
    const source = Deno.statSync(from), present = statOf(to);
    if (present?.size === source.size && present.mtime?.getTime() === source.mtime?.getTime()) return false;
    const fresh = draftOf(to);
    Deno.copyFileSync(from, fresh);
    Deno.chmodSync(fresh, mode);
    if (source.mtime !== null) Deno.utimeSync(fresh, source.mtime, source.mtime);
    putInPlace(fresh, to); // A process that runs the old one keeps it.
    return true;
  });
}

/** A name beside the file where nothing is: what a crash left there, or a link, would be written through. */
function draftOf(path: string): string {
  const fresh = `${path}.tmp.ambit`;
  removeNodeFile(fresh);
  return fresh;
}

/** On the disk before it replaces anything: after a power cut the name has the old text or the new one, and never none. */
function putInPlace(fresh: string, path: string): void {
  syncToDisk(fresh);
  Deno.renameSync(fresh, path);
  syncToDisk(path.slice(0, Math.max(1, path.lastIndexOf("/"))));
}

function syncToDisk(path: string): void {
  using file = Deno.openSync(path, { read: true });
  file.syncSync();
}

/** Makes the folder and those around it. Throws AMB7130. */
export function makeNodeFolder(path: string): void {
  guarded(path, () => Deno.mkdirSync(path, { recursive: true, mode: 0o755 }));
}

/** Removes a file or folder; one that is not there is fine. Throws AMB7130. */
export function removeNodeFile(path: string): void {
  guarded(path, () => {
    try {
      Deno.removeSync(path, { recursive: true });
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
  });
}

const CONF_FILES_MAX = 200, CONF_BYTES_MAX = 1 << 20;

/**
 * The CNI configurations of a folder, whatever is in them. Throws AMB7271 where one cannot be read: the runtime may be able to,
 * and without it we would be chained to another network than the one that it uses.
 */
export function confFilesOf(folder: string): ConfFile[] {
  let path = folder;
  try {
    const names = [...Deno.readDirSync(folder)].filter(({ name, isDirectory }) =>
      !isDirectory && /\.conf(list)?$/.test(name)
    ).map(({ name }) => name).sort().slice(0, CONF_FILES_MAX);
    return names.flatMap((name) => {
      path = `${folder}/${name}`;
      const stat = statOf(path);
      if (stat?.isFile !== true || stat.size > CONF_BYTES_MAX) return [];
      const text = textOf(path);
      return text === undefined ? [] : [{ name, text }];
    });
  } catch (cause) {
    throw new MeshError("AMB7271", `cannot read the CNI configuration in ${path}`, {
      remedy:
        "mount the node's folder of CNI configurations (--mounted-cni-net-dir), and see what keeps root from reading it",
      cause,
    });
  }
}

/** The permissions of a file, which may be gone by now. Throws AMB7130. */
export function permissionsOf(path: string): number {
  return guarded(path, () => Deno.statSync(path).mode ?? 0o644) & 0o777;
}

/** @returns undefined when it is not there. */
export function textOf(path: string): string | undefined {
  try {
    return Deno.readTextFileSync(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

function statOf(path: string): Deno.FileInfo | undefined {
  try {
    return Deno.statSync(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

function modeOf(path: string): number {
  return statOf(path)?.mode ?? 0;
}

function guarded<T>(path: string, work: () => T): T {
  try {
    return work();
  } catch (cause) {
    if (cause instanceof MeshError) throw cause;
    const readOnly = cause instanceof Error && /read-only file system/i.test(cause.message);
    throw new MeshError("AMB7130", `cannot write ${path}`, {
      remedy: readOnly
        ? "the node's folder is read-only: set the folders of this platform (--mounted-cni-bin-dir, --mounted-cni-net-dir)"
        : "mount the node's CNI folders writable, and run as root",
      cause,
    });
  }
}
