/** Control groups of a cluster's nodes: one tree each, or the kubelets would end each other's pods. Versions 1 and 2. */

const ROOT = "/sys/fs/cgroup";
const V2_CONTROLLERS = "+cpuset +cpu +io +memory +pids";
const END_MS = 10_000, POLL_MS = 50;

/** The hierarchies: one in version 2; one for each set of controllers in version 1. */
function hierarchies(): string[] {
  if (isFile(`${ROOT}/cgroup.controllers`)) return [ROOT];
  // Links are second names such as `cpu`.
  return [...Deno.readDirSync(ROOT)].filter(({ isDirectory }) => isDirectory).map(({ name }) => `${ROOT}/${name}`);
}

/** Makes the group `run/name` in every hierarchy, with all that a kubelet needs there. @returns Its path for the kubelet. */
export function makeCgroup(run: string, name: string): string {
  for (const hierarchy of hierarchies()) {
    if (hierarchy === ROOT) Deno.writeTextFileSync(`${ROOT}/cgroup.subtree_control`, V2_CONTROLLERS);
    for (const path of [`${hierarchy}/${run}`, `${hierarchy}/${run}/${name}`]) {
      Deno.mkdirSync(path, { recursive: true });
      if (hierarchy === ROOT) Deno.writeTextFileSync(`${path}/cgroup.subtree_control`, V2_CONTROLLERS);
      for (const file of ["cpuset.cpus", "cpuset.mems"]) { // Empty in a new group of version 1: nothing could run there.
        if (hierarchy !== ROOT && isFile(`${path}/${file}`)) {
          Deno.writeTextFileSync(`${path}/${file}`, Deno.readTextFileSync(`${path}/../${file}`));
        }
      }
    }
  }
  return `/${run}/${name}`;
}

/** Removes the run's groups, once their processes have ended. */
export async function removeCgroups(run: string): Promise<void> {
  const deadlineMs = performance.now() + END_MS;
  for (const hierarchy of hierarchies()) {
    while (!removeTree(`${hierarchy}/${run}`) && performance.now() < deadlineMs) {
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
  }
}

/** @returns False while a process is in it. */
function removeTree(path: string): boolean {
  if (!isFolder(path)) return true;
  for (const { name, isDirectory } of [...Deno.readDirSync(path)]) {
    if (isDirectory && !removeTree(`${path}/${name}`)) return false;
  }
  const { success } = new Deno.Command("rmdir", { args: [path], stderr: "null" }).outputSync();
  return success || !isFolder(path); // Deno.remove would want to delete the kernel's files first.
}

function isFile(path: string): boolean {
  return statOf(path)?.isFile ?? false;
}

function isFolder(path: string): boolean {
  return statOf(path)?.isDirectory ?? false;
}

function statOf(path: string): Deno.FileInfo | undefined {
  try {
    return Deno.statSync(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}
