/** What files a folder holds, and whether they changed: one pass of stat, no file is read. */

/** What changes whenever a file does. Two files swapped under one name differ in their inode. */
export interface Signature {
  readonly text: string;
  readonly bytes: number;
  /** By the system's clock, content or name; 0 when the file system does not say. */
  readonly changedAtMs: number;
}

export interface Listing {
  /** By path relative to the folder, in order. */
  readonly files: ReadonlyMap<string, Signature>;
  /** Directories and files that could not be looked at, with the reason. */
  readonly failures: ReadonlyMap<string, string>;
}

// Deeper than anybody nests configuration; also what ends a loop of symbolic links.
const DIRECTORY_DEPTH_MAX = 16;
export const FILES_MAX = 50_000;

/** Files that are read: by their ending, and not hidden (editors' swap files, Kubernetes' `..data` versions). */
export function isInput(name: string): boolean {
  return !name.startsWith(".") && /\.(yaml|yml|json)$/.test(name);
}

/** Lists the folder's input files, following symbolic links. Throws only if the folder itself cannot be read. */
export async function listFolder(directory: string): Promise<Listing> {
  const files = new Map<string, Signature>(), failures = new Map<string, string>();
  const visit = async (relative: string, depth: number): Promise<void> => {
    const names: string[] = [];
    for await (const entry of Deno.readDir(`${directory}/${relative}`)) {
      if (!entry.name.startsWith(".")) names.push(entry.name);
    }
    for (const name of names.sort()) {
      const path = relative === "" ? name : `${relative}/${name}`;
      let info: Deno.FileInfo;
      try {
        info = await Deno.stat(`${directory}/${path}`);
      } catch (error) {
        // Gone since it was listed: the next pass will agree. Anything else is said.
        if (!(error instanceof Error)) throw error;
        if (!(error instanceof Deno.errors.NotFound)) failures.set(path, error.message);
        continue;
      }
      if (info.isDirectory) {
        if (depth >= DIRECTORY_DEPTH_MAX) {
          failures.set(path, `is nested deeper than ${DIRECTORY_DEPTH_MAX} directories`);
        } else await attempt(path, failures, () => visit(path, depth + 1));
      } else if (info.isFile && isInput(name)) {
        if (files.size >= FILES_MAX) failures.set(path, `is beyond the first ${FILES_MAX} files`);
        else files.set(path, signatureOf(info));
      }
    }
  };
  await visit("", 0);
  return { files, failures };
}

async function attempt(path: string, failures: Map<string, string>, act: () => Promise<void>): Promise<void> {
  try {
    await act();
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    if (!(error instanceof Deno.errors.NotFound)) failures.set(path, error.message);
  }
}

function signatureOf(info: Deno.FileInfo): Signature {
  const modifiedAtMs = info.mtime?.getTime() ?? 0, changedAtMs = info.ctime?.getTime() ?? 0;
  return {
    text: `${info.dev}:${info.ino}:${info.size}:${modifiedAtMs}:${changedAtMs}`,
    bytes: info.size,
    changedAtMs: Math.max(modifiedAtMs, changedAtMs),
  };
}

/** The text of the signature a file has now; undefined if it cannot be looked at. */
export async function signatureAt(path: string): Promise<string | undefined> {
  try {
    return signatureOf(await Deno.stat(path)).text;
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    return undefined;
  }
}
