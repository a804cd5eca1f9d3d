import { assertEquals, assertThrows } from "@std/assert";
import { MeshError } from "../../base/errors.ts";
import { hostTable } from "../host_probes.ts";
import { PROBE_ADDRESS, redirectionTables } from "../nft_rules.ts";
import { nodeRules, podRules } from "./iptables_rules.ts";
import { probeSourceOf } from "./probe_source.ts";

const said = (probeAddress?: string, probeAddressIpv6?: string, nodeIps: readonly string[] = []) =>
  probeSourceOf({ probeAddress, probeAddressIpv6, nodeIps });

Deno.test("probeSourceOf() takes addresses or the node's own, and keeps Istio's for what was not said (CNI-189)", () => {
  assertEquals(said(), undefined);
  assertEquals(said("169.254.1.1"), { ipv4: "169.254.1.1", ipv6: PROBE_ADDRESS.ipv6 });
  assertEquals(said(undefined, "fd00:0::1"), { ipv4: PROBE_ADDRESS.ipv4, ipv6: "fd00::1" });
  assertEquals(said("node-ip", undefined, ["10.0.0.1", "fd00::1"]), { ipv4: "10.0.0.1", ipv6: "fd00::1" });
  assertEquals(said("node-ip", undefined, ["10.0.0.1"]), { ipv4: "10.0.0.1", ipv6: PROBE_ADDRESS.ipv6 });
  for (const [address, ipv6] of [["node-ip"], ["x"], ["fd00::1"], [undefined, "10.0.0.1"], ["10.0.0.1 -j ACCEPT"]]) {
    assertEquals(assertThrows(() => said(address, ipv6), MeshError).code, "AMB7146", address ?? ipv6);
  }
});

Deno.test("rules of pods and node let the chosen address through, and no longer Istio's (CNI-189)", () => {
  const probe = { ipv4: "10.0.0.1", ipv6: "fd00::1" };
  const texts = [
    redirectionTables({ ipv6: true, probe }),
    hostTable(undefined, probe),
    podRules({ ipv6: true, probe }, "ipv4"),
    podRules({ ipv6: true, probe }, "ipv6"),
    nodeRules("ipv4", probe),
    nodeRules("ipv6", probe),
  ].map((it) => JSON.stringify(it));
  for (const text of texts) {
    assertEquals([text.includes(PROBE_ADDRESS.ipv4), text.includes(PROBE_ADDRESS.ipv6)], [false, false]);
    assertEquals(text.includes(probe.ipv4) || text.includes(probe.ipv6), true);
  }
});
