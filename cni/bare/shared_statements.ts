/** What the rules of a host's own namespace are made of, and for whom they are. */
import { formatIp } from "../../base/address.ts";
import { type EnrolRequest, parseCidr } from "../../mesh/enrolment.ts";
import type { FirewallChain, IpFamily, Statement, Transport } from "../../os/netlink/nft_model.ts";
import { MARK_MASK } from "../nft_rules.ts";
import { type Cgroup, levelOf } from "./cgroups.ts";

/** Ports of ztunnel's listeners for the workload in a slot: what it sends, what comes to it without HBONE, and its DNS queries. */
export const SHARED_PORTS = { outbound: 15100, plaintext: 15300, dns: 15500 } as const;
/** Slots that a node has; the ports of the kinds do not meet. */
export const SLOTS_MAX = 128;

/** What of an enrolment its rules are made of. */
export type SharedRequest = Pick<EnrolRequest, "inboundPorts" | "address" | "ingress" | "exclude" | "dnsCapture">;

/** One workload of the host's namespace. */
export interface SharedWorkload {
  readonly slot: number;
  readonly cgroup: Cgroup;
  readonly request: SharedRequest;
  /** Nothing new is captured: its rules are left out, while what ztunnel carries goes on. */
  readonly leaving: boolean;
}

export interface SharedRuleOptions {
  readonly ipv6: boolean;
  /** Addresses and ranges that are nobody's to capture: the control plane's above all (CNI-276). */
  readonly never: readonly string[];
  /** ztunnel's own control group, where it lies in one of the workloads'. */
  readonly exempt: readonly Cgroup[];
  /** Who answers DNS on this host: captured, their own queries would come back to them. */
  readonly resolvers?: readonly Cgroup[];
}

/** Names of our own: these tables are no pod's, and Istio's agent has nothing like them. */
export const SHARED_TABLE_NAMES = {
  nat: "ambit-node-nat",
  mangle: "ambit-node-mangle",
  /** Only where a workload's DNS is captured. */
  raw: "ambit-node-raw",
} as const;

export const LOOPBACK = ["127.0.0.0/8", "::1/128"];

/** Appends a rule to a chain. */
export type Add = (chain: string, ...statements: Statement[]) => void;

export const counter: Statement = { kind: "counter" },
  accept: Statement = { kind: "accept" },
  drop: Statement = { kind: "drop" },
  leave: Statement = { kind: "return" };
export const tcp: Statement = { kind: "transport", transport: "tcp" };
export const marked = (value: number, of: "packet" | "connection" = "packet"): Statement => ({
  kind: "mark",
  of,
  mask: MARK_MASK,
  value,
});
export const toPort = (port: number, transport: Transport = "tcp"): Statement => ({
  kind: "port",
  transport,
  side: "destination",
  port,
});
export const cgroupIs = (cgroup: Cgroup): Statement => ({ kind: "cgroup", level: levelOf(cgroup), ...cgroup });

/** Of two groups one of which holds the other the inner one is meant: deepest first. */
export const innerFirst = (workloads: readonly SharedWorkload[]) =>
  [...workloads].sort((one, other) => levelOf(other.cgroup) - levelOf(one.cgroup) || one.slot - other.slot);
export const base = (
  hook: "prerouting" | "output",
  type: "nat" | "filter" | "route",
  priority: number,
): FirewallChain => ({
  name: hook,
  base: { type, hook, priority },
});
export const named = (names: readonly string[]): FirewallChain[] => names.map((name) => ({ name }));

export function rangesOf(ranges: readonly string[], { ipv6 }: Pick<SharedRuleOptions, "ipv6">): Statement[] {
  return ranges.flatMap((text): Statement[] => {
    const range = parseCidr(text);
    if (range === undefined || (range.family === "ipv6" && !ipv6)) return [];
    const ip = formatIp(range.ip[0], range.ip[1], range.ip[2], range.ip[3]), family: IpFamily = range.family;
    return [{ kind: "addressRange", family, side: "destination", ip, prefixLength: range.prefixLength }];
  });
}
