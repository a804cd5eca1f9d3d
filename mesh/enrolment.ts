/** What an operator asks the node agent of a bare node: put this network namespace into the mesh as that workload (CNI-271). */

/** Something that has a network namespace of its own: `netns/NAME`, `netns-path:/PATH` or `pid/N`. */
export type EnrolTarget =
  | { readonly kind: "netns"; readonly name: string; readonly text: string }
  | { readonly kind: "netns-path"; readonly path: string; readonly text: string }
  | { readonly kind: "pid"; readonly pid: number; readonly text: string };

export interface EnrolRequest {
  readonly target: EnrolTarget;
  /** With `serviceAccount`, the identity that the workload gets. */
  readonly namespace: string;
  readonly serviceAccount: string;
  /** The pod's name: how the workload is called in the mesh configuration. */
  readonly name: string;
  /** Whether its DNS queries go to ztunnel; undefined: as the node agent is set. */
  readonly dnsCapture?: boolean;
}

/** `enrolling` and `unenrolling` are seen while it happens, or after a crash in the middle of it. */
export const ENROLMENT_STATES = ["enrolling", "enrolled", "unenrolling"] as const;
export type EnrolmentState = (typeof ENROLMENT_STATES)[number];

/** One enrolled target as the node agent shows it. */
export interface EnrolmentStatus {
  readonly target: string;
  readonly uid: string;
  readonly namespace: string;
  readonly serviceAccount: string;
  readonly name: string;
  readonly state: EnrolmentState;
  /** What its own enrolment says of DNS; undefined: nothing, the node agent's setting holds. */
  readonly dnsCapture?: boolean;
  /** Inode of the network namespace. */
  readonly netnsInode: number;
  /** What the last check of its rules found, or why the last attempt failed. Empty: all in place. */
  readonly problems: readonly string[];
}

export interface NodeStatus {
  readonly ztunnel: { readonly connections: number; readonly synchronized: boolean };
  readonly pods: readonly EnrolmentStatus[];
}

const NETNS_NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/;
const OBJECT_NAME = /^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$/; // RFC 1123 §2.1, at most 253 characters
const PATH_CHARACTERS_MAX = 1024;

/** Parses the three forms of a target. @returns undefined for anything else. */
export function parseEnrolTarget(text: string): EnrolTarget | undefined {
  const netns = /^netns\/(.+)$/.exec(text)?.[1];
  if (netns !== undefined) return NETNS_NAME.test(netns) ? { kind: "netns", name: netns, text } : undefined;
  const path = /^netns-path:(\/.+)$/.exec(text)?.[1];
  if (path !== undefined) {
    const fine = path.length <= PATH_CHARACTERS_MAX && !path.includes("\0");
    return fine ? { kind: "netns-path", path, text } : undefined;
  }
  const pid = /^pid\/([1-9]\d{0,8})$/.exec(text)?.[1];
  return pid === undefined ? undefined : { kind: "pid", pid: Number(pid), text };
}

/** Reads a request that came from outside. @returns What is wrong with it, as a sentence, when it is none. */
export function parseEnrolRequest(value: unknown): EnrolRequest | { readonly wrong: string } {
  if (typeof value !== "object" || value === null) return { wrong: "the request is no JSON object" };
  const fields = value as Readonly<Record<string, unknown>>;
  const target = typeof fields.target === "string" ? parseEnrolTarget(fields.target) : undefined;
  if (target === undefined) return { wrong: "target is none of netns/NAME, netns-path:/PATH and pid/N" };
  const names: Record<string, string> = {};
  for (const field of ["namespace", "serviceAccount", "name"] as const) {
    const name = fields[field];
    if (typeof name !== "string" || !OBJECT_NAME.test(name)) {
      return { wrong: `${field} is not 1 to 253 lower case letters, digits, dots and dashes` };
    }
    names[field] = name;
  }
  const { dnsCapture } = fields;
  if (dnsCapture !== undefined && typeof dnsCapture !== "boolean") return { wrong: "dnsCapture is no boolean" };
  const { namespace, serviceAccount, name } = names;
  const request = { target, namespace: namespace!, serviceAccount: serviceAccount!, name: name! };
  return dnsCapture === undefined ? request : { ...request, dnsCapture };
}
