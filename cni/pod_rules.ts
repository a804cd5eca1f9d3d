/** Puts the redirection rules into a network namespace, checks them, and takes them out again. */
import { type Netns, readSysctl } from "../os/netns.ts";
import { FirewallSocket } from "../os/netlink/nftables.ts";
import type { IpFamily } from "../os/netlink/nft_model.ts";
import { RouteSocket } from "../os/netlink/rtnetlink.ts";
import { leavingTable, policyRoute, redirectionTables, TABLE_NAMES, unusedTableNames } from "./nft_rules.ts";
import type { PodRuleOptions } from "./redirection/redirection.ts";

const LOOPBACK_IPV6_OFF = "net/ipv6/conf/lo/disable_ipv6";
const FAMILIES = ["ipv4", "ipv6"] as const;

/**
 * Makes the namespace's rules those of the options: atomically for the tables, then the policy routes (CNI-130,
 * CNI-132). Idempotent. Throws AMB7014 or AMB7011, and may then leave rules without routes; deleting is always possible.
 */
export function applyPodRules(netns: Netns, options: PodRuleOptions): void {
  const tables = redirectionTables({ ...options, ipv6: hasIpv6(netns, options) });
  using firewall = FirewallSocket.open(netns);
  firewall.replace(tables, unusedTableNames(tables));
  using routes = RouteSocket.open(netns);
  if (!routes.findLink("lo")!.up) routes.setUp("lo"); // Without it neither the policy route nor the redirection works.
  for (const family of routedFamilies(netns, options)) {
    const { rule, route } = policyRoute(family);
    routes.addRule(rule);
    routes.addRoute(route);
  }
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
  firewall.deleteTables(Object.values(TABLE_NAMES));
  using routes = RouteSocket.open(netns);
  for (const family of kernelFamilies(netns)) {
    const { rule, route } = policyRoute(family);
    routes.deleteRule(rule);
    routes.deleteRoute(route);
  }
}

/** What is missing or different, in words; nothing when all is in place. */
export function checkPodRules(netns: Netns, options: PodRuleOptions): string[] {
  const tables = redirectionTables({ ...options, ipv6: hasIpv6(netns, options) });
  using firewall = FirewallSocket.open(netns);
  const present = firewall.tableNames();
  const differences = firewall.differences(tables);
  for (const name of unusedTableNames(tables)) {
    if (present.includes(name)) differences.push(`table ${name} should not be there`);
  }
  using routes = RouteSocket.open(netns);
  for (const family of routedFamilies(netns, options)) {
    const { rule, route } = policyRoute(family);
    if (!routes.hasRule(rule)) differences.push(`the ${family} rule for mark 0x${rule.mark.toString(16)} is missing`);
    const wanted = { destination: route.destination, table: rule.table, type: "local" } as const;
    if (!routes.hasRoute(wanted)) differences.push(`the ${family} route of table ${rule.table} is missing`);
  }
  return differences;
}

function hasIpv6(netns: Netns, options: PodRuleOptions): boolean {
  return options.ipv6 ?? readSysctl(netns, LOOPBACK_IPV6_OFF) !== undefined;
}

function kernelFamilies(netns: Netns): readonly IpFamily[] {
  return readSysctl(netns, LOOPBACK_IPV6_OFF) === undefined ? ["ipv4"] : FAMILIES;
}

/** A loopback without IPv6 cannot hold its route (CNI-122). */
function routedFamilies(netns: Netns, options: PodRuleOptions): readonly IpFamily[] {
  const ipv6 = hasIpv6(netns, options) && readSysctl(netns, LOOPBACK_IPV6_OFF) === "0";
  return ipv6 ? FAMILIES : ["ipv4"];
}
