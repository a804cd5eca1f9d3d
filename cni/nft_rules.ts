/** The redirection rules of a pod's network namespace, as data (CNI-120 to CNI-133): R1 to R20 for nftables. */
import { formatIp } from "../base/address.ts";
import { assert } from "../base/assert.ts";
import { type Exclusions, parseCidr } from "../mesh/enrolment.ts";
import type { FirewallChain, FirewallRule, FirewallTable, IpFamily, Statement } from "../os/netlink/nft_model.ts";
import type { MarkRule, Route } from "../os/netlink/rtnetlink.ts";

/** Where ztunnel listens in the pod (CNI section 4). */
export const CAPTURE_PORTS = { outbound: 15001, inboundPlaintext: 15006, inboundHbone: 15008, dns: 15053 } as const;

/** Bits of a mark that are ours. */
export const MARK_MASK = 0xfff;
/** M: on every socket that ztunnel opens in the pod (CNI-121). */
export const ZTUNNEL_MARK = 0x539;
/** T: on the application's replies to a connection that ztunnel opened with the original source. */
export const REPLY_MARK = 0x111;
/** PR: what the node's own probes come from, after the host's source NAT (CNI-180). */
export const PROBE_ADDRESS = { ipv4: "169.254.7.127", ipv6: "fd16:9254:7127:1337:ffff:ffff:ffff:ffff" } as const;

const LOOPBACK = { ipv4: "127.0.0.1", ipv6: "::1" } as const;
const DNS_PORT = 53, DNS_ZONE = 1;
const ENTRY = { prerouting: "istio-prerouting", output: "istio-output" } as const;

/** The tables' names, which Istio's own agent shares, so that either can take over from the other (CNI-144). */
export const TABLE_NAMES = {
  nat: "istio-ambient-nat",
  mangle: "istio-ambient-mangle",
  raw: "istio-ambient-raw",
} as const;

/** The address of each family that the node's probes come from. */
export type ProbeSource = Readonly<Record<IpFamily, string>>;

export interface RedirectionOptions {
  readonly ipv6: boolean;
  /** What pods let through as the node's own probes, where it is not PR (CNI-189). */
  readonly probe?: ProbeSource;
  /** R12, R13, R17 to R20 (CNI-125). */
  readonly dnsCapture?: boolean;
  /** Inbound is not captured: R9 and R11 are left out (CNI-126). */
  readonly ingress?: boolean;
  /** What is left out of capture: ports and ranges, before the redirections (CNI-099). */
  readonly exclude?: Exclusions;
  /** Only segments that begin a connection are redirected: those that stand already go on past the mesh (CNI-127). */
  readonly graceful?: boolean;
  /** Interfaces whose inbound traffic counts as outbound: R7 and R8 for each. */
  readonly virtualInterfaces?: readonly string[];
}

type TableKey = keyof typeof TABLE_NAMES;
type EntryChain = keyof typeof ENTRY;
interface Placed {
  readonly table: TableKey;
  readonly rule: FirewallRule;
}

const counter: Statement = { kind: "counter" };
const tcp: Statement = { kind: "transport", transport: "tcp" };
const toPort = (port: number): Statement[] => [counter, { kind: "redirect", port }];
const marked = (value: number, negated = false): Statement => ({
  kind: "mark",
  of: "packet",
  mask: MARK_MASK,
  value,
  negated,
});
const notFromZtunnel = marked(ZTUNNEL_MARK, true);
const destinationPort = (transport: "tcp" | "udp", port: number, negated = false): Statement => ({
  kind: "port",
  transport,
  side: "destination",
  port,
  negated,
});
const sourcePort = (transport: "tcp" | "udp", port: number): Statement => ({
  kind: "port",
  transport,
  side: "source",
  port,
});
const notToLoopback = (family: IpFamily): Statement => ({
  kind: "address",
  family,
  side: "destination",
  ip: LOOPBACK[family],
  withPrefixLength: true,
  negated: true,
});

/** The tables in the order of their transaction; one without rules is left out (CNI-130). */
export function redirectionTables(options: RedirectionOptions): FirewallTable[] {
  const placed = rulesInOrder(options);
  return (["nat", "mangle", "raw"] as const).flatMap((key) => {
    const rules = placed.filter(({ table }) => table === key).map(({ rule }) => rule);
    return rules.length === 0 ? [] : [{ name: TABLE_NAMES[key], chains: chainsOf(key, rules), rules }];
  });
}

/**
 * The nat table while a pod leaves: nothing new is redirected, but its chains keep the kernel translating the connections
 * that were. Without them an application's next bytes on such a connection would go to where it believes to be connected.
 */
export function leavingTable(): FirewallTable {
  const chains = (["prerouting", "output"] as const).map((hook) => ({
    name: hook,
    base: { hook, ...HOOKS.nat[hook] },
  }));
  return { name: TABLE_NAMES.nat, chains, rules: [] };
}

/** Names of our tables that these options do not use, and that a change of options must therefore remove. */
export function unusedTableNames(tables: readonly FirewallTable[]): string[] {
  return Object.values(TABLE_NAMES).filter((name) => tables.every((table) => table.name !== name));
}

/** The rules in the order of CNI-124; twins of the two families are adjacent (CNI-130). */
function rulesInOrder(options: RedirectionOptions): Placed[] {
  const families: readonly IpFamily[] = options.ipv6 ? ["ipv4", "ipv6"] : ["ipv4"];
  const dns = options.dnsCapture === true, inbound = options.ingress !== true;
  const begins: readonly Statement[] = options.graceful === true ? [{ kind: "begins", transport: "tcp" }] : [];
  const source: ProbeSource = options.probe ?? PROBE_ADDRESS;
  const probe = (family: IpFamily, side: "source" | "destination"): Statement => ({
    kind: "address",
    family,
    side,
    ip: source[family],
  });
  const placed: Placed[] = [];
  const add = (table: TableKey, chain: string, ...statements: Statement[]) => {
    placed.push({ table, rule: { chain, statements } });
  };
  const enter = (table: TableKey, at: EntryChain) => add(table, at, { kind: "jump", chain: ENTRY[at] });
  const prerouting = ENTRY.prerouting, output = ENTRY.output;

  enter("mangle", "prerouting"); // R1
  enter("mangle", "output"); // R2
  enter("nat", "output"); // R5
  if (dns) {
    enter("raw", "prerouting"); // R17
    enter("raw", "output"); // R18
  }
  enter("nat", "prerouting"); // R6
  for (const name of options.virtualInterfaces ?? []) {
    const from: Statement = { kind: "interface", direction: "in", name };
    add("nat", prerouting, from, tcp, ...toPort(CAPTURE_PORTS.outbound)); // R7
    add("nat", prerouting, from, tcp, counter, { kind: "return" }); // R8
  }
  // R3: connections that ztunnel opens toward the application over lo are remembered …
  add("mangle", prerouting, marked(ZTUNNEL_MARK), counter, {
    kind: "setConnectionMark",
    keep: ~MARK_MASK >>> 0,
    set: REPLY_MARK,
  });
  if (inbound) {
    for (const family of families) add("nat", prerouting, tcp, probe(family, "source"), counter, { kind: "accept" }); // R9
  }
  for (const family of families) add("nat", output, tcp, probe(family, "destination"), counter, { kind: "accept" }); // R10
  if (inbound) {
    for (const port of options.exclude?.inboundPorts ?? []) {
      add("nat", prerouting, destinationPort("tcp", port), counter, { kind: "return" });
    }
    for (const family of families) { // R11
      const notHbone = destinationPort("tcp", CAPTURE_PORTS.inboundHbone, true);
      const redirect = toPort(CAPTURE_PORTS.inboundPlaintext);
      add("nat", prerouting, notToLoopback(family), notHbone, ...begins, notFromZtunnel, ...redirect);
    }
  }
  // R4: … so that the application's replies carry T, and the policy route brings them back to ztunnel.
  add(
    "mangle",
    output,
    { kind: "mark", of: "connection", mask: MARK_MASK, value: REPLY_MARK },
    counter,
    { kind: "restoreMark" },
  );
  for (const excluded of excludedOutbound(options)) add("nat", output, excluded, counter, { kind: "return" });
  if (dns) {
    addDnsRules(add, families, begins);
  }
  add("nat", output, tcp, marked(REPLY_MARK), counter, { kind: "accept" }); // R14
  for (const family of families) { // R15
    const overLoopback: Statement = { kind: "interface", direction: "out", name: "lo" };
    add("nat", output, overLoopback, notToLoopback(family), counter, { kind: "accept" });
  }
  for (const family of families) { // R16
    add("nat", output, tcp, notToLoopback(family), ...begins, notFromZtunnel, ...toPort(CAPTURE_PORTS.outbound));
  }
  return placed;
}

function addDnsRules(
  add: (table: TableKey, chain: string, ...statements: Statement[]) => void,
  families: readonly IpFamily[],
  begins: readonly Statement[],
): void {
  const notOverLoopback: Statement = { kind: "interface", direction: "out", name: "lo", negated: true };
  const zone: Statement = { kind: "setZone", zone: DNS_ZONE };
  const toDns = toPort(CAPTURE_PORTS.dns);
  add("nat", ENTRY.output, notOverLoopback, notFromZtunnel, destinationPort("udp", DNS_PORT), ...toDns); // R12
  for (const family of families) { // R13
    const query = destinationPort("tcp", DNS_PORT);
    add("nat", ENTRY.output, notToLoopback(family), query, ...begins, notFromZtunnel, ...toDns);
  }
  add("raw", ENTRY.output, destinationPort("udp", DNS_PORT), marked(ZTUNNEL_MARK), counter, zone); // R19
  add("raw", ENTRY.prerouting, sourcePort("udp", DNS_PORT), notFromZtunnel, counter, zone); // R20
}

/** Ports of TCP, and ranges whatever the protocol, DNS too. Asserts that the ranges were parsed before. */
function excludedOutbound({ ipv6, exclude }: RedirectionOptions): Statement[] {
  const ranges = (exclude?.outboundCidrs ?? []).map((text) => {
    const range = parseCidr(text);
    assert(range !== undefined, "an excluded range is one");
    return range;
  });
  return [
    ...(exclude?.outboundPorts ?? []).map((port) => destinationPort("tcp", port)),
    ...ranges.filter(({ family }) => ipv6 || family === "ipv4").map(({ family, ip, prefixLength }): Statement => ({
      kind: "addressRange",
      family,
      side: "destination",
      ip: formatIp(...ip),
      prefixLength,
    })),
  ];
}

/** Base chains before those they jump to, and only those that have a rule or are jumped to (CNI-130). */
function chainsOf(key: TableKey, rules: readonly FirewallRule[]): FirewallChain[] {
  const hooks = (["prerouting", "output"] as const).filter((hook) => rules.some(({ chain }) => chain === hook));
  const base = hooks.map((hook): FirewallChain => ({ name: hook, base: { hook, ...HOOKS[key][hook] } }));
  return [...base, ...hooks.map((hook) => ({ name: ENTRY[hook] }))];
}

const HOOKS = {
  nat: { prerouting: { type: "nat", priority: -100 }, output: { type: "nat", priority: -100 } },
  mangle: { prerouting: { type: "filter", priority: -150 }, output: { type: "route", priority: -150 } },
  raw: { prerouting: { type: "filter", priority: -300 }, output: { type: "filter", priority: -300 } },
} as const;

const POLICY_TABLE = 100, POLICY_PRIORITY = 32764;

/** The policy route that brings replies with mark T to ztunnel, for one family (CNI-122). */
export function policyRoute(family: IpFamily): { readonly rule: MarkRule; readonly route: Route } {
  return {
    rule: { family, mark: REPLY_MARK, mask: MARK_MASK, priority: POLICY_PRIORITY, table: POLICY_TABLE },
    route: {
      destination: family === "ipv4" ? "0.0.0.0/0" : "::/0",
      device: "lo",
      table: POLICY_TABLE,
      type: "local",
    },
  };
}
