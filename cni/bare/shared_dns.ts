/** The DNS of workloads that share a host's namespace: their queries come to ztunnel, each workload's to a port of its own (CNI-125, CNI-274). */
import type { FirewallChain, FirewallRule, FirewallTable, Statement } from "../../os/netlink/nft_model.ts";
import { ZTUNNEL_MARK } from "../nft_rules.ts";
import { type Cgroup, isWithin } from "./cgroups.ts";
import {
  accept,
  type Add,
  base,
  cgroupIs,
  counter,
  drop,
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
  toPort,
} from "./shared_statements.ts";

export const DNS_PORT = 53;
const DNS_CHAIN = "dns";
const dnsChainOf = (slot: number) => `dns-${slot}`;
const capturesDns = ({ request }: SharedWorkload) => request.dnsCapture === true;

/** What the nat table has of it, and the table beside that; nothing where no workload's DNS is captured. */
export interface DnsCapture {
  readonly chains: readonly FirewallChain[];
  /** Those of the table's output chain, and those behind it. */
  readonly entry: readonly FirewallRule[];
  readonly rules: readonly FirewallRule[];
  readonly tables: readonly FirewallTable[];
}

export function dnsCapture(captured: readonly SharedWorkload[], options: SharedRuleOptions): DnsCapture {
  const asking = captured.filter(capturesDns);
  if (asking.length === 0) return { chains: [], entry: [], rules: [], tables: [] };
  const entry = (["udp", "tcp"] as const).map((transport) => ({
    chain: "output",
    statements: [toPort(DNS_PORT, transport), { kind: "jump", chain: DNS_CHAIN } as const],
  }));
  const whose = whoseQueries(captured, options), rules: FirewallRule[] = [...whose];
  const add = (chain: string, ...statements: Statement[]) => void rules.push({ chain, statements });
  for (const workload of asking) addRedirection(add, workload, options);
  const chains = named([DNS_CHAIN, ...asking.map(({ slot }) => dnsChainOf(slot))]);
  return { chains, entry, rules, tables: [rawTable(asking, whose, options)] };
}

/**
 * Whose DNS a query is: of nested groups the inner one's, whether it is captured or not. Who answers on this host asks for
 * itself, and so does ztunnel.
 */
function whoseQueries(captured: readonly SharedWorkload[], options: SharedRuleOptions): FirewallRule[] {
  const asking = captured.filter(capturesDns), rules: FirewallRule[] = [];
  const within = ({ path }: Cgroup) => asking.some(({ cgroup }) => isWithin(path, cgroup.path));
  for (const cgroup of [...options.exempt, ...options.resolvers ?? []].filter(within)) {
    rules.push({ chain: DNS_CHAIN, statements: [cgroupIs(cgroup), counter, leave] });
  }
  for (const workload of innerFirst(captured).filter(({ cgroup }) => within(cgroup))) {
    const then: Statement = capturesDns(workload) ? { kind: "jump", chain: dnsChainOf(workload.slot) } : leave;
    rules.push({ chain: DNS_CHAIN, statements: [cgroupIs(workload.cgroup), then] });
  }
  return rules;
}

/** R12 and R13, whichever nameserver is asked, also one of this host: what is left out goes there as before. */
function addRedirection(add: Add, { slot, request: { exclude } }: SharedWorkload, options: SharedRuleOptions): void {
  const chain = dnsChainOf(slot), to: Statement = { kind: "redirect", port: SHARED_PORTS.dns + slot };
  for (const range of rangesOf(exclude?.outboundCidrs ?? [], options)) add(chain, range, accept);
  if (exclude?.outboundPorts.includes(DNS_PORT)) add(chain, toPort(DNS_PORT), accept);
  for (const transport of ["udp", "tcp"] as const) add(chain, { kind: "transport", transport }, counter, to);
}

/**
 * A workload's queries, and the answers to them, are connections of a zone of their own. UDP has no end: for half a minute
 * the kernel would send whatever comes from the same address and port to the same ztunnel, that is the next program's query
 * to the workload before, and what ztunnel itself asks back to ztunnel. The replies of nameservers stay in the zone of all:
 * a host's firewall lets in what was asked for, and looks there (CNI-125 has that the other way, for pods have none).
 */
function rawTable(
  asking: readonly SharedWorkload[],
  whose: readonly FirewallRule[],
  options: SharedRuleOptions,
): FirewallTable {
  const rules: FirewallRule[] = [];
  const add = (chain: string, ...statements: Statement[]) => void rules.push({ chain, statements });
  const zoneOf = (slot: number): Statement => ({ kind: "setZone", zone: SHARED_PORTS.dns + slot });
  for (const { slot } of asking) {
    const answer: Statement = { kind: "port", transport: "udp", side: "source", port: SHARED_PORTS.dns + slot };
    add("output", marked(ZTUNNEL_MARK), answer, counter, zoneOf(slot));
  }
  add("output", marked(ZTUNNEL_MARK), accept);
  for (const { slot } of asking) refuseOthers(add, SHARED_PORTS.dns + slot);
  for (const range of rangesOf(options.never, options)) add("output", range, leave);
  add("output", toPort(DNS_PORT, "udp"), { kind: "jump", chain: DNS_CHAIN });
  rules.push(...whose);
  for (const { slot, request: { exclude } } of asking) {
    for (const range of rangesOf(exclude?.outboundCidrs ?? [], options)) add(dnsChainOf(slot), range, accept);
    add(dnsChainOf(slot), counter, zoneOf(slot), accept);
  }
  const chains = [base("output", "filter", -300), ...named([DNS_CHAIN, ...asking.map(({ slot }) => dnsChainOf(slot))])];
  return { name: SHARED_TABLE_NAMES.raw, chains, rules };
}

/** What is redirected there is still for port 53 here: what is not is of somebody who would be answered in the workload's name. */
function refuseOthers(add: Add, port: number): void {
  for (const loopback of rangesOf(LOOPBACK, { ipv6: true })) {
    for (const transport of ["udp", "tcp"] as const) add("output", loopback, toPort(port, transport), counter, drop);
  }
}
