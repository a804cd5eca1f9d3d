/** Where an enrolled target's traffic is: in a network namespace of its own, or in the host's, told from the rest by its control group. */
import { MeshError } from "../../base/errors.ts";
import { type EnrolTarget, isShared } from "../../mesh/enrolment.ts";
import { type Netns, ownNetns } from "../../os/netns.ts";
import { openTarget } from "../target.ts";
import { type Cgroup, findCgroupRoot, findCgroups, isWithin, openCgroup, unifiedPathOf } from "./cgroups.ts";

/** Open as long as the handle of its namespace. */
export interface Place extends Disposable {
  readonly netns: Netns;
  /** undefined: the whole namespace is the target's. */
  readonly cgroup: Cgroup | undefined;
}

/** Whether both mean the same processes: a unit that was started again has another control group. */
export function samePlace(one: Place, other: Place): boolean {
  return one.netns.equals(other.netns) && one.cgroup?.id === other.cgroup?.id;
}

/** What {@link openPlace} says of a target that is no more, or is not what it was. */
const GONE = /^AMB7(002|003|101|161|162|163)$/;

/** Whether the target is gone; where it could not be looked at, nothing is known, and what was captured stays so. */
export const isGone = (error: unknown): error is MeshError => error instanceof MeshError && GONE.test(error.code);

function placeOf(netns: Netns, cgroup?: Cgroup): Place {
  return { netns, cgroup, [Symbol.dispose]: () => netns[Symbol.dispose]() };
}

/** What of the machine a target is looked for in; for tests. */
export interface Machine {
  readonly cgroupRoot?: string;
  readonly procDir?: string;
}

/** Opens the target's place. Throws AMB7002, AMB7003, AMB7101, AMB7160 to AMB7163, AMB7272, AMB7273; AMB7162 where a unit does not run. */
export function openPlace(target: EnrolTarget, machine: Machine = {}): Place {
  if (!isShared(target)) return placeOf(openTarget(target, machine.procDir));
  const root = machine.cgroupRoot ?? findCgroupRoot();
  const cgroup = target.kind === "unit" ? cgroupOfUnit(root, target.unit) : openCgroup(root, groupPath(target));
  if (cgroup === undefined) {
    const what = target.kind === "unit" ? `the unit ${target.unit} does not run` : "there is no such control group";
    throw new MeshError("AMB7162", `${target.text} has no control group in ${root}: ${what}`, {
      remedy: "Start it first, or let it enrol itself as it starts (docs/bare_nodes.md).",
    });
  }
  const own = unifiedPathOf(Deno.readTextFileSync("/proc/self/cgroup"));
  if (own !== undefined && isWithin(own, cgroup.path)) {
    throw new MeshError("AMB7163", `${target.text} holds the node agent itself`, {
      remedy: "Enrol the service's own control group, not one around it: the mesh's parts are never captured.",
    });
  }
  return placeOf(ownNetns(), cgroup);
}

const groupPath = (target: EnrolTarget): string => target.kind === "cgroup" ? target.path : "";

function cgroupOfUnit(root: string, unit: string): Cgroup | undefined {
  const usual = openCgroup(root, `system.slice/${unit}`);
  return usual ?? findCgroups(root, (name) => name === unit)[0];
}
