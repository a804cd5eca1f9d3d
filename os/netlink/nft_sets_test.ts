import { assertEquals, assertThrows } from "@std/assert";
import { MeshError } from "../../base/errors.ts";
import { createAnonymousNetns } from "../netns.ts";
import type { FirewallSet, FirewallTable, SetElement } from "./nft_model.ts";
import { FirewallSocket } from "./nftables.ts";

const privileged = Deno.uid() === 0;
const V4: FirewallSet = { name: "probes-v4", family: "ipv4" }, V6: FirewallSet = { name: "probes-v6", family: "ipv6" };

const TABLE: FirewallTable = {
  name: "one",
  sets: [V4, V6],
  chains: [{ name: "postrouting", base: { type: "nat", hook: "postrouting", priority: 100 } }],
  rules: [
    {
      chain: "postrouting",
      statements: [
        { kind: "transport", transport: "tcp" },
        { kind: "localSocket" },
        { kind: "inSet", family: "ipv4", side: "destination", set: V4.name },
        { kind: "counter" },
        { kind: "sourceNat", family: "ipv4", ip: "169.254.7.127" },
      ],
    },
    {
      chain: "postrouting",
      statements: [
        { kind: "inSet", family: "ipv6", side: "source", set: V6.name },
        { kind: "sourceNat", family: "ipv6", ip: "fd16::1" },
      ],
    },
  ],
};

Deno.test({
  name: "FirewallSocket makes sets with their table, and keeps what is in them when the rules are replaced (CNI-181)",
  ignore: !privileged,
  fn() {
    using netns = createAnonymousNetns();
    using firewall = FirewallSocket.open(netns);
    firewall.replace([TABLE]);
    assertEquals(firewall.differences([TABLE]), []);
    const web: SetElement = { ip: "10.0.0.2", comment: "uid-1" }, bare: SetElement = { ip: "10.0.0.3", comment: "" };
    firewall.changeElements("one", V4, { remove: [], add: [web, bare] });
    firewall.changeElements("one", V6, { remove: [], add: [{ ip: "fd00::2", comment: "uid-1" }] });
    firewall.replace([TABLE]);
    assertEquals([...firewall.setElements("one", V4).values()].sort((a, b) => a.ip < b.ip ? -1 : 1), [web, bare]);
    assertEquals([...firewall.setElements("one", V6).keys()], ["fd00::2"]);
    // Another owner of an address: out and in within one transaction.
    firewall.changeElements("one", V4, { remove: [web.ip], add: [{ ...web, comment: "uid-2" }] });
    assertEquals(firewall.setElements("one", V4).get(web.ip), { ...web, comment: "uid-2" });
    firewall.changeElements("one", V4, { remove: [web.ip, bare.ip], add: [] });
    assertEquals(firewall.setElements("one", V4).size, 0);
    assertThrows(() => firewall.changeElements("one", V4, { remove: [web.ip], add: [] }), MeshError, "take addresses");
  },
});

Deno.test({
  name: "FirewallSocket fills and lists a set of thousands (CNI-181)",
  ignore: !privileged,
  fn() {
    using netns = createAnonymousNetns();
    using firewall = FirewallSocket.open(netns);
    firewall.replace([TABLE]);
    const add = Array.from({ length: 2_500 }, (_, at) => ({
      ip: `10.1.${at >> 8}.${at & 255}`,
      comment: "0123456789abcdef0123456789abcdef-".repeat(4),
    }));
    for (let from = 0; from < add.length; from += 1_000) {
      firewall.changeElements("one", V4, { remove: [], add: add.slice(from, from + 1_000) });
    }
    const listed = firewall.setElements("one", V4);
    assertEquals(listed.size, 2_500);
    assertEquals(listed.get("10.1.9.195")?.comment.length, 127);
  },
});
