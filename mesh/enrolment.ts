/** What an operator asks the node agent of a bare node: put this into the mesh as that workload (CNI-271). */
import { type IpWords, parseIp } from "../base/address.ts";

/**
 * What can be enrolled. `netns/NAME`, `netns-path:/PATH`, `pid/N` and `container/ID` have a network namespace of their own;
 * `unit/NAME.service` and `cgroup/PATH` are processes in the host's, told from others by their control group.
 */
export type EnrolTarget =
  | { readonly kind: "netns"; readonly name: string; readonly text: string }
  | { readonly kind: "netns-path"; readonly path: string; readonly text: string }
  | { readonly kind: "pid"; readonly pid: number; readonly text: string }
  | { readonly kind: "container"; readonly id: string; readonly text: string }
  | { readonly kind: "unit"; readonly unit: string; readonly text: string }
  | { readonly kind: "cgroup"; readonly path: string; readonly text: string };

/** The forms of a target in words, for messages. */
export const TARGET_FORMS = "netns/NAME, netns-path:/PATH, pid/N, container/ID, unit/NAME.service or cgroup/PATH";

/** What is left out of capture. */
export interface Exclusions {
  readonly outboundPorts: readonly number[];
  /** Ranges such as `10.0.0.0/8`. */
  readonly outboundCidrs: readonly string[];
  readonly inboundPorts: readonly number[];
}

export interface EnrolRequest {
  readonly target: EnrolTarget;
  /** With `serviceAccount`, the identity that the workload gets. */
  readonly namespace: string;
  readonly serviceAccount: string;
  /** The pod's name: how the workload is called in the mesh configuration. */
  readonly name: string;
  /** Whether its DNS queries go to ztunnel; undefined: as the node agent is set. */
  readonly dnsCapture?: boolean;
  /** Ports that it serves. Required of a target in the host's namespace that is to be reached: nothing else is redirected there (CNI-275). */
  readonly inboundPorts?: readonly number[];
  /** The address of the host that it serves on; undefined: every one. For targets in the host's namespace. */
  readonly address?: string;
  /** It takes connections from outside of the mesh itself: inbound is not captured (CNI-126). */
  readonly ingress?: boolean;
  readonly exclude?: Exclusions;
}

/** `waiting`: the unit does not run; it is captured when it does. `enrolling` and `unenrolling` are seen while it happens, or after a crash in the middle of it. */
export const ENROLMENT_STATES = ["enrolling", "enrolled", "waiting", "unenrolling"] as const;
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
  /** For a target in the host's namespace: its control group, and the port where ztunnel takes what it sends. */
  readonly cgroup?: string;
  readonly outboundPort?: number;
  /** Where ztunnel takes what comes to it without HBONE, where it serves anything, and its DNS queries, where they are captured. */
  readonly plaintextPort?: number;
  readonly dnsPort?: number;
  readonly inboundPorts?: readonly number[];
  /** What the last check of its rules found, or why the last attempt failed. Empty: all in place. */
  readonly problems: readonly string[];
}

export interface NodeStatus {
  readonly ztunnel: { readonly connections: number; readonly synchronized: boolean };
  readonly pods: readonly EnrolmentStatus[];
  /** Files of the enrolment folder that are wrong, and what they name that could not be enrolled. */
  readonly problems: readonly string[];
}

const NETNS_NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/;
const OBJECT_NAME = /^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$/; // RFC 1123 §2.1, at most 253 characters
const CONTAINER_ID = /^[A-Za-z0-9][A-Za-z0-9_.-]{2,127}$/;
/** As systemd writes the names of units: an escape is `\\x2d`. */
const UNIT_NAME = /^[A-Za-z0-9:_.@\\-]{1,247}\.(service|scope|slice)$/;
const PATH_CHARACTERS_MAX = 1024, PORTS_MAX = 15, CIDRS_MAX = 64;

/** Never captured on a host: by what a person reaches a node that he has cut off (CNI-276). */
export const SSH_PORT = 22;

/** Parses the forms of a target. @returns undefined for anything else. */
export function parseEnrolTarget(text: string): EnrolTarget | undefined {
  const path = /^netns-path:(\/.+)$/.exec(text)?.[1];
  if (path !== undefined) return isPath(path) ? { kind: "netns-path", path, text } : undefined;
  const [, kind, value] = /^([a-z]+)\/(.+)$/.exec(text) ?? [];
  if (kind === undefined || value === undefined) return undefined;
  switch (kind) {
    case "netns":
      return NETNS_NAME.test(value) ? { kind, name: value, text } : undefined;
    case "pid":
      return /^[1-9]\d{0,8}$/.test(value) ? { kind, pid: Number(value), text } : undefined;
    case "container":
      return CONTAINER_ID.test(value) ? { kind, id: value, text } : undefined;
    case "unit":
      return UNIT_NAME.test(value) ? { kind, unit: value, text } : undefined;
    case "cgroup": // The root would be every process there is.
      return isPath(value) && !value.split("/").some((part) => part === "" || part === "." || part === "..")
        ? { kind, path: value, text }
        : undefined;
  }
  return undefined;
}

const isPath = (path: string) => path.length <= PATH_CHARACTERS_MAX && !/[\0\n]/.test(path);

/** Whether its processes are in the host's network namespace, beside those of others. */
export const isShared = ({ kind }: EnrolTarget): boolean => kind === "unit" || kind === "cgroup";

/** Whether it is named by a process's number, which another has later. */
export const isProcess = (target: EnrolTarget): boolean =>
  target.kind === "pid" || (target.kind === "netns-path" && /^\/+proc\/+(\d+|self|thread-self)\//.test(target.path));

/** Reads a request that came from outside. @returns What is wrong with it, as a sentence, when it is none. */
export function parseEnrolRequest(value: unknown): EnrolRequest | { readonly wrong: string } {
  if (typeof value !== "object" || value === null) return { wrong: "the request is no JSON object" };
  const fields = value as Readonly<Record<string, unknown>>;
  const target = typeof fields.target === "string" ? parseEnrolTarget(fields.target) : undefined;
  if (target === undefined) return { wrong: `target is none of ${TARGET_FORMS}` };
  const names: Record<string, string> = {};
  for (const field of ["namespace", "serviceAccount", "name"] as const) {
    const name = fields[field];
    if (typeof name !== "string" || !OBJECT_NAME.test(name)) {
      return { wrong: `${field} is not 1 to 253 lower case letters, digits, dots and dashes` };
    }
    names[field] = name;
  }
  const capture = readCapture(fields, target);
  if ("wrong" in capture) return capture;
  const { namespace, serviceAccount, name } = names;
  return { target, namespace: namespace!, serviceAccount: serviceAccount!, name: name!, ...capture };
}

type Capture = Pick<EnrolRequest, "dnsCapture" | "inboundPorts" | "address" | "ingress" | "exclude">;

/** What is captured of the workload's traffic; only what was said is in the result. */
function readCapture(fields: Readonly<Record<string, unknown>>, target: EnrolTarget): Capture | { wrong: string } {
  const { dnsCapture, inboundPorts, address, ingress, exclude } = fields;
  for (const [name, flag] of Object.entries({ dnsCapture, ingress })) {
    if (flag !== undefined && typeof flag !== "boolean") return { wrong: `${name} is no boolean` };
  }
  if (inboundPorts !== undefined && !arePorts(inboundPorts, PORTS_MAX)) {
    return { wrong: `inboundPorts is no list of at most ${PORTS_MAX} ports from 1 to 65535` };
  }
  if (address !== undefined && (typeof address !== "string" || parseIp(address) === undefined)) {
    return { wrong: "address is no IP address" };
  }
  const exclusions = exclude === undefined ? undefined : readExclusions(exclude);
  if (exclusions !== undefined && "wrong" in exclusions) return exclusions;
  if (isShared(target)) {
    if ((inboundPorts as readonly number[] | undefined)?.includes(SSH_PORT)) {
      return { wrong: "inboundPorts has 22, which is never captured on a host" };
    }
  } else if (inboundPorts !== undefined || address !== undefined) {
    return {
      wrong: "inboundPorts and address are only for units and control groups: elsewhere every port is captured",
    };
  }
  const said = { dnsCapture, inboundPorts, address, ingress, exclude: exclusions };
  return Object.fromEntries(Object.entries(said).filter(([, it]) => it !== undefined)) as Capture;
}

function readExclusions(value: unknown): Exclusions | { readonly wrong: string } {
  if (typeof value !== "object" || value === null) return { wrong: "exclude is no map" };
  const { outboundPorts = [], outboundCidrs = [], inboundPorts = [] } = value as Readonly<Record<string, unknown>>;
  if (!arePorts(outboundPorts, CIDRS_MAX)) return { wrong: "exclude.outboundPorts is no list of ports" };
  if (!arePorts(inboundPorts, CIDRS_MAX)) return { wrong: "exclude.inboundPorts is no list of ports" };
  if (!Array.isArray(outboundCidrs) || outboundCidrs.length > CIDRS_MAX) {
    return { wrong: `exclude.outboundCidrs is no list of at most ${CIDRS_MAX}` };
  }
  const wrong = outboundCidrs.find((it) => typeof it !== "string" || parseCidr(it) === undefined);
  if (wrong !== undefined) return { wrong: `exclude.outboundCidrs: ${JSON.stringify(wrong)} is no address range` };
  return { outboundPorts, outboundCidrs: outboundCidrs as string[], inboundPorts };
}

function arePorts(value: unknown, countMax: number): value is number[] {
  return Array.isArray(value) && value.length <= countMax &&
    value.every((port) => Number.isInteger(port) && port >= 1 && port <= 65_535);
}

/** A range of addresses; one address alone counts as the range of itself. */
export interface Cidr {
  readonly family: "ipv4" | "ipv6";
  readonly ip: IpWords;
  readonly prefixLength: number;
}

/** @returns undefined for anything else than `ADDRESS` or `ADDRESS/LENGTH`. */
export function parseCidr(text: string): Cidr | undefined {
  const [address, length, more] = text.split("/");
  const ip = address === undefined || more !== undefined ? undefined : parseIp(address);
  if (ip === undefined) return undefined;
  const family = address!.includes(":") ? "ipv6" : "ipv4", bits = family === "ipv4" ? 32 : 128;
  if (length === undefined) return { family, ip, prefixLength: bits };
  if (!/^\d{1,3}$/.test(length) || Number(length) > bits) return undefined;
  return { family, ip, prefixLength: Number(length) };
}
