/** Pods on AWS that have a network interface of their own: the node's probes reach them by the veth, not by the VPC's fabric, which takes no link-local source (CNI-187). */
import { formatIp, parseIp } from "../../base/address.ts";
import { ignore, MeshError } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import type { IpFamily } from "../../os/netlink/nft_model.ts";
import { LOCAL_TABLE, type PolicyRule, PolicyRules } from "../../os/netlink/policy_rules.ts";
import { MAIN_TABLE, RouteSocket } from "../../os/netlink/rtnetlink.ts";
import { type Netns, ownNetns, readSysctl } from "../../os/netns.ts";
import type { Awaitable, NodeProbes, ProbedAddress } from "./redirection.ts";

const EARLY_DEMUX = "net/ipv4/tcp_early_demux";
const PRIORITY = 512; // Of Amazon's own rules for pods without such an interface.

/** The two rules of a pod's address: the way there, and the way back before Amazon's own rule for the interface. */
interface PodRules {
  readonly there: PolicyRule;
  readonly back: PolicyRule;
}

/** Any backend's probes, with rules for such pods beside. On every other node it changes nothing. */
export class BranchEniProbes implements NodeProbes {
  readonly #probes: NodeProbes;
  readonly #host: Netns;
  readonly #log: Logger;
  readonly #rules = new Map<string, PodRules>();

  /** The handle of the host's namespace stays the caller's; absent: this thread's. */
  constructor(probes: NodeProbes, { log, host }: { readonly log: Logger; readonly host?: Netns }) {
    this.#probes = probes;
    this.#host = host?.duplicate() ?? ownNetns();
    this.#log = log;
  }

  ensure = (): Awaitable<void> => this.#probes.ensure();
  check = (): Awaitable<string[]> => this.#probes.check();
  addresses = (): Awaitable<ProbedAddress[]> => this.#probes.addresses();

  async add(addresses: readonly ProbedAddress[]): Promise<void> {
    await this.#probes.add(addresses);
    if (readSysctl(this.#host, EARLY_DEMUX) !== "0") return; // Which Amazon asks of every node that has such pods.
    for (const { ip } of addresses) this.#add(ip);
  }

  async remove(addresses: readonly ProbedAddress[]): Promise<ProbedAddress[]> {
    const others = await this.#probes.remove(addresses);
    for (const { ip } of addresses) if (!others.some((it) => it.ip === ip)) this.#remove(ip);
    return others;
  }

  async sync(addresses: readonly ProbedAddress[], options: { readonly complete: boolean }): Promise<void> {
    await this.#probes.sync(addresses, options);
    if (readSysctl(this.#host, EARLY_DEMUX) !== "0") return;
    for (const { ip } of addresses) this.#add(ip);
  }

  async uninstall(): Promise<void> {
    for (const { ip } of await this.#probed()) this.#remove(ip); // Those too of an agent before us.
    await this.#probes.uninstall();
  }

  [Symbol.dispose](): void {
    this.#host[Symbol.dispose]();
    this.#probes[Symbol.dispose]();
  }

  async #probed(): Promise<readonly ProbedAddress[]> {
    try {
      return await this.#probes.addresses();
    } catch (error) {
      if (!(error instanceof MeshError)) throw error;
      ignore(error, "there are no sets, and so no pods of ours");
      return [];
    }
  }

  /** Throws AMB7011, and then neither rule is there. */
  #add(ip: string): void {
    const rules = findRules(this.#host, ip);
    if (rules === undefined) return;
    using policy = new PolicyRules(this.#host);
    const added = policy.add(rules.there);
    try {
      policy.add(rules.back);
    } catch (error) {
      if (added) policy.delete(rules.there);
      throw error;
    }
    this.#rules.set(ip, rules);
  }

  #remove(ip: string): void {
    const isSetUp = readSysctl(this.#host, EARLY_DEMUX) === "0";
    const rules = this.#rules.get(ip) ?? (isSetUp ? findRules(this.#host, ip) : undefined);
    if (rules === undefined) return;
    this.#rules.delete(ip);
    using policy = new PolicyRules(this.#host);
    for (const rule of [rules.there, rules.back]) {
      try {
        policy.delete(rule);
      } catch (error) {
        if (!(error instanceof MeshError)) throw error;
        this.#log.warn("rule of a pod with an interface of its own is left", { ip, priority: rule.priority });
      }
    }
  }
}

/** A pod has such an interface if a table that is neither main nor local has both a route to it alone and a rule for the route's device. */
export function findRules(host: Netns, ip: string): PodRules | undefined {
  const words = parseIp(ip);
  if (words === undefined) return undefined;
  const family: IpFamily = ip.includes(":") ? "ipv6" : "ipv4", to = formatIp(...words);
  using policy = new PolicyRules(host);
  using routes = new DisposableStack();
  const links = routes.use(RouteSocket.open(host)).links();
  const byDevice = policy.list(family).filter(({ iif, table }) =>
    iif !== undefined && table !== MAIN_TABLE && table !== LOCAL_TABLE && table > 0
  );
  for (const route of policy.hostRoutes(family).filter((it) => it.ip === to)) {
    const device = links.find(({ index }) => index === route.linkIndex)?.name;
    const rule = byDevice.find(({ table, iif }) => table === route.table && iif === device);
    if (rule === undefined) continue;
    const back = { family, iif: rule.iif, table: LOCAL_TABLE, priority: Math.max(rule.priority - 1, 0) };
    return { there: { family, to, table: route.table, priority: PRIORITY }, back };
  }
  return undefined;
}
