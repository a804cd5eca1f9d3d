import { assertEquals } from "@std/assert";
import { extensionRules } from "./extension_annotations.ts";
import { ruleOptionsOf } from "./node_pod.ts";

const PORTS = "ambient.mesh/exclude-outbound-ports", CIDRS = "ambient.mesh/exclude-outbound-cidrs";
const INBOUND = "ambient.mesh/exclude-inbound-ports", GRACEFUL = "ambient.mesh/graceful-enrol";

Deno.test("extensionRules() reads what a pod leaves out, where the node permits it; else all is captured (CNI-099)", () => {
  const annotations = { [PORTS]: "3306, 22,", [CIDRS]: "10.0.0.0/8,fd00::/8", [INBOUND]: "9100", [GRACEFUL]: "true" };
  assertEquals(extensionRules(annotations, { permitted: true }), {
    rules: {
      exclude: { outboundPorts: [3306, 22], outboundCidrs: ["10.0.0.0/8", "fd00::/8"], inboundPorts: [9100] },
      graceful: true,
    },
    problems: [],
  });
  assertEquals(extensionRules(annotations, { permitted: false }), {
    rules: {},
    problems: [PORTS, CIDRS, INBOUND, GRACEFUL].map((name) => `${name} is not permitted on this node`),
  });
  assertEquals(extensionRules({}, { permitted: false }), { rules: {}, problems: [] });
});

Deno.test("extensionRules() passes over what is no port, range or word, and says so (CNI-099)", () => {
  for (const text of ["0", "65536", "-1", "80-90", "1e3", "x"]) {
    const { rules, problems } = extensionRules({ [PORTS]: `443,${text}` }, { permitted: true });
    assertEquals([rules.exclude?.outboundPorts, problems.length], [[443], 1], text);
  }
  for (const text of ["10.0.0.0/33", "a/8", "1.2.3", "::/129", "10.0.0.0/8 -j ACCEPT"]) {
    assertEquals(extensionRules({ [CIDRS]: text }, { permitted: true }).rules, {}, text);
  }
  assertEquals(extensionRules({ [GRACEFUL]: "yes" }, { permitted: true }).problems, [
    `${GRACEFUL} is neither true nor false`,
  ]);
  const many = Array.from({ length: 65 }, (_, at) => at + 1).join(",");
  const { rules, problems } = extensionRules({ [INBOUND]: many }, { permitted: true });
  assertEquals([rules.exclude?.inboundPorts.length, problems.length], [64, 1]);
});

Deno.test("ruleOptionsOf() adds a pod's exclusions to what holds for all, and keeps the permit to itself (CNI-094, CNI-099)", () => {
  const pod = { annotations: { [PORTS]: "3306" } };
  assertEquals(ruleOptionsOf(pod, { dnsCapture: true, permitExclusions: true }), {
    rules: { dnsCapture: true, exclude: { outboundPorts: [3306], outboundCidrs: [], inboundPorts: [] } },
    problems: [],
  });
  assertEquals(ruleOptionsOf(pod, { dnsCapture: true }), {
    rules: { dnsCapture: true },
    problems: [`${PORTS} is not permitted on this node`],
  });
});
