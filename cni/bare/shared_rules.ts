/** The redirection rules of a host's own namespace for the workloads that share it, as data (CNI-274 to CNI-276). */
import { SSH_PORT } from "../../mesh/enrolment.ts";
import type { FirewallRule, FirewallTable, Statement } from "../../os/netlink/nft_model.ts";
import { MARK_MASK, REPLY_MARK, ZTUNNEL_MARK } from "../nft_rules.ts";
import { isWithin } from "./cgroups.ts";
import { dnsCapture } from "./shared_dns.ts";
import {
  accept,
  type Add,
  base,
  cgroupIs,
  counter,
  innerFirst,
  leave,
  LOOPBACK,
  marked,
  named,
  rangesOf,
  SHARED_PORTS,
  SHARED_TABLE_NAMES,
  type SharedRuleOptions,
  type SharedWorkload,
  tcp,
  toPort,
} from "./shared_statements.ts";

const LINK_LOCAL = ["169.254.0.0/16", "fe80::/10"];

/** The tables of all workloads together: replaced as a whole, so that a packet sees one state or the other. */
export function sharedTables(workloads: readonly SharedWorkload[], options: SharedRuleOptions): FirewallTable[] {
  const captured = [...workloads].filter(({ leaving }) => !leaving).sort((one, other) => one.slot - other.slot);
  const rules: FirewallRule[] = [];
  const add = (chain: string, ...statements: Statement[]) => void rules.push({ chain, statements });
  add("prerouting", marked(ZTUNNEL_MARK), counter, accept);
  for (const workload of captured) addInbound(add, workload);
  add("output", marked(REPLY_MARK), counter, accept);
  add("output", marked(ZTUNNEL_MARK), counter, accept);
  for (const range of rangesOf(options.never, options)) add("output", range, leave);
  const dns = dnsCapture(captured, options); // Before loopback is left alone: there the host's own resolver is asked.
  rules.push(...dns.entry);
  for (const range of rangesOf([...LOOPBACK, ...LINK_LOCAL], options)) add("output", range, leave);
  add("output", toPort(SSH_PORT), leave);
  const exempt = options.exempt.filter(({ path }) => captured.some(({ cgroup }) => isWithin(path, cgroup.path)));
  for (const cgroup of exempt) add("output", tcp, cgroupIs(cgroup), counter, leave);
  for (const { slot, cgroup } of innerFirst(captured)) {
    add("output", tcp, cgroupIs(cgroup), { kind: "jump", chain: chainOf(slot) });
  }
  for (const workload of captured) addOutbound(add, workload, options);
  rules.push(...dns.rules);
  const own = named(captured.map(({ slot }) => chainOf(slot)));
  return [
    {
      name: SHARED_TABLE_NAMES.nat,
      chains: [base("prerouting", "nat", -100), base("output", "nat", -100), ...own, ...dns.chains],
      rules,
    },
    mangleTable(),
    ...dns.tables,
  ];
}

const chainOf = (slot: number) => `workload-${slot}`;

/** What is for a declared port of the host itself; ztunnel judges it before the application hears of it (CNI-275). */
function addInbound(add: Add, { slot, request }: SharedWorkload): void {
  const { inboundPorts = [], address, ingress, exclude } = request;
  if (ingress === true) return;
  const to: Statement = { kind: "redirect", port: SHARED_PORTS.plaintext + slot };
  // Also of a family that loopback does not have: then it is refused, rather than let in past the mesh.
  const at = address === undefined ? [{ kind: "localDestination" } as const] : rangesOf([address], { ipv6: true });
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
