import { assert, assertEquals } from "@std/assert";
import { createAnonymousNetns, withinNetns } from "../netns.ts";
import { NetlinkListener } from "./listener.ts";
import { FirewallSocket } from "./nftables.ts";
import { RouteSocket } from "./rtnetlink.ts";
import { listeningPorts } from "./sock_diag.ts";

const privileged = Deno.uid() === 0;

Deno.test({
  name:
    "NetlinkListener hears of rules, routes and addresses of its own namespace, and of no other's (CNI-097, CNI-188)",
  ignore: !privileged,
  fn() {
    using own = createAnonymousNetns();
    using other = createAnonymousNetns();
    using firewall = new NetlinkListener("firewall", own);
    using routes = new NetlinkListener("routes", own);
    assertEquals([firewall.drain(), routes.drain()], [false, false]);
    for (const [netns, heard] of [[other, false], [own, true]] as const) {
      using writer = FirewallSocket.open(netns);
      writer.replace([{ name: "t", chains: [], rules: [] }]);
      using router = RouteSocket.open(netns);
      router.setUp("lo");
      router.addRule({ family: "ipv4", mark: 1, mask: 1, priority: 9, table: 9 });
      assertEquals([firewall.drain(), routes.drain()], [heard, heard]);
      assertEquals([firewall.drain(), routes.drain()], [false, false], "what was heard is taken");
    }
  },
});

Deno.test({
  name: "listeningPorts() names the ports of one namespace, of both families, connected sockets left out (CNI-097)",
  ignore: !privileged,
  fn() {
    using netns = createAnonymousNetns();
    using routes = RouteSocket.open(netns);
    routes.setUp("lo");
    assertEquals([...listeningPorts(netns) ?? []], []);
    using v6 = withinNetns(netns, () => Deno.listen({ hostname: "::", port: 15006 }));
    using v4 = withinNetns(netns, () => Deno.listen({ hostname: "127.0.0.1", port: 15001 }));
    assert(v6.addr !== v4.addr);
    assertEquals([...listeningPorts(netns) ?? []].sort(), [15001, 15006]);
    assert(!listeningPorts()!.has(15001) || !listeningPorts()!.has(15006), "ours is another namespace");
  },
});
