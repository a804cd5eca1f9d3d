import { assertEquals, assertThrows } from "@std/assert";
import { chain, MeshError } from "../../base/errors.ts";
import { FirewallSocket } from "../../os/netlink/nftables.ts";
import { SharedNode } from "./shared_node.ts";

Deno.test("SharedNode says that units need nf_tables where the kernel refuses their rules, and captures nothing (CNI-274)", () => {
  const refusal = new MeshError("AMB7014", "could not write the rules by nf_tables: EOPNOTSUPP", { remedy: "" });
  const node = new SharedNode({ never: [] }), cgroup = { path: "system.slice/web.service", id: 7 };
  const request = { inboundPorts: [8080] };
  const { replaceWhole } = FirewallSocket.prototype;
  FirewallSocket.prototype.replaceWhole = () => {
    throw refusal;
  };
  using _accepting = { [Symbol.dispose]: () => void (FirewallSocket.prototype.replaceWhole = replaceWhole) };
  const error = assertThrows(() => node.apply(0, cgroup, request), MeshError);
  assertEquals([error.code, error.remedy.includes("ambit cni check --node")], ["AMB7220", true]);
  assertEquals(
    chain(error),
    "units and control groups cannot be captured, which nf_tables alone can: could not write the rules by nf_tables: " +
      "EOPNOTSUPP",
  );
  assertEquals(node.check(), [], "it is not among those that are captured");
});
