/** From what an operator names to an open network namespace, the host's own excepted (CNI-273). */
import { AssertionError } from "../base/assert.ts";
import { MeshError } from "../base/errors.ts";
import type { EnrolTarget } from "../mesh/enrolment.ts";
import { namedNetnsPath, type Netns, openNetns, ownNetns } from "../os/netns.ts";
import { findContainer } from "./bare/containers.ts";

/** Opens the target's own namespace. Throws AMB7002, AMB7003 or AMB7161 when there is none, AMB7101 when it is the host's. */
export function openTarget(target: EnrolTarget, procDir = "/proc"): Netns {
  const netns = openNetns(pathOf(target, procDir));
  if (!isHostNetns(netns)) return netns;
  netns[Symbol.dispose]();
  throw new MeshError("AMB7101", `${target.text} is in the network namespace of the host`, {
    remedy: "Enrol its control group (cgroup/PATH, unit/NAME.service): capturing the whole host would cut it off.",
  });
}

function pathOf(target: EnrolTarget, procDir: string): string {
  switch (target.kind) {
    case "netns":
      return namedNetnsPath(target.name);
    case "netns-path":
      return target.path;
    case "pid":
      return `${procDir}/${target.pid}/ns/net`;
    case "container":
      return `${procDir}/${findContainer(procDir, target.id).pid}/ns/net`;
    case "unit":
    case "cgroup":
      throw new AssertionError("a unit or control group is opened as a place of the host's namespace");
  }
}

/** The host's is the node agent's own, and the first process's where we may look at it. */
export function isHostNetns(netns: Netns, procDir = "/proc"): boolean {
  using own = ownNetns();
  if (netns.equals(own)) return true;
  try {
    using first = openNetns(`${procDir}/1/ns/net`);
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
