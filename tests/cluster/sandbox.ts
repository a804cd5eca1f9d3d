/**
 * Namespaces that hold a whole cluster: process ids, mounts, network. Everything in them ends with their first process,
 * which ends with us, however we end; what the kernel does not take away by itself (a folder, control groups) is
 * taken away here, and what a killed run left of it at the next start.
 */
import { MeshError } from "../../base/errors.ts";
import { removeCgroups } from "./cgroups.ts";

const PREFIX = "ambit-cluster-";
/** Its first process: it starts what we were called for, buries whoever has no parent left, and passes the status on. */
const FIRST_PROCESS = `"$@" & program=$!
trap 'kill -TERM $program' TERM INT
while :; do wait $program; status=$?; kill -0 $program 2>/dev/null || exit $status; done`;

/** A folder of a run, whose name is also that of its control groups. It lives on a disk: containers' layers lie in it. */
export class RunFolder implements AsyncDisposable {
  readonly path: string;
  readonly #lock: Deno.FsFile;

  private constructor(path: string, lock: Deno.FsFile) {
    this.path = path;
    this.#lock = lock;
  }

  /** Makes one, after all that killed runs have left is gone. */
  static async make(): Promise<RunFolder> {
    await sweep();
    const path = await Deno.makeTempDir({ dir: parent(), prefix: PREFIX });
    await Deno.chmod(path, 0o755);
    const lock = await Deno.open(`${path}/lock`, { create: true, write: true });
    await lock.lock(true);
    return new RunFolder(path, lock);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await removeRun(this.path);
    this.#lock.close();
  }
}

/** What control groups of a run are called. */
export function runName(folder: string): string {
  return folder.slice(folder.lastIndexOf("/") + 1);
}

function parent(): string {
  return Deno.env.get("TMPDIR") ?? "/tmp";
}

/** Takes away what runs left that did not live to do it. */
async function sweep(): Promise<void> {
  for (const { name, isDirectory } of [...Deno.readDirSync(parent())]) {
    if (!isDirectory || !name.startsWith(PREFIX)) continue;
    const path = `${parent()}/${name}`, lock = await Deno.open(`${path}/lock`, { create: true, write: true });
    if (await lock.tryLock(true)) await removeRun(path); // Its run has ended.
    lock.close();
  }
}

async function removeRun(path: string): Promise<void> {
  await removeCgroups(runName(path));
  await Deno.remove(path, { recursive: true });
}

/** Runs a program in namespaces of its own; they end with it, and both with us. @returns Its status. */
export async function runInSandbox(command: readonly string[], signal: AbortSignal): Promise<number> {
  const spaces = ["--mount", "--propagation", "private", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"];
  const child = new Deno.Command("setpriv", {
    args: ["--pdeathsig", "KILL", "unshare", ...spaces, "bash", "-c", FIRST_PROCESS, "sandbox", ...command],
    stdin: "inherit",
    stdout: "inherit",
    stderr: "inherit",
  }).spawn();
  const end = () => child.kill("SIGKILL");
  signal.addEventListener("abort", end);
  const { code } = await child.status;
  signal.removeEventListener("abort", end);
  return code;
}

/** @throws MeshError AMB7191 unless this process may make namespaces. */
export function requireRoot(): void {
  if (Deno.uid() === 0) return;
  throw new MeshError("AMB7191", "a cluster is made of namespaces and control groups", { remedy: "run it as root" });
}
