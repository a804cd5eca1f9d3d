/** Files that the agent puts on its node: each appears whole, and is written only where it differs (CNI-033, CNI-043). */
import { MeshError } from "../../base/errors.ts";
import type { ConfFile } from "./conflist.ts";

/** A text file. @returns Whether it was written. Throws AMB7130. */
export function writeNodeFile(path: string, text: string, mode: number): boolean {
  return guarded(path, () => {
    if (textOf(path) === text && (modeOf(path) & 0o777) === mode) return false;
    const fresh = `${path}.tmp.ambit`;
    Deno.writeTextFileSync(fresh, text, { mode });
    Deno.chmodSync(fresh, mode); // The process's mask does not decide.
    Deno.renameSync(fresh, path);
    return true;
  });
}

/** Copies a program or library. @returns Whether it was copied: one of the same size and time is the same. Throws AMB7130. */
export function copyNodeFile(from: string, to: string, mode: number): boolean {
  return guarded(to, () => {
    const source = Deno.statSync(from), present = statOf(to);
    if (present?.size === source.size && present.mtime?.getTime() === source.mtime?.getTime()) return false;
    const fresh = `${to}.tmp.ambit`;
    Deno.copyFileSync(from, fresh);
    Deno.chmodSync(fresh, mode);
    if (source.mtime !== null) Deno.utimeSync(fresh, source.mtime, source.mtime);
    Deno.renameSync(fresh, to); // A process that runs the old one keeps it.
    return true;
  });
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

/** The CNI configurations of a folder, whatever is in them. */
export function confFilesOf(folder: string): ConfFile[] {
  const files: ConfFile[] = [];
  for (const { name, isFile, isSymlink } of Deno.readDirSync(folder)) {
    if (!(isFile || isSymlink) || !/\.conf(list)?$/.test(name)) continue;
    const text = textOf(`${folder}/${name}`);
    if (text !== undefined && text.length <= CONF_BYTES_MAX) files.push({ name, text });
    if (files.length === CONF_FILES_MAX) break;
  }
  return files;
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
