/** The redirection rules of a host's own namespace for the workloads that share it, as data (CNI-274 to CNI-276). */
import { formatIp } from "../../base/address.ts";
import { type EnrolRequest, parseCidr, SSH_PORT } from "../../mesh/enrolment.ts";
import type { FirewallChain, FirewallRule, FirewallTable, IpFamily, Statement } from "../../os/netlink/nft_model.ts";
import { MARK_MASK, REPLY_MARK, ZTUNNEL_MARK } from "../nft_rules.ts";
import { type Cgroup, isWithin, levelOf } from "./cgroups.ts";

/** Ports of ztunnel's listeners for the workload in a slot: what it sends, and what comes to it without HBONE. */
export const SHARED_PORTS = { outbound: 15100, plaintext: 15300 } as const;
/** Slots that a node has; the ports of the two kinds do not meet. */
export const SLOTS_MAX = 128;

/** One workload of the host's namespace. */
export interface SharedWorkload {
  readonly slot: number;
  readonly cgroup: Cgroup;
  readonly request: Pick<EnrolRequest, "inboundPorts" | "address" | "ingress" | "exclude">;
  /** Nothing new is captured: its rules are left out, while what ztunnel carries goes on. */
  readonly leaving: boolean;
}

export interface SharedRuleOptions {
  readonly ipv6: boolean;
  /** Addresses and ranges that are nobody's to capture: the control plane's above all (CNI-276). */
  readonly never: readonly string[];
  /** ztunnel's own control group, where it lies in one of the workloads'. */
  readonly exempt: readonly Cgroup[];
}

/** Names of our own: these tables are no pod's, and Istio's agent has nothing like them. */
export const SHARED_TABLE_NAMES = { nat: "ambit-node-nat", mangle: "ambit-node-mangle" } as const;

const LINK_LOCAL = ["169.254.0.0/16", "fe80::/10"], LOOPBACK = ["127.0.0.0/8", "::1/128"];

const counter: Statement = { kind: "counter" },
  accept: Statement = { kind: "accept" },
  leave: Statement = { kind: "return" };
const tcp: Statement = { kind: "transport", transport: "tcp" };
const marked = (value: number, of: "packet" | "connection" = "packet"): Statement => ({
  kind: "mark",
  of,
  mask: MARK_MASK,
  value,
});
const toPort = (port: number): Statement => ({
  kind: "port",
  transport: "tcp",
  side: "destination",
  port,
});
const cgroupIs = (cgroup: Cgroup): Statement => ({ kind: "cgroup", level: levelOf(cgroup), ...cgroup });

/** nat and mangle of all workloads together: replaced as a whole, so that a packet sees one state or the other. */
export function sharedTables(workloads: readonly SharedWorkload[], options: SharedRuleOptions): FirewallTable[] {
  const captured = [...workloads].filter(({ leaving }) => !leaving).sort((one, other) => one.slot - other.slot);
  const rules: FirewallRule[] = [];
  const add = (chain: string, ...statements: Statement[]) => void rules.push({ chain, statements });
  add("prerouting", marked(ZTUNNEL_MARK), counter, accept);
  for (const workload of captured) addInbound(add, workload, options);
  add("output", marked(REPLY_MARK), counter, accept);
  add("output", marked(ZTUNNEL_MARK), counter, accept);
  for (const range of rangesOf([...LOOPBACK, ...LINK_LOCAL, ...options.never], options)) add("output", range, leave);
  add("output", toPort(SSH_PORT), leave);
  // Of two groups one of which holds the other the inner one is meant: deepest first.
  const exempt = options.exempt.filter(({ path }) => captured.some(({ cgroup }) => isWithin(path, cgroup.path)));
  for (const cgroup of exempt) add("output", tcp, cgroupIs(cgroup), counter, leave);
  const inner = [...captured].sort((one, other) =>
    levelOf(other.cgroup) - levelOf(one.cgroup) || one.slot - other.slot
  );
  for (const { slot, cgroup } of inner) {
    add("output", tcp, cgroupIs(cgroup), { kind: "jump", chain: chainOf(slot) });
  }
  for (const workload of captured) addOutbound(add, workload, options);
  const own = captured.map(({ slot }): FirewallChain => ({ name: chainOf(slot) }));
  return [
    {
      name: SHARED_TABLE_NAMES.nat,
      chains: [base("prerouting", "nat", -100), base("output", "nat", -100), ...own],
      rules,
    },
    mangleTable(),
  ];
}

type Add = (chain: string, ...statements: Statement[]) => void;

const chainOf = (slot: number) => `workload-${slot}`;
const base = (hook: "prerouting" | "output", type: "nat" | "filter" | "route", priority: number): FirewallChain => ({
  name: hook,
  base: { type, hook, priority },
});

/** What is for a declared port of the host itself; ztunnel judges it before the application hears of it (CNI-275). */
function addInbound(add: Add, { slot, request }: SharedWorkload, options: SharedRuleOptions): void {
  const { inboundPorts = [], address, ingress, exclude } = request;
  if (ingress === true) return;
  const to: Statement = { kind: "redirect", port: SHARED_PORTS.plaintext + slot };
  const at = address === undefined ? [{ kind: "localDestination" } as const] : rangesOf([address], options);
  for (const port of inboundPorts.filter((it) => it !== SSH_PORT && exclude?.inboundPorts.includes(it) !== true)) {
    for (const destination of at) add("prerouting", toPort(port), destination, counter, to);
  }
}

/** What the group's sockets send, but for this host and what was excluded: that is not for a group around it either (R15, CNI-276). */
function addOutbound(add: Add, { slot, request: { exclude } }: SharedWorkload, options: SharedRuleOptions): void {
  const chain = chainOf(slot);
  add(chain, { kind: "localDestination" }, accept);
  for (const port of exclude?.outboundPorts ?? []) add(chain, toPort(port), accept);
  for (const range of rangesOf(exclude?.outboundCidrs ?? [], options)) add(chain, range, accept);
  add(chain, tcp, counter, { kind: "redirect", port: SHARED_PORTS.outbound + slot });
}

/** R3 and R4: an application's replies to a connection that ztunnel opened with the original source come back to ztunnel. */
function mangleTable(): FirewallTable {
  return {
    name: SHARED_TABLE_NAMES.mangle,
    chains: [base("prerouting", "filter", -150), base("output", "route", -150)],
    rules: [
      {
        chain: "prerouting",
        statements: [
          marked(ZTUNNEL_MARK),
          { kind: "interface", direction: "in", name: "lo" },
          counter,
          { kind: "setConnectionMark", keep: ~MARK_MASK >>> 0, set: REPLY_MARK },
        ],
      },
      {
        chain: "output",
        statements: [marked(REPLY_MARK, "connection"), counter, { kind: "restoreMark" }],
      },
    ],
  };
}

function rangesOf(ranges: readonly string[], { ipv6 }: SharedRuleOptions): Statement[] {
  return ranges.flatMap((text): Statement[] => {
    const range = parseCidr(text);
    if (range === undefined || (range.family === "ipv6" && !ipv6)) return [];
    const ip = formatIp(range.ip[0], range.ip[1], range.ip[2], range.ip[3]), family: IpFamily = range.family;
    return [{ kind: "addressRange", family, side: "destination", ip, prefixLength: range.prefixLength }];
  });
}
