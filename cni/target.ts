/** From what an operator names to an open network namespace, the host's own excepted (CNI-273). */
import { MeshError } from "../base/errors.ts";
import type { EnrolTarget } from "../mesh/enrolment.ts";
import { namedNetnsPath, type Netns, openNetns, ownNetns } from "../os/netns.ts";

const FIRST_PROCESS = "/proc/1/ns/net";

/** Opens the target's namespace. Throws AMB7002 or AMB7003 when there is none, AMB7101 when it is the host's. */
export function openTarget(target: EnrolTarget): Netns {
  const netns = openNetns(pathOf(target));
  if (!isHostNetns(netns)) return netns;
  netns[Symbol.dispose]();
  throw new MeshError("AMB7101", `${target.text} is in the network namespace of the host`, {
    remedy: "Give the workload a network namespace of its own: capturing the host's would cut the node off.",
  });
}

function pathOf(target: EnrolTarget): string {
  switch (target.kind) {
    case "netns":
      return namedNetnsPath(target.name);
    case "netns-path":
      return target.path;
    case "pid":
      return `/proc/${target.pid}/ns/net`;
  }
}

/** The host's is the node agent's own, and the first process's where we may look at it. */
function isHostNetns(netns: Netns): boolean {
  using own = ownNetns();
  if (netns.equals(own)) return true;
  try {
    using first = openNetns(FIRST_PROCESS);
    return netns.equals(first);
  } catch (error) {
    if (error instanceof MeshError) return false; // In a user namespace the first process is not ours to look at.
    throw error;
  }
}

/** A uid of the form that Kubernetes uses, always the same for the same target (CNI-273). */
export async function uidOf(target: EnrolTarget): Promise<string> {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(target.text)));
  const hex = [...digest.subarray(0, 16)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}
