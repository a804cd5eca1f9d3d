/** Puts the redirection rules into a network namespace by netlink, checks them, and takes them out again. */
import type { Netns } from "../os/netns.ts";
import { FirewallSocket } from "../os/netlink/nftables.ts";
import { leavingTable, redirectionTables, TABLE_NAMES, unusedTableNames } from "./nft_rules.ts";
import { addPolicyRoutes, deletePolicyRoutes, hasIpv6, missingPolicyRoutes } from "./redirection/policy_routes.ts";
import type { PodRuleOptions } from "./redirection/redirection.ts";

/**
 * Makes the namespace's rules those of the options: atomically for the tables, then the policy routes (CNI-130,
 * CNI-132). Idempotent. Throws AMB7014 or AMB7011, and may then leave rules without routes; deleting is always possible.
 */
export function applyPodRules(netns: Netns, options: PodRuleOptions): void {
  const tables = redirectionTables({ ...options, ipv6: hasIpv6(netns, options) });
  using firewall = FirewallSocket.open(netns);
  firewall.replace(tables, present(firewall, unusedTableNames(tables)));
  addPolicyRoutes(netns, options);
}

/**
 * Captures no new connection any more; those that ztunnel carries keep their way to it, in both directions, until they have
 * ended. {@link deletePodRules} takes the rest. Idempotent. Throws AMB7014.
 */
export function releasePodRules(netns: Netns): void {
  using firewall = FirewallSocket.open(netns);
  firewall.replace([leavingTable()], []);
}

/** Removes tables, rule and routes of both families; what is not there is fine (CNI-122, CNI-133). */
export function deletePodRules(netns: Netns): void {
  using firewall = FirewallSocket.open(netns);
  firewall.deleteTables(present(firewall, Object.values(TABLE_NAMES)));
  deletePolicyRoutes(netns);
}

/** Those of the tables that are there: after a deletion the kernel lets nobody go before it has waited for all readers. */
function present(firewall: FirewallSocket, names: readonly string[]): string[] {
  const there = firewall.tableNames();
  return names.filter((name) => there.includes(name));
}

/** What is missing or different, in words; nothing when all is in place. */
export function checkPodRules(netns: Netns, options: PodRuleOptions): string[] {
  const tables = redirectionTables({ ...options, ipv6: hasIpv6(netns, options) });
  using firewall = FirewallSocket.open(netns);
  const found = firewall.tableNames();
  const differences = firewall.differences(tables);
  for (const name of unusedTableNames(tables)) {
    if (found.includes(name)) differences.push(`table ${name} should not be there`);
  }
  return [...differences, ...missingPolicyRoutes(netns, options)];
}
