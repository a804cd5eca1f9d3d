/** The policy routes of a pod, which every backend by netfilter needs: replies with mark T find ztunnel (CNI-122). */
import { type Netns, readSysctl } from "../../os/netns.ts";
import type { IpFamily } from "../../os/netlink/nft_model.ts";
import { RouteSocket } from "../../os/netlink/rtnetlink.ts";
import { policyRoute } from "../nft_rules.ts";
import type { PodRuleOptions } from "./redirection.ts";

const LOOPBACK_IPV6_OFF = "net/ipv6/conf/lo/disable_ipv6";
const FAMILIES = ["ipv4", "ipv6"] as const;

/** Whether the namespace gets rules of IPv6: as asked for, else whether its kernel has IPv6. */
export function hasIpv6(netns: Netns, options: PodRuleOptions): boolean {
  return options.ipv6 ?? readSysctl(netns, LOOPBACK_IPV6_OFF) !== undefined;
}

/** The families that the namespace's kernel has. */
export function kernelFamilies(netns: Netns): readonly IpFamily[] {
  return readSysctl(netns, LOOPBACK_IPV6_OFF) === undefined ? ["ipv4"] : FAMILIES;
}

/** A loopback without IPv6 cannot hold its route. */
function routedFamilies(netns: Netns, options: PodRuleOptions): readonly IpFamily[] {
  const ipv6 = hasIpv6(netns, options) && readSysctl(netns, LOOPBACK_IPV6_OFF) === "0";
  return ipv6 ? FAMILIES : ["ipv4"];
}

/** Loopback up, rule and route of each family. Idempotent. Throws AMB7011. */
export function addPolicyRoutes(netns: Netns, options: PodRuleOptions): void {
  using routes = RouteSocket.open(netns);
  if (!routes.findLink("lo")!.up) routes.setUp("lo"); // Without it neither the policy route nor the redirection works.
  for (const family of routedFamilies(netns, options)) {
    const { rule, route } = policyRoute(family);
    routes.addRule(rule);
    routes.addRoute(route);
  }
}

/** Of both families; what is not there is fine. */
export function deletePolicyRoutes(netns: Netns): void {
  using routes = RouteSocket.open(netns);
  for (const family of kernelFamilies(netns)) {
    const { rule, route } = policyRoute(family);
    routes.deleteRule(rule);
    routes.deleteRoute(route);
  }
}

/** What is missing, in words. */
export function missingPolicyRoutes(netns: Netns, options: PodRuleOptions): string[] {
  using routes = RouteSocket.open(netns);
  return routedFamilies(netns, options).flatMap((family) => {
    const { rule, route } = policyRoute(family);
    const wanted = { destination: route.destination, table: rule.table, type: "local" } as const;
    return [
      ...routes.hasRule(rule) ? [] : [`the ${family} rule for mark 0x${rule.mark.toString(16)} is missing`],
      ...routes.hasRoute(wanted) ? [] : [`the ${family} route of table ${rule.table} is missing`],
    ];
  });
}
