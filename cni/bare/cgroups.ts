/** Control groups of version 2 as files: where they are mounted, which one a unit has, and what tells one from its successor. */
import { MeshError } from "../../base/errors.ts";
import { effectiveUserId } from "../../os/process.ts";

/** One control group. The kernel never gives its id to another, so a unit that was started again is seen to be. */
export interface Cgroup {
  /** From the root of the hierarchy, without a slash at either end: `system.slice/web.service`. */
  readonly path: string;
  readonly id: number;
}

/** How deep it lies below the root: what `socket cgroupv2 level` counts. */
export const levelOf = ({ path }: Pick<Cgroup, "path">): number => path.split("/").length;

/** A slice in a slice in …: systemd's own for users' units are five deep. */
const DEPTH_MAX = 8, FOLDERS_MAX = 20_000;

/** Where version 2 is mounted: everywhere, or, in a hybrid layout, beside version 1. Throws AMB7160. */
export function findCgroupRoot(mountinfo: string = Deno.readTextFileSync("/proc/self/mountinfo")): string {
  for (const line of mountinfo.split("\n")) {
    const [before, after] = line.split(" - ");
    const path = before?.split(" ")[4];
    if (path !== undefined && after?.startsWith("cgroup2 ")) return path.replace(/\\040/g, " ");
  }
  throw new MeshError("AMB7160", "this system has no control groups of version 2", {
    remedy: "mount them: mount -t cgroup2 none /sys/fs/cgroup/unified; without them only own namespaces are enrolled",
  });
}

/** @returns undefined where there is none. Throws AMB7273 where that cannot be told. */
export function openCgroup(root: string, path: string): Cgroup | undefined {
  try {
    const { ino, isDirectory } = Deno.statSync(`${root}/${path}`);
    return isDirectory && ino !== null ? { path, id: ino } : undefined;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory) return undefined;
    throw new MeshError("AMB7273", `the control group ${path} cannot be looked at`, {
      remedy: "See that the path is one, each part of it at most 255 bytes, and that this process may look there.",
      cause: error,
    });
  }
}

/**
 * Whether the path's last part is a name that root gave: every folder around it is root's. A user who has one to himself, as
 * systemd gives each his `user@1000.service`, calls what is in it what he likes: a unit, or a container, of somebody else.
 */
export function isNamedByRoot(root: string, path: string): boolean {
  const parts = path.split("/");
  return parts.every((_, at) => isRoots(`${root}/${parts.slice(0, at).join("/")}`));
}

function isRoots(path: string): boolean {
  try {
    const { uid } = Deno.statSync(path);
    return uid === 0 || uid === effectiveUserId();
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory) return false;
    throw error;
  }
}

/**
 * The control groups whose own name matches and is of {@link isNamedByRoot}, wherever in the tree: systemd puts a unit into the
 * slice that it names.
 */
export function findCgroups(root: string, matches: (name: string) => boolean): Cgroup[] {
  const found: Cgroup[] = [];
  let looked = 0;
  const look = (folder: string, depth: number) => {
    for (const { name, isDirectory } of foldersOf(`${root}/${folder}`)) {
      if (!isDirectory || ++looked > FOLDERS_MAX) continue;
      const path = folder === "" ? name : `${folder}/${name}`;
      if (matches(name)) {
        const cgroup = openCgroup(root, path);
        if (cgroup !== undefined) found.push(cgroup);
      } else if (depth < DEPTH_MAX && isRoots(`${root}/${path}`)) look(path, depth + 1);
    }
  };
  look("", 1);
  return found;
}

/** The control groups with these ids, as far as they lie in one of the paths. */
export function findCgroupsById(root: string, within: readonly string[], ids: ReadonlySet<number>): Cgroup[] {
  const found = new Map<number, Cgroup>();
  let looked = 0;
  const look = (path: string, depth: number) => {
    const cgroup = ++looked > FOLDERS_MAX ? undefined : openCgroup(root, path);
    if (cgroup === undefined) return;
    if (ids.has(cgroup.id)) found.set(cgroup.id, cgroup);
    if (depth >= DEPTH_MAX) return;
    for (const { name, isDirectory } of foldersOf(`${root}/${path}`)) {
      if (isDirectory) look(`${path}/${name}`, depth + 1);
    }
  };
  if (ids.size > 0) { for (const path of within) look(path, 0); }
  return [...found.values()];
}

function foldersOf(path: string): Deno.DirEntry[] {
  try {
    return [...Deno.readDirSync(path)];
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return []; // Gone while we looked.
    throw error;
  }
}

/** The path in the hierarchy of version 2, from `/proc/PID/cgroup`; "" for the root itself. */
export function unifiedPathOf(cgroupFile: string): string | undefined {
  return /^0::\/(.*)$/m.exec(cgroupFile)?.[1]?.replace(/\/$/, "");
}

/** Whether a process of the group at `inner` is also one of the group at `outer`. */
export const isWithin = (inner: string, outer: string): boolean => inner === outer || inner.startsWith(`${outer}/`);

/** `*` for any characters, `?` for one; what else there is stands for itself. */
export function globMatcher(glob: string): (text: string) => boolean {
  const escaped = glob.replace(/[.+^${}()|[\]\\]/g, "\\$&").replaceAll("*", ".*").replaceAll("?", ".");
  const expression = new RegExp(`^${escaped}$`, "s");
  return (text) => expression.test(text);
}

export const isGlob = (text: string): boolean => /[*?]/.test(text);
