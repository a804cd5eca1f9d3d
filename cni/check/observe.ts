/** Looks at one namespace: which backend has rules there, what differs, who listens, and whether a connection is captured. Changes nothing. */
import type { Logger } from "../../base/log.ts";
import { netnsCookie } from "../../os/bpf/netns_cookie.ts";
import { RedirectedPods } from "../../os/bpf/redirected_pods.ts";
import { PIN_FOLDER } from "../../os/bpf/shared_maps.ts";
import { tryConnection } from "../../os/connect_trial.ts";
import { legacyTableNames } from "../../os/legacy_tables.ts";
import { FirewallSocket } from "../../os/netlink/nftables.ts";
import { foreignChains } from "../../os/netlink/nft_foreign.ts";
import { RouteSocket } from "../../os/netlink/rtnetlink.ts";
import { listeningPorts } from "../../os/netlink/sock_diag.ts";
import { createAnonymousNetns, type Netns } from "../../os/netns.ts";
import { TABLE_NAMES } from "../nft_rules.ts";
import { allCandidates } from "../redirection/candidates.ts";
import { hasResidue, parseSaved } from "../redirection/iptables_state.ts";
import { missingPolicyRoutes } from "../redirection/policy_routes.ts";
import type { ProgramRunner } from "../redirection/programs.ts";
import type { BackendName, PodRuleOptions, ProbedAddress, Redirection } from "../redirection/redirection.ts";
import type { Observation } from "./judge.ts";

/** What is to be looked at. */
export interface Subject {
  readonly target: string;
  readonly pod?: string;
  readonly netns: Netns;
  /** What the agent wrote; undefined when there is none to ask. */
  readonly rules?: PodRuleOptions;
  readonly backend?: BackendName;
  readonly ips?: readonly string[];
  readonly problems: readonly string[];
}

export interface ObserverOptions {
  readonly runner: ProgramRunner;
  readonly log: Logger;
  /** Whether connections are tried. */
  readonly prove: boolean;
}

/** Addresses for documentation: nobody has them (RFC 5737 §3, RFC 3849 §2). Port 9 discards. */
const NOBODY = { ipv4: "192.0.2.1", ipv6: "2001:db8::1" } as const;
const DISCARD_PORT = 9, TRIAL_MS = 700;
const FAMILIES = ["ipv4", "ipv6"] as const;
/** What a pod has and a node has not, whose rules stand in tables of the same names. */
const OUTPUT_CHAIN = { tables: "istio-output", iptables: "ISTIO_OUTPUT" } as const;
const LEGACY = { ipv4: "iptables-legacy", ipv6: "ip6tables-legacy" } as const;

/** Of all that rules could be, when nobody tells. */
const GUESSES: readonly PodRuleOptions[] = [false, true].flatMap((dnsCapture) =>
  [false, true].map((ingress) => ({ dnsCapture, ingress }))
);

export class Observer implements Disposable {
  readonly #options: ObserverOptions;
  readonly #backends = new Map<BackendName, Redirection>();

  constructor(options: ObserverOptions) {
    this.#options = options;
  }

  /** Throws MeshError when the kernel or a program refuses to tell. */
  async look(subject: Subject, probed: ReadonlySet<string> | undefined): Promise<Observation> {
    const { netns, target, pod, problems } = subject;
    const backend = await this.usedBackend(netns) ?? subject.backend;
    const { rules, differences } = backend === undefined
      ? { rules: subject.rules ?? {}, differences: [] }
      : await this.#differences(backend, subject);
    const ips = subject.ips ?? addressesOf(netns);
    return {
      target,
      pod,
      backend,
      differences,
      dnsCapture: rules.dnsCapture === true,
      listening: listeningPorts(netns),
      unprobed: probed === undefined ? undefined : ips.filter((ip) => !probed.has(ip)),
      trials: this.#options.prove ? trialsOf(netns) : [],
      problems,
    };
  }

  /** By what stands in the kernel; old iptables is asked only where the kernel says that it has tables. */
  async usedBackend(netns: Netns): Promise<BackendName | undefined> {
    using redirected = RedirectedPods.open(PIN_FOLDER);
    if (redirected?.has(netnsCookie(netns)) === true) return "bpf";
    if (foreignChains(netns, OUTPUT_CHAIN.tables).length > 0) return "nft";
    if (foreignChains(netns, OUTPUT_CHAIN.iptables).length > 0) return "iptables-nft";
    for (const family of FAMILIES) {
      if (legacyTableNames(netns, family).length === 0) continue;
      const saved = await this.#options.runner.run(netns, `${LEGACY[family]}-save`, []);
      if (saved !== undefined && hasResidue(parseSaved(saved.stdout))) return "iptables-legacy";
    }
    return undefined;
  }

  /** The addresses that the node's probes reach past the mesh; undefined when the node has no rules for that. */
  async probed(host: Netns): Promise<ReadonlySet<string> | undefined> {
    using firewall = FirewallSocket.open(host);
    const byTable = firewall.tableNames().includes(TABLE_NAMES.nat);
    const sets = byTable ? undefined : await this.#options.runner.run(host, "ipset", ["list", "-n"]);
    if (!byTable && !sets?.stdout.includes("istio-inpod-probes")) return undefined;
    const redirection = await this.#open(byTable ? "nft" : "iptables-nft");
    using probes = redirection?.openNode(host);
    const addresses: readonly ProbedAddress[] = await probes?.addresses() ?? [];
    return new Set(addresses.map(({ ip }) => ip));
  }

  [Symbol.dispose](): void {
    this.#options.runner[Symbol.dispose]();
  }

  /** With the agent's rules, or, without one, with those that fit best. */
  async #differences(
    name: BackendName,
    { netns, rules }: Subject,
  ): Promise<{ rules: PodRuleOptions; differences: readonly string[] }> {
    // Opening eBPF's backend would attach its programs anew: only the agent may; here the connection tells.
    if (name === "bpf") return { rules: rules ?? {}, differences: missingPolicyRoutes(netns, rules ?? {}) };
    const redirection = await this.#open(name);
    if (redirection === undefined) {
      return { rules: rules ?? {}, differences: [`rules of ${name} cannot be read here: its programs are missing`] };
    }
    let best: { rules: PodRuleOptions; differences: readonly string[] } | undefined;
    for (const guess of rules === undefined ? GUESSES : [rules]) {
      const differences = await redirection.check(netns, guess);
      if (best === undefined || differences.length < best.differences.length) best = { rules: guess, differences };
      if (differences.length === 0) break;
    }
    return best!;
  }

  async #open(name: BackendName): Promise<Redirection | undefined> {
    const known = this.#backends.get(name);
    if (known !== undefined) return known;
    using scratch = createAnonymousNetns(); // What a backend tries out is tried in here.
    const { runner, log } = this.#options;
    const settings = { redirect: name, nativeNftables: undefined, forceIptables: undefined, reconcilePodRules: true };
    const candidate = allCandidates({ runner, settings, log, host: scratch }).find((it) => it.name === name);
    if (candidate === undefined || (await candidate.missing()).length > 0) return undefined;
    const redirection = await candidate.open();
    this.#backends.set(name, redirection);
    return redirection;
  }
}

/** Of the interfaces, those that others could reach. */
function addressesOf(netns: Netns): string[] {
  using routes = RouteSocket.open(netns);
  const loopback = routes.findLink("lo")?.index;
  return routes.addresses().filter(({ linkIndex, ip }) => linkIndex !== loopback && !/^fe80:/.test(ip)).map(({ ip }) =>
    ip
  );
}

/** One connection for each family that the namespace has an address of. */
function trialsOf(netns: Netns): Observation["trials"] {
  const own = addressesOf(netns);
  return FAMILIES.filter((family) => own.some((ip) => ip.includes(":") === (family === "ipv6"))).map((family) => ({
    ip: NOBODY[family],
    outcome: tryConnection(netns, { ip: NOBODY[family], port: DISCARD_PORT }, TRIAL_MS),
  }));
}
