/** Secrets on disk: created once, whole, readable by their owner alone; of several creators one wins and all use its files (CP-502). */
import { MeshError } from "../../base/errors.ts";

/** Makes the state folder (mode 0700) if it is not there. @throws MeshError AMB0210 */
export async function openStateFolder(path: string): Promise<void> {
  try {
    await Deno.mkdir(path, { recursive: true, mode: 0o700 });
  } catch (cause) {
    throw new MeshError("AMB0210", `cannot make the state folder ${path}`, {
      remedy: "give --state-dir a folder that this process may write to",
      cause,
    });
  }
}

/** Reads a file, or creates it with what `make` gives. @throws MeshError AMB0210, AMB0211 */
export async function readOrCreateFile(path: string, make: () => Promise<string>): Promise<string> {
  const existing = await readSecret(path);
  if (existing !== undefined) return existing;
  const temporary = `${path}.${crypto.randomUUID()}`;
  try {
    await writeSecret(temporary, await make());
    await Deno.link(temporary, path); // Fails if another process was quicker: then its file is the one.
  } catch (error) {
    if (!(error instanceof Deno.errors.AlreadyExists)) throw cannotWrite(path, error);
  } finally {
    await removeIfThere(temporary);
  }
  const winner = await readSecret(path);
  if (winner === undefined) throw cannotWrite(path, undefined);
  return winner;
}

/** Creates a folder of files as one step, unless it is there already. @throws MeshError AMB0210 */
export async function createFolderOnce(path: string, make: () => Promise<Record<string, string>>): Promise<void> {
  if (await exists(path)) return;
  const temporary = `${path}.${crypto.randomUUID()}`;
  try {
    const files = await make();
    await Deno.mkdir(temporary, { mode: 0o700 });
    for (const [name, content] of Object.entries(files)) await writeSecret(`${temporary}/${name}`, content);
    await Deno.rename(temporary, path); // A folder with files in it is never replaced by rename(2).
  } catch (error) {
    if (!(await exists(path))) throw cannotWrite(path, error);
  } finally {
    await removeIfThere(temporary);
  }
}

/** Writes what anybody may read, whole or not at all. @throws MeshError AMB0210 */
export async function publishFile(path: string, content: string): Promise<void> {
  const temporary = `${path}.${crypto.randomUUID()}`;
  try {
    await Deno.writeTextFile(temporary, content, { createNew: true, mode: 0o644 });
    await Deno.rename(temporary, path);
  } catch (error) {
    throw cannotWrite(path, error);
  } finally {
    await removeIfThere(temporary);
  }
}

/** Reads a file. @returns undefined if it does not exist. @throws MeshError AMB0211 if others may read it, or we may not. */
export async function readSecret(path: string): Promise<string | undefined> {
  try {
    using file = await Deno.open(path, { read: true });
    const { mode } = await file.stat();
    if (mode !== null && (mode & 0o077) !== 0) {
      throw new MeshError("AMB0211", `the secret ${path} can be read by others than its owner`, {
        remedy: `chmod 600 ${path}, and consider the secret in it as known`,
      });
    }
    return await new Response(file.readable).text();
  } catch (cause) {
    if (cause instanceof MeshError) throw cause;
    if (cause instanceof Deno.errors.NotFound) return undefined;
    throw new MeshError("AMB0211", `cannot read the secret ${path}`, {
      remedy: "check the file's owner and mode",
      cause,
    });
  }
}

async function writeSecret(path: string, content: string): Promise<void> {
  using file = await Deno.open(path, { write: true, createNew: true, mode: 0o600 });
  const bytes = new TextEncoder().encode(content);
  for (let at = 0; at < bytes.length;) at += await file.write(bytes.subarray(at));
  await file.sync(); // A key that is in use must outlive a power cut.
}

async function exists(path: string): Promise<boolean> {
  try {
    await Deno.lstat(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

async function removeIfThere(path: string): Promise<void> {
  if (await exists(path)) await Deno.remove(path, { recursive: true });
}

function cannotWrite(path: string, cause: unknown): MeshError {
  return new MeshError("AMB0210", `cannot create ${path}`, {
    remedy: "give --state-dir a folder on a local file system that this process may write to",
    cause,
  });
}
