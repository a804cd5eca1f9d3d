/** Where eBPF objects of this node live: a bpffs for their names, and the root of the cgroup hierarchy for what hooks sockets. */
import { MeshError } from "../../base/errors.ts";

export interface BpfPlaces {
  /** Folder of the pins, in a bpffs. */
  readonly pins: string;
  /** Folder of the cgroup (v2) whose processes are looked at; the enrolled among them are told by their network namespace. */
  readonly cgroup: string;
  /** Folder of the cgroup of a ztunnel of another make; undefined: ztunnel is ours, and knows where to look. */
  readonly foreignZtunnel?: string;
  /** Where settings of the kernel can be written, if not at /proc/sys. */
  readonly sysctls?: string;
}

/**
 * Where the node's cgroup hierarchy of version 2 is mounted: below `hostRoot` if there, since inside a container the own
 * mount may show the container's cgroup alone (CNI-216). @returns undefined when there is none.
 */
export function findCgroupRoot(
  hostRoot: string,
  mounts = Deno.readTextFileSync("/proc/self/mounts"),
): string | undefined {
  const found = mountsOf(mounts, "cgroup2");
  return found.find((path) => hostRoot !== "" && path.startsWith(`${hostRoot}/`)) ?? found[0];
}

/**
 * Sees that the folder is one where objects can be pinned. It mounts nothing: a mount of our own may be in a mount
 * namespace that ends with us, and capture with it. Throws AMB7152.
 */
export function preparePins(folder: string): void {
  const mounted = mountsOf(Deno.readTextFileSync("/proc/self/mounts"), "bpf").some((at) =>
    `${folder}/`.startsWith(`${at}/`)
  );
  if (!mounted) {
    throw new MeshError("AMB7152", `${folder} is in no bpffs`, {
      remedy: "Mount one: mount -t bpf bpf /sys/fs/bpf; in a container mount the node's.",
    });
  }
  Deno.mkdirSync(folder, { recursive: true, mode: 0o700 });
}

function mountsOf(mounts: string, type: string): string[] {
  return mounts.split("\n").map((line) => line.split(" ")).filter((fields) => fields[2] === type).map((it) => it[1]!);
}
