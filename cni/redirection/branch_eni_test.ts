import { assertEquals } from "@std/assert";
import { Logger } from "../../base/log.ts";
import { createAnonymousNetns, type Netns, writeSysctl } from "../../os/netns.ts";
import { type PolicyRule, PolicyRules } from "../../os/netlink/policy_rules.ts";
import { RouteSocket } from "../../os/netlink/rtnetlink.ts";
import { HostProbes } from "../host_probes.ts";
import { BranchEniProbes, findRules } from "./branch_eni.ts";

const privileged = Deno.uid() === 0;
const log = new Logger("test", { sink: () => {} });
const PODS = { ipv4: "10.7.0.9", ipv6: "fd07::9" } as const;
const FAMILIES = ["ipv4", "ipv6"] as const;
const TABLE = 101, DEVICE_PRIORITY = 10;

/** A node as Amazon's network plugin leaves it: a pod that only a table of its own has a route to, by its veth. */
function node(earlyDemux: string): Netns {
  const host = createAnonymousNetns();
  using routes = RouteSocket.open(host), policy = new PolicyRules(host);
  writeSysctl(host, "net/ipv4/tcp_early_demux", earlyDemux);
  routes.addVeth({ name: "vlan1", peerName: "pod" });
  routes.setUp("lo"), routes.setUp("vlan1"), routes.setUp("pod");
  for (const family of FAMILIES) {
    const length = family === "ipv4" ? 32 : 128;
    routes.addRoute({ destination: `${PODS[family]}/${length}`, device: "vlan1", table: TABLE });
    policy.add({ family, iif: "vlan1", table: TABLE, priority: DEVICE_PRIORITY });
  }
  return host;
}

/** What stands beside the node's own rules. */
function added(host: Netns): string[] {
  using policy = new PolicyRules(host);
  const text = ({ to, iif, table, priority }: PolicyRule) => `${priority}: ${to ?? iif} ${table}`;
  return FAMILIES.flatMap((family) => policy.list(family)).filter(({ to, iif }) =>
    to !== undefined || iif !== undefined
  )
    .map(text).filter((it) => it !== `${DEVICE_PRIORITY}: vlan1 ${TABLE}`);
}

Deno.test({
  name: "BranchEniProbes leads the node's probes to a pod with an interface of its own by its veth, and back (CNI-187)",
  ignore: !privileged,
  async fn() {
    using host = node("0"), probes = new BranchEniProbes(new HostProbes(host), { log, host });
    await probes.ensure();
    const addresses = [PODS.ipv4, PODS.ipv6, "10.7.0.10"].map((ip) => ({ ip, uid: "a" }));
    const wanted = ["9: vlan1 255", "512: 10.7.0.9 101", "9: vlan1 255", "512: fd07::9 101"];
    await probes.add(addresses);
    assertEquals(added(host), wanted);
    await probes.add(addresses); // Again: EEXIST is fine.
    await probes.sync(addresses, { complete: true });
    assertEquals([added(host), (await probes.addresses()).length], [wanted, 3]);
    await probes.remove([{ ip: PODS.ipv4, uid: "a" }]);
    assertEquals(added(host), wanted.slice(2));
    using after = new BranchEniProbes(new HostProbes(host), { log, host }); // Another process takes all away.
    await after.uninstall();
    await after.uninstall();
    assertEquals(added(host), []);
  },
});

Deno.test({
  name: "BranchEniProbes does nothing where the node is not set up for it, nor for a pod that all reach (CNI-187)",
  ignore: !privileged,
  async fn() {
    using other = node("1"), probes = new BranchEniProbes(new HostProbes(other), { log, host: other });
    await probes.ensure();
    await probes.add([{ ip: PODS.ipv4, uid: "a" }]);
    assertEquals(added(other), []);
    using host = node("0");
    using routes = RouteSocket.open(host);
    routes.addRoute({ destination: "10.7.0.11/32", device: "vlan1" });
    assertEquals([findRules(host, "10.7.0.11"), findRules(host, "10.7.0.12"), findRules(host, "no")], [
      undefined,
      undefined,
      undefined,
    ]);
  },
});
