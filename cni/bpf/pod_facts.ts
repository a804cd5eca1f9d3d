/** What the programs are told of a pod's network namespace: its addresses, and the interfaces that lead out of it. */
import { type IpWords, isIpv4, parseIp } from "../../base/address.ts";
import type { Netns } from "../../os/netns.ts";
import { RouteSocket } from "../../os/netlink/rtnetlink.ts";

const LINK_LOCAL_TOP = 0xfe80, LINK_LOCAL_MASK = 0xffc0;

export interface PodFacts {
  /** The first is what captured connections are turned to. */
  readonly ipv4: readonly IpWords[];
  /** As of IPv4; those of one link only come last. */
  readonly ipv6: readonly IpWords[];
  /** Without the loopback. */
  readonly interfaces: readonly { readonly index: number; readonly name: string }[];
}

export function podFacts(netns: Netns): PodFacts {
  using routes = RouteSocket.open(netns);
  const interfaces = routes.links().filter(({ name }) => name !== "lo").map(({ index, name }) => ({ index, name }));
  const outside = new Set(interfaces.map(({ index }) => index));
  const addresses = routes.addresses().filter(({ linkIndex }) => outside.has(linkIndex))
    .map(({ ip }) => parseIp(ip)).filter((ip) => ip !== undefined);
  const ipv6 = addresses.filter((ip) => !isIpv4(ip[0], ip[1], ip[2]));
  const linkLocal = ([word]: IpWords) => (word >>> 16 & LINK_LOCAL_MASK) === LINK_LOCAL_TOP;
  return {
    ipv4: addresses.filter((ip) => isIpv4(ip[0], ip[1], ip[2])),
    ipv6: [...ipv6.filter((ip) => !linkLocal(ip)), ...ipv6.filter(linkLocal)],
    interfaces,
  };
}
