/** Finds the network namespaces of pods among the node's processes (CNI-085, CNI-086). */
import { formatIp, parseIp } from "../../base/address.ts";
import { ignore, MeshError } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import { RouteSocket } from "../../os/netlink/rtnetlink.ts";
import { type Netns, openNetns } from "../../os/netns.ts";
import { parseCgroups, startTimeOf } from "./cgroup_path.ts";

/** A pod that is looked for. */
export interface WantedPod {
  readonly uid: string;
  readonly ips: readonly string[];
  /** By which the kubelet knows it, where that is another. */
  readonly staticUid?: string;
}

interface Candidate {
  readonly pid: string;
  readonly uid: string;
  readonly startedAtTicks: number;
}

/** Whether an interface in the namespace has one of the addresses: else it is another pod's, or not set up yet. */
export function hasAddress(netns: Netns, ips: readonly string[]): boolean {
  using routes = RouteSocket.open(netns);
  const present = new Set(routes.addresses().map(({ ip }) => canonical(ip)));
  return ips.some((ip) => present.has(canonical(ip)));
}

function canonical(text: string): string {
  const ip = parseIp(text);
  return ip === undefined ? text : formatIp(...ip);
}

/**
 * Looks through all processes once. @returns An open namespace for each wanted pod that was found; the caller closes
 * them. A process that ends meanwhile is passed over.
 */
export function findPodNetns(procDir: string, wanted: readonly WantedPod[], log: Logger): Map<string, Netns> {
  // A static pod's uid is of an annotation, which anybody can write: a pod's own comes first, and the address decides.
  const known = wanted.filter(({ ips }) => ips.length > 0);
  const byUid = new Map([
    ...known.flatMap((pod) => pod.staticUid === undefined ? [] : [[dashed(pod.staticUid), pod] as const]),
    ...known.map((pod) => [pod.uid, pod] as const),
  ]);
  const found = new Map<string, Netns>();
  if (byUid.size === 0) return found;
  const host = statOf(`${procDir}/1/ns/net`);
  // Oldest first: the sandbox's own process holds the namespace that the pod was made with.
  for (const candidate of candidates(procDir, byUid, log).sort((a, b) => a.startedAtTicks - b.startedAtTicks)) {
    const { pid } = candidate, { uid, ips } = byUid.get(candidate.uid)!;
    if (found.has(uid)) continue;
    const path = `${procDir}/${pid}/ns/net`, stat = statOf(path);
    if (stat === undefined || (stat.ino === host?.ino && stat.dev === host?.dev)) continue; // Of the host's network.
    try {
      const netns = openNetns(path);
      if (hasAddress(netns, ips)) found.set(uid, netns);
      else netns[Symbol.dispose]();
    } catch (error) {
      if (!(error instanceof MeshError)) throw error;
      ignore(error, "the process has ended, or its namespace is not set up yet: the pod is looked for again");
    }
  }
  return found;
}

const USERS_OWN = /\/user@\d+\.service\//;

/** As {@link parseCgroups} writes uids. */
const dashed = (uid: string) => uid.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");

function candidates(procDir: string, wanted: ReadonlyMap<string, WantedPod>, log: Logger): Candidate[] {
  const list: Candidate[] = [], usersOwn = USERS_OWN.test(textOf(`${procDir}/self/cgroup`) ?? "");
  for (const { name: pid } of Deno.readDirSync(procDir)) {
    if (!/^\d+$/.test(pid)) continue;
    const cgroups = textOf(`${procDir}/${pid}/cgroup`);
    // What is below a user's own folder he has named himself, unless all of the node runs there.
    if (cgroups === undefined || (!usersOwn && USERS_OWN.test(cgroups))) continue;
    const container = parseCgroups(cgroups);
    if (container === undefined) continue;
    if ("wrong" in container) {
      log.debug("process passed over", { pid, reason: container.wrong });
      continue;
    }
    if (!wanted.has(container.podUid)) continue;
    const startedAtTicks = startTimeOf(textOf(`${procDir}/${pid}/stat`) ?? "");
    if (startedAtTicks !== undefined) list.push({ pid, uid: container.podUid, startedAtTicks });
  }
  return list;
}

/** @returns undefined when the process has ended. */
function textOf(path: string): string | undefined {
  return unlessGone(() => Deno.readTextFileSync(path));
}

function statOf(path: string): Deno.FileInfo | undefined {
  return unlessGone(() => Deno.statSync(path));
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
