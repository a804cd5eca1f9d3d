import { assertEquals, assertThrows } from "@std/assert";
import { chain, MeshError } from "../../base/errors.ts";
import { createAnonymousNetns } from "../netns.ts";
import type { FirewallTable } from "./nft_model.ts";
import { FirewallSocket } from "./nftables.ts";

const privileged = Deno.uid() === 0;

/** A table whose rules say `verdicts`, in their order. */
function tableOf(name: string, ...jumps: string[]): FirewallTable {
  return {
    name,
    chains: [{ name: "output", base: { type: "filter", hook: "output", priority: 0 } }, { name: "inner" }],
    rules: jumps.map((to) => ({ chain: "output", statements: [{ kind: "counter" }, { kind: "jump", chain: to }] })),
  };
}

Deno.test({
  name: "FirewallSocket.replace() changes all tables or none, and says which step was refused (CNI-130)",
  ignore: !privileged,
  fn() {
    using netns = createAnonymousNetns();
    using firewall = FirewallSocket.open(netns);
    firewall.replace([tableOf("one", "inner")]);
    const broken = [tableOf("one", "inner", "inner"), tableOf("two", "inner", "missing")];
    for (let round = 0; round < 3; round++) {
      const error = assertThrows(() => firewall.replace(broken), MeshError);
      assertEquals(error.code, "AMB7014");
      assertEquals(chain(error), "could not add rule 2 of table two, chain output by nf_tables: ENOENT");
      assertEquals(firewall.tableNames(), ["one"], "the socket is usable, and nothing was changed");
      assertEquals(firewall.differences([tableOf("one", "inner")]), []);
    }
    firewall.replace([tableOf("two", "inner")], ["one", "never"]);
    assertEquals(firewall.tableNames(), ["two"]);
    firewall.deleteTables(["two", "never"]);
    assertEquals(firewall.tableNames(), []);
  },
});

Deno.test({
  name: "FirewallSocket.replace() of a chain with another hook is refused, and differences() tells why",
  ignore: !privileged,
  fn() {
    using netns = createAnonymousNetns();
    using firewall = FirewallSocket.open(netns);
    firewall.replace([tableOf("one", "inner")]);
    const other: FirewallTable = {
      ...tableOf("one", "inner"),
      chains: [{ name: "output", base: { type: "filter", hook: "output", priority: 7 } }, { name: "inner" }],
    };
    assertEquals(firewall.differences([other]), ["chain one output is different"]);
    assertEquals(assertThrows(() => firewall.replace([other]), MeshError).code, "AMB7014");
  },
});
