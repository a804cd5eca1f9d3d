/** Containers by what their control groups are called: docker, podman, containerd and CRI-O alike, without asking any of them (CNI-087, CNI-271). */
import { MeshError } from "../../base/errors.ts";
import { findCgroupRoot, isNamedByRoot } from "./cgroups.ts";
import { startTimeOf } from "../kubernetes/cgroup_path.ts";

/** A container, and its oldest process. */
export interface Container {
  readonly id: string;
  readonly pid: number;
}

/** What runtimes put before an id in the name of a control group. */
const PREFIX = /^(docker|libpod|crio|cri-containerd|containerd|nerdctl)-/;
/** Control groups of a container's own helpers, which are not in its namespace. */
const HELPER = /^(libpod-conmon|crio-conmon|conmon)-/;
const HEX_ID = /^[0-9a-f]{12,64}$/;
/** Below it a user names control groups himself. */
const USERS_OWN = /^user@\d+\.service$/;
const LINES_MAX = 64;

/**
 * The ids that a line of `/proc/PID/cgroup` may name. The outermost part that is a container's counts; below it may be parts of
 * its own, as with a container that runs systemd, and those it can call what it likes.
 * @param isTrusted whether the last part of a path of version 2 was named by somebody who may.
 */
export function containerIdsOf(cgroupFile: string, isTrusted: (path: string) => boolean = () => true): string[] {
  const ids = new Set<string>();
  for (const line of cgroupFile.split("\n").slice(0, LINES_MAX)) {
    const path = /^\d+:[^:]*:\/(.+)$/.exec(line)?.[1];
    if (path === undefined) continue;
    const parts = path.split("/");
    for (const [at, part] of parts.entries()) {
      const name = part.replace(/\.scope$/, "");
      if (HELPER.test(name) || USERS_OWN.test(name)) break;
      // systemd's driver: `slice:prefix:id` by runc's default, `docker-ID.scope` by all the rest.
      const id = (name.split(":").at(-1) ?? name).replace(PREFIX, "");
      const named = at === parts.length - 1 && !/\.(service|slice)$/.test(name);
      if (!HEX_ID.test(id) && !PREFIX.test(name) && !named) continue;
      if (!line.startsWith("0::") || isTrusted(parts.slice(0, at + 1).join("/"))) ids.add(id);
      break;
    }
  }
  return [...ids];
}

/**
 * All containers whose id satisfies `matches`, each with the process that was first: it has the namespace that the container
 * was made with (CNI-086). Processes in the network of the host are passed over.
 */
export function findContainers(
  procDir: string,
  matches: (id: string) => boolean,
  cgroupRoot = findUnifiedRoot(),
): Container[] {
  const isTrusted = (path: string) => cgroupRoot === undefined || isNamedByRoot(cgroupRoot, path);
  const oldest = new Map<string, { pid: number; startedAtTicks: number }>();
  const host = netnsOf(procDir, "1") ?? netnsOf(procDir, "self");
  for (const { name: pid } of Deno.readDirSync(procDir)) {
    if (!/^\d+$/.test(pid)) continue;
    const cgroups = textOf(`${procDir}/${pid}/cgroup`);
    const ids = cgroups === undefined ? [] : containerIdsOf(cgroups, isTrusted).filter(matches);
    if (ids.length === 0) continue;
    const netns = netnsOf(procDir, pid);
    if (netns === undefined || netns === host) continue;
    const startedAtTicks = startTimeOf(textOf(`${procDir}/${pid}/stat`) ?? "");
    if (startedAtTicks === undefined) continue;
    for (const id of ids) {
      const known = oldest.get(id);
      if (known === undefined || startedAtTicks < known.startedAtTicks) {
        oldest.set(id, { pid: Number(pid), startedAtTicks });
      }
    }
  }
  return [...oldest].map(([id, { pid }]) => ({ id, pid }));
}

/** The one that is meant by an id, or by its first twelve digits or more. Throws AMB7161 for none and for several. */
export function findContainer(procDir: string, id: string, cgroupRoot = findUnifiedRoot()): Container {
  const found = findContainers(procDir, (it) => isMeant(id, it), cgroupRoot);
  if (found.length === 1) return found[0]!;
  throw new MeshError(
    "AMB7161",
    found.length === 0
      ? `no process on this node is in a container ${id} with a network of its own`
      : `${found.length} containers are called ${id}`,
    {
      remedy:
        "Give the id as `docker ps --no-trunc`, `podman ps --no-trunc`, `crictl ps` or `ctr tasks ls` shows it, " +
        "12 digits of it at least; a container in the host's network is enrolled as cgroup/PATH, one of a user's own runtime as pid/N.",
    },
  );
}

/** Whether an id, or the beginning of one, means this container. */
export const isMeant = (given: string, id: string): boolean =>
  id === given || (HEX_ID.test(given) && id.startsWith(given));

/** undefined where there is no version 2: what systemd leaves to users has its name in version 1 as well. */
function findUnifiedRoot(): string | undefined {
  try {
    return findCgroupRoot();
  } catch (error) {
    if (error instanceof MeshError) return undefined;
    throw error;
  }
}

function netnsOf(procDir: string, pid: string): string | undefined {
  return unlessGone(() => {
    const { dev, ino } = Deno.statSync(`${procDir}/${pid}/ns/net`);
    return `${dev}:${ino}`;
  });
}

/** @returns undefined when the process has ended. */
function textOf(path: string): string | undefined {
  return unlessGone(() => Deno.readTextFileSync(path));
}

function unlessGone<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.PermissionDenied) return undefined;
    if (error instanceof Error && /ESRCH|No such process/.test(error.message)) return undefined;
    throw error;
  }
}
