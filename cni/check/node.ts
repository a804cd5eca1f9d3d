/** What a node offers to the node agent, before the first workload is enrolled: each means of redirection is tried, and what else is used is looked at. */
import { chain } from "../../base/errors.ts";
import { FirewallSocket } from "../../os/netlink/nftables.ts";
import { listeningPorts } from "../../os/netlink/sock_diag.ts";
import { createAnonymousNetns, type Netns, readSysctl, writeSysctl } from "../../os/netns.ts";
import { findCgroupRoot } from "../bare/cgroups.ts";
import { sharedTables } from "../bare/shared_rules.ts";
import type { NodeFinding } from "../node_doctor.ts";
import { preferred } from "../redirection/choose.ts";
import { candidateNames, type RedirectSettings } from "../redirection/choices.ts";
import type { BackendName, Candidate } from "../redirection/redirection.ts";

/** What was found, so that judging is apart from looking. */
export interface NodeFacts {
  readonly settings: RedirectSettings;
  /** By name, what the machine lacks for it; nothing when it can be used. */
  readonly lacks: ReadonlyMap<BackendName, readonly string[]>;
  /** The one that an agent with these settings takes. */
  readonly chosen: BackendName | undefined;
  readonly ipv6: "there" | "off on loopback" | "absent";
  /** Where version 2 is mounted, or why nowhere. */
  readonly cgroups: { readonly root: string } | { readonly failure: string };
  /** Why rules for units and control groups cannot be written; undefined: they can. */
  readonly sharedRules: string | undefined;
  /** Whether the kernel tells who listens. */
  readonly sockDiag: boolean;
  /** Why a namespace's settings cannot be written; undefined: they can. */
  readonly settingsLocked: string | undefined;
}

const IPV6_OFF = "net/ipv6/conf/lo/disable_ipv6", FWMARK_ACCEPT = "net/ipv4/tcp_fwmark_accept";

const CURES: Readonly<Record<BackendName, string>> = {
  nft: "a kernel with CONFIG_NF_TABLES, NF_TABLES_INET, NFT_CT, NFT_NAT, NFT_REDIR and NF_CONNTRACK_MARK",
  "nft-binary": "install nft, on such a kernel",
  "iptables-nft": "install iptables with ipset, and for IPv6 ip6tables, in the variant of nf_tables",
  "iptables-legacy": "install iptables with ipset, and for IPv6 ip6tables, in the legacy variant",
  bpf: "Linux 6.6 with a bpffs, cgroups of version 2 and a writable /proc/sys",
};

/** Looks and tries, in namespaces that are thrown away. */
export async function lookAtNode(settings: RedirectSettings, candidates: readonly Candidate[]): Promise<NodeFacts> {
  const lacks = new Map<BackendName, readonly string[]>();
  for (const candidate of candidates) lacks.set(candidate.name, await candidate.missing());
  const names = candidateNames(settings);
  const usable = names.flatMap((name) =>
    lacks.get(name)?.length === 0 ? candidates.filter((it) => it.name === name) : []
  );
  using scratch = createAnonymousNetns();
  return {
    settings,
    lacks,
    chosen: preferred(usable)?.name,
    ipv6: ipv6Of(readSysctl(scratch, IPV6_OFF)),
    cgroups: attempt(() => ({ root: findCgroupRoot() })),
    sharedRules: failureOf(() => writeSharedRules(scratch)),
    sockDiag: listeningPorts(scratch) !== undefined,
    settingsLocked: failureOf(() => writeSysctl(scratch, FWMARK_ACCEPT, readSysctl(scratch, FWMARK_ACCEPT) ?? "0")),
  };
}

function ipv6Of(disabled: string | undefined): NodeFacts["ipv6"] {
  return disabled === undefined ? "absent" : disabled === "0" ? "there" : "off on loopback";
}

/** What a unit is captured by: the kernel takes the rules, and gives them back as they were. */
function writeSharedRules(scratch: Netns): void {
  const request = { inboundPorts: [8080] }, cgroup = { path: "a.slice/a.service", id: 1 };
  const options = { ipv6: readSysctl(scratch, IPV6_OFF) === "0", never: [], exempt: [] };
  const tables = sharedTables([{ slot: 0, cgroup, request, leaving: false }], options);
  using firewall = FirewallSocket.open(scratch);
  firewall.replaceWhole(tables);
  const [difference] = firewall.differences(tables);
  if (difference !== undefined) throw new Error(difference);
}

function attempt<T>(work: () => T): T | { readonly failure: string } {
  try {
    return work();
  } catch (error) {
    return { failure: error instanceof Error ? chain(error) : String(error) };
  }
}

function failureOf(work: () => void): string | undefined {
  const outcome = attempt(() => {
    work();
    return undefined;
  });
  return outcome?.failure;
}

/** The findings, what decides about all pods first. Pure. */
export function judgeNodeOffer(facts: NodeFacts): NodeFinding[] {
  return [redirection(facts), ...means(facts), addresses(facts), units(facts), listeners(facts), settings(facts)];
}

function redirection({ settings: { redirect }, chosen }: NodeFacts): NodeFinding {
  const check = "redirection", asked = redirect === "auto" ? "" : `, asked for ${redirect}`;
  if (chosen === undefined) {
    const cure = "provide what one of the following lacks, or choose another --redirect";
    return { check, status: "fail", found: `nothing can redirect here${asked}`, cure };
  }
  if (redirect !== "auto" && chosen !== redirect) {
    const cure = `provide what ${redirect} lacks, or do without --redirect`;
    return { check, status: "warn", found: `the agent takes ${chosen}${asked}`, cure };
  }
  return { check, status: "ok", found: `the agent takes ${chosen}` };
}

/** What else would do, in one line; what does not work is a line of its own where it is what was asked for, or nothing works. */
function means({ settings: { redirect }, lacks, chosen }: NodeFacts): NodeFinding[] {
  const all = [...lacks], works = all.filter(([name, missing]) => missing.length === 0 && name !== chosen);
  const missed = ([name]: readonly [BackendName, readonly string[]]) => chosen === undefined || name === redirect;
  const fails = all.filter(([, missing]) => missing.length > 0), told = fails.filter(missed);
  const others = [
    ...works.length === 0 ? [] : [`${works.map(([name]) => name).join(", ")} would work too`],
    ...fails.filter((it) => !missed(it)).map(([name, missing]) => `not ${name}: ${missing.join(", ")}`),
  ];
  return [
    ...told.map(([name, missing]): NodeFinding => {
      return { check: name, status: "warn", found: `lacks: ${missing.join(", ")}`, cure: CURES[name] };
    }),
    ...others.length === 0 ? [] : [{ check: "other means", status: "ok" as const, found: others.join("; ") }],
  ];
}

function addresses({ ipv6 }: NodeFacts): NodeFinding {
  const found = ipv6 === "there"
    ? "IPv4 and IPv6 are captured"
    : ipv6 === "absent"
    ? "the kernel has no IPv6: pods get rules of IPv4 alone"
    : "IPv6 is off on new namespaces' loopback: replies of its connections find no way back to ztunnel";
  const cure = "leave IPv6 off altogether (ipv6.disable=1), or set net.ipv6.conf.lo.disable_ipv6=0";
  const check = "address families";
  return ipv6 === "off on loopback" ? { check, status: "warn", found, cure } : { check, status: "ok", found };
}

/** Units and control groups are captured by nf_tables over netlink, whatever redirects in namespaces. */
function units({ cgroups, sharedRules }: NodeFacts): NodeFinding {
  const check = "units, control groups";
  if ("failure" in cgroups) {
    const cure = "mount control groups of version 2; without them enrol network namespaces and containers only";
    return { check, status: "warn", found: `cannot be enrolled: ${cgroups.failure}`, cure };
  }
  if (sharedRules !== undefined) {
    const cure =
      "a kernel with nf_tables and CONFIG_NFT_SOCKET; without it enrol network namespaces and containers only";
    return { check, status: "warn", found: `cannot be enrolled: ${sharedRules}`, cure };
  }
  return { check, status: "ok", found: `can be enrolled; version 2 is at ${cgroups.root}` };
}

function listeners({ sockDiag }: NodeFacts): NodeFinding {
  const check = "lost listeners";
  if (sockDiag) return { check, status: "ok", found: "are noticed" };
  const cure = "a kernel with CONFIG_INET_DIAG";
  return { check, status: "warn", found: "are not noticed: the kernel does not tell who listens", cure };
}

function settings({ settings: { redirect }, settingsLocked }: NodeFacts): NodeFinding {
  const check = "/proc/sys";
  if (settingsLocked === undefined) return { check, status: "ok", found: "can be written" };
  if (redirect !== "bpf") return { check, status: "ok", found: "cannot be written, which eBPF alone would need" };
  const cure = "let the agent's container write it, or choose another --redirect";
  return { check, status: "warn", found: `cannot be written: ${settingsLocked}`, cure };
}

/** A line a finding, its cure below. */
export function textOfFindings(findings: readonly NodeFinding[]): string {
  const width = Math.max(...findings.map(({ check }) => check.length));
  return findings.map(({ check, status, found, cure }) =>
    `${status.padEnd(4)}  ${check.padEnd(width)}  ${found}\n${cure === undefined ? "" : `  cure: ${cure}\n`}`
  ).join("");
}
