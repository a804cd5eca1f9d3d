/** Which pod a process is of, by its control groups (CNI-087). Pure. */

export interface ContainerOfProcess {
  /** Empty where the path does not say, as with CRI-O. */
  readonly podUid: string;
  readonly containerId: string;
}

/** What stands around a pod's uid in a path: `kubepods-burstable-pod2b7e…_….slice` or `/pod2b7e…/`. */
const POD =
  /[^\w]?pod([0-9a-f]{8}[^0-9a-z]?[0-9a-f]{4}[^0-9a-z]?[0-9a-f]{4}[^0-9a-z]?[0-9a-f]{4}[^0-9a-z]?[0-9a-f]{12})(?=[^0-9a-z]|$)/i;
const CONTAINER = /([0-9A-Za-z]+)$/;
const UID_GROUPS = /^([0-9a-f]{8})([0-9a-f]{4})([0-9a-f]{4})([0-9a-f]{4})([0-9a-f]{12})$/;
const LINES_MAX = 64;

/**
 * Reads `/proc/PID/cgroup`. @returns undefined for a process of no pod, and `{ wrong }` where two lines name two
 * containers or two pods.
 */
export function parseCgroups(text: string): ContainerOfProcess | { readonly wrong: string } | undefined {
  let found: ContainerOfProcess | undefined;
  for (const line of text.split("\n").slice(0, LINES_MAX)) {
    const path = /^\d+:[^:]*:(.*)$/.exec(line)?.[1]?.replace(/\.scope$/, "");
    const uid = path === undefined ? undefined : POD.exec(path)?.[1];
    if (path === undefined || uid === undefined) continue;
    const after = path.slice(path.indexOf(uid) + uid.length), containerId = CONTAINER.exec(after)?.[1];
    const groups = UID_GROUPS.exec(uid.replace(/[^0-9a-f]/gi, "").toLowerCase());
    if (containerId === undefined || groups === null || containerId === "slice") continue;
    const one = { podUid: groups.slice(1).join("-"), containerId };
    if (found !== undefined && (found.podUid !== one.podUid || found.containerId !== one.containerId)) {
      return { wrong: `control groups name two containers: ${found.containerId} and ${containerId}` };
    }
    found = one;
  }
  return found;
}

/** Field 22 of `/proc/PID/stat`, counted behind the last `)`, since a program's name may hold anything (CNI-086). */
export function startTimeOf(stat: string): number | undefined {
  const fields = stat.slice(stat.lastIndexOf(")") + 1).trim().split(/\s+/);
  const ticks = Number(fields[19]);
  return fields.length > 19 && Number.isSafeInteger(ticks) ? ticks : undefined;
}
