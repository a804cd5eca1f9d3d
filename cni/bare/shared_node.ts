/** The workloads of the host's own namespace: who has which slot, and the one set of rules that they have together. */
import { assert } from "../../base/assert.ts";
import { MeshError } from "../../base/errors.ts";
import type { FirewallTable } from "../../os/netlink/nft_model.ts";
import { FirewallSocket } from "../../os/netlink/nftables.ts";
import { RouteSocket } from "../../os/netlink/rtnetlink.ts";
import { type Netns, ownNetns, readSysctl } from "../../os/netns.ts";
import { policyRoute } from "../nft_rules.ts";
import type { Cgroup } from "./cgroups.ts";
import { sharedTables } from "./shared_rules.ts";
import {
  SHARED_TABLE_NAMES,
  type SharedRequest,
  type SharedRuleOptions,
  type SharedWorkload,
  SLOTS_MAX,
} from "./shared_statements.ts";

export interface SharedNodeOptions {
  /** Addresses and ranges that are never captured. */
  readonly never: readonly string[];
  /** Of ztunnel, as far as it has one to itself; asked for at each change. */
  readonly exempt?: () => readonly Cgroup[];
  /** Who answers DNS on this host, of the groups inside of these paths; asked for at each change where DNS is captured. */
  readonly resolvers?: (within: readonly string[]) => readonly Cgroup[];
}

const LOOPBACK_IPV6_OFF = "net/ipv6/conf/lo/disable_ipv6";

export class SharedNode {
  readonly #options: SharedNodeOptions;
  readonly #workloads = new Map<number, SharedWorkload>();

  constructor(options: SharedNodeOptions) {
    this.#options = options;
  }

  /** @returns A slot that nobody has; `wanted` where it is free. Throws AMB7164 when all are taken. */
  takeSlot(taken: ReadonlySet<number>, wanted?: number): number {
    if (wanted !== undefined && wanted < SLOTS_MAX && !taken.has(wanted)) return wanted;
    for (let slot = 0; slot < SLOTS_MAX; slot++) if (!taken.has(slot)) return slot;
    throw new MeshError("AMB7164", `${SLOTS_MAX} units and control groups are enrolled on this node already`, {
      remedy: "give some of the workloads network namespaces of their own",
    });
  }

  /** Counts a workload as captured that an agent before us captured: the next {@link write} has it in its rules. */
  adopt(slot: number, cgroup: Cgroup, request: SharedRequest, leaving: boolean): void {
    this.#workloads.set(slot, { slot, cgroup, request, leaving });
  }

  /** Captures the workload, or what it has become. Throws AMB7220 where nf_tables cannot, or AMB7011. */
  apply(slot: number, cgroup: Cgroup, request: SharedRequest): void {
    this.#change(slot, { slot, cgroup, request, leaving: false });
  }

  /** Captures no new connection of it; those that ztunnel carries keep their way. */
  release(slot: number): void {
    const workload = this.#workloads.get(slot);
    if (workload !== undefined) this.#change(slot, { ...workload, leaving: true });
  }

  /** Takes the last of it away; with the last workload go the tables and routes themselves. */
  delete(slot: number): void {
    this.#change(slot, undefined);
  }

  /** What is missing or different, in words; nothing when all is in place. */
  check(): string[] {
    if (this.#workloads.size === 0) return [];
    using netns = ownNetns();
    using firewall = FirewallSocket.open(netns);
    const tables = this.#tables(netns), differences = firewall.differences(tables);
    for (const name of unusedOf(tables, firewall.tableNames())) differences.push(`table ${name} is there for nobody`);
    using routes = RouteSocket.open(netns);
    for (const family of families(netns)) {
      const { rule, route } = policyRoute(family);
      if (!routes.hasRule(rule)) differences.push(`the ${family} rule for mark 0x${rule.mark.toString(16)} is missing`);
      const wanted = { destination: route.destination, table: rule.table, type: "local" } as const;
      if (!routes.hasRoute(wanted)) differences.push(`the ${family} route of table ${rule.table} is missing`);
    }
    return differences;
  }

  /** What of it is not captured though it was asked for, in words. */
  remarks(slot: number): string[] {
    const workload = this.#workloads.get(slot);
    if (workload === undefined || workload.leaving || workload.request.dnsCapture !== true) return [];
    const { cgroup } = workload, resolvers = this.#options.resolvers?.([cgroup.path]) ?? [];
    if (!resolvers.some(({ id }) => id === cgroup.id)) return [];
    return ["it answers DNS on this host itself, so its own queries are not captured: enrol it with --dns=false"];
  }

  /** Writes all rules again: after an audit that found them different, or when ztunnel has moved. Throws as {@link apply}. */
  write(): void {
    using netns = ownNetns();
    using firewall = FirewallSocket.open(netns);
    using routes = RouteSocket.open(netns);
    if (this.#workloads.size === 0) {
      firewall.deleteTables(Object.values(SHARED_TABLE_NAMES));
      for (const family of families(netns)) {
        const { rule, route } = policyRoute(family);
        routes.deleteRule(rule);
        routes.deleteRoute(route);
      }
      return;
    }
    const tables = this.#tables(netns);
    replaceRules(firewall, tables);
    firewall.deleteTables(unusedOf(tables, firewall.tableNames())); // Last: what asked for it is gone by now.
    for (const family of families(netns)) {
      const { rule, route } = policyRoute(family);
      routes.addRule(rule);
      routes.addRoute(route);
    }
  }

  #change(slot: number, workload: SharedWorkload | undefined): void {
    const before = this.#workloads.get(slot);
    if (workload === undefined) this.#workloads.delete(slot);
    else this.#workloads.set(slot, workload);
    try {
      this.write();
    } catch (error) {
      if (before === undefined) this.#workloads.delete(slot);
      else this.#workloads.set(slot, before);
      throw error;
    }
    assert(this.#workloads.get(slot) === workload, "the rules are those of the list");
  }

  #tables(netns: Netns) {
    const asking = [...this.#workloads.values()].filter(({ request, leaving }) =>
      request.dnsCapture === true && !leaving
    )
      .map(({ cgroup }) => cgroup.path);
    const options: SharedRuleOptions = {
      ipv6: families(netns).includes("ipv6"),
      never: this.#options.never,
      exempt: this.#options.exempt?.() ?? [],
      resolvers: asking.length === 0 ? [] : this.#options.resolvers?.(asking),
    };
    return sharedTables([...this.#workloads.values()], options);
  }
}

const unusedOf = (tables: readonly FirewallTable[], present: readonly string[]): string[] =>
  Object.values(SHARED_TABLE_NAMES).filter((name) => present.includes(name) && tables.every((it) => it.name !== name));

/** There is no other means for them, whatever redirects elsewhere: the kernel's word alone would not say so. */
function replaceRules(firewall: FirewallSocket, tables: readonly FirewallTable[]): void {
  try {
    firewall.replaceWhole(tables);
  } catch (cause) {
    if (!(cause instanceof MeshError)) throw cause;
    throw new MeshError("AMB7220", "units and control groups cannot be captured, which nf_tables alone can", {
      remedy: "See `ambit cni check --node` for what the kernel lacks, or give the workload a network namespace.",
      cause,
    });
  }
}

/** A loopback without IPv6 cannot hold its route (CNI-122). */
function families(netns: Netns): readonly ("ipv4" | "ipv6")[] {
  return readSysctl(netns, LOOPBACK_IPV6_OFF) === "0" ? ["ipv4", "ipv6"] : ["ipv4"];
}
