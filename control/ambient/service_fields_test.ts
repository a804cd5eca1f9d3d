/** Table 3.3 of the rules, field by field: what a Service and a ServiceEntry yield. */
import { assertEquals } from "@std/assert";
import type { Json } from "./describe.ts";
import { TestMesh } from "./testing.ts";

type Fields = { readonly [name: string]: Json } | undefined;

const service = (spec: string, { metadata = "", namespace = "" } = {}): Fields =>
  new TestMesh(
    `
apiVersion: v1
kind: Namespace
metadata: { name: shop, ${namespace} }
---
apiVersion: v1
kind: Service
metadata: { name: s, namespace: shop, ${metadata} }
spec: { ${spec} }
`,
    { network: "n" },
  ).address("shop/s.shop.svc.cluster.local");

const entry = (spec: string, { metadata = "", host = "a.example", status = "" } = {}): Fields =>
  new TestMesh(
    `
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: { name: e, namespace: shop, ${metadata} }
spec: { hosts: ["${host}"], ${spec} }
status: { ${status} }
`,
    { network: "n" },
  ).address(`shop/${host}`);

Deno.test("a Service's addresses: of clusterIPs, else clusterIP; none of a headless one (CP-222)", () => {
  const cases: [spec: string, addresses: string[] | undefined][] = [
    ["clusterIP: 10.96.0.1, clusterIPs: [10.96.0.1, 'fd00::1']", ["n/10.96.0.1", "n/fd00::1"]],
    ["clusterIP: 10.96.0.1", ["n/10.96.0.1"]],
    ["clusterIP: None", undefined],
    ["clusterIP: None, clusterIPs: [None]", undefined],
    ["clusterIP: ''", undefined],
    ["ports: []", undefined],
  ];
  for (const [spec, addresses] of cases) {
    assertEquals(service(spec)?.addresses, addresses, spec);
    assertEquals(service(spec)?.hostname, "s.shop.svc.cluster.local", "by name it is found all the same");
  }
});

Deno.test("an ExternalName Service is not published, with nothing of its slices (CP-220)", () => {
  const mesh = new TestMesh(`
apiVersion: v1
kind: Service
metadata: { name: s, namespace: shop }
spec: { type: ExternalName, externalName: example.com, ports: [{ port: 80 }], clusterIP: 10.96.0.1 }
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: { name: s-1, namespace: shop, labels: { kubernetes.io/service-name: s } }
addressType: IPv4
endpoints: [{ addresses: [192.0.2.1] }]
ports: [{ port: 80 }]
`);
  assertEquals([mesh.address("shop/s.shop.svc.cluster.local"), mesh.address("/192.0.2.1")], [undefined, undefined]);
});

Deno.test("a Service's ports: all of them, 0 for a target by name (CP table 3.3)", () => {
  const ports =
    "{ name: http, port: 80, targetPort: web }, { name: u, port: 53, protocol: UDP, targetPort: 54 }, { port: 81 }";
  assertEquals(service(`ports: [${ports}]`)?.ports, ["80:0 HTTP11", "53:54", "81:81"]);
});

const balanced = (mode: string, routingPreference: string[], healthPolicy = "ONLY_HEALTHY") => ({
  mode,
  routingPreference,
  healthPolicy,
});
const ZONE = balanced("FAILOVER", ["NETWORK", "REGION", "ZONE"]);
const NODE = balanced("FAILOVER", ["NETWORK", "REGION", "ZONE", "SUBZONE", "NODE"]);
const DISTRIBUTION = "networking.istio.io/traffic-distribution";

Deno.test("a Service's load balancing: node-local, else the first distribution that is stated; readiness apart (CP-225)", () => {
  const of = (name: string) => `annotations: { ${DISTRIBUTION}: ${name} }`;
  const cases: [spec: string, metadata: string, namespace: string, expected: object | undefined][] = [
    ["", "", "", undefined],
    ["trafficDistribution: PreferClose", "", "", ZONE],
    ["trafficDistribution: PreferSameZone", "", "", ZONE],
    ["trafficDistribution: PreferSameNode", "", "", NODE],
    ["trafficDistribution: Any", of("PreferClose"), of("PreferClose"), undefined],
    ["", of("PreferSameNode"), of("PreferClose"), NODE],
    ["", "", of("PreferClose"), ZONE],
    ["", of("nonsense"), of("PreferClose"), undefined],
    ["internalTrafficPolicy: Local, trafficDistribution: PreferClose", "", "", balanced("STRICT", ["NODE"])],
    ["internalTrafficPolicy: Cluster", "", "", undefined],
    ["publishNotReadyAddresses: true", "", "", balanced("UNSPECIFIED", [], "ALLOW_ALL")],
    ["publishNotReadyAddresses: true, trafficDistribution: PreferClose", "", "", {
      ...ZONE,
      healthPolicy: "ALLOW_ALL",
    }],
    ["trafficDistribution: PreferClose", "", "", ZONE],
  ];
  for (const [spec, metadata, namespace, expected] of cases) {
    assertEquals(
      service(spec, { metadata, namespace })?.loadBalancing,
      expected,
      `${spec} | ${metadata} | ${namespace}`,
    );
  }
});

Deno.test("a Service that counts endpoints that are not ready leaves the others' balancing as it is (CP-225)", () => {
  const one = (name: string, more: string) => `
apiVersion: v1
kind: Service
metadata: { name: ${name}, namespace: shop }
spec: { trafficDistribution: PreferClose, ${more} }
---`;
  const mesh = new TestMesh(one("a", "publishNotReadyAddresses: true") + one("b", ""));
  const policyOf = (name: string) => {
    const balancing = mesh.address(`shop/${name}.shop.svc.cluster.local`)?.loadBalancing;
    return typeof balancing === "object" && "healthPolicy" in balancing ? balancing.healthPolicy : undefined;
  };
  assertEquals([policyOf("a"), policyOf("b")], ["ALLOW_ALL", "ONLY_HEALTHY"]);
});

Deno.test("a ServiceEntry's load balancing: past the proxy without resolution, else by its annotation (CP-227)", () => {
  const passthrough = balanced("PASSTHROUGH", [], "ALLOW_ALL"), close = `annotations: { ${DISTRIBUTION}: PreferClose }`;
  const cases: [resolution: string, metadata: string, expected: object | undefined][] = [
    ["NONE", "", passthrough],
    ["NONE", close, passthrough],
    ["STATIC", "", undefined],
    ["STATIC", close, ZONE],
    ["DNS", close, ZONE],
  ];
  for (const [resolution, metadata, expected] of cases) {
    assertEquals(
      entry(`resolution: ${resolution}`, { metadata })?.loadBalancing,
      expected,
      `${resolution} ${metadata}`,
    );
  }
});

Deno.test("families, names and ports of Services and ServiceEntries (CP table 3.3)", () => {
  const families = (spec: string) => service(spec)?.ipFamilies;
  assertEquals(families("ipFamilies: [IPv4]"), "IPV4_ONLY");
  assertEquals(families("ipFamilies: [IPv6]"), "IPV6_ONLY");
  assertEquals(families("ipFamilies: [IPv6, IPv4]"), "DUAL");
  assertEquals(families("ports: []"), "AUTOMATIC");
  assertEquals(
    entry(
      "subjectAltNames: [spiffe://td/ns/a/sa/b], ports: [{ name: x, number: 80, targetPort: 81 }, { name: y, number: 82 }]",
    ),
    {
      name: "e",
      namespace: "shop",
      hostname: "a.example",
      ports: ["80:81 TCP", "82:82 TCP"],
      subjectAltNames: ["spiffe://td/ns/a/sa/b"],
      loadBalancing: balanced("PASSTHROUGH", [], "ALLOW_ALL"),
      ipFamilies: "AUTOMATIC",
      canonical: true,
      visibility: "PUBLIC",
    },
  );
});

Deno.test("a ServiceEntry's addresses: its own, ranges masked, else what was allocated to its host (CP-221, CP-240)", () => {
  const allocated = "addresses: [{ value: 240.240.0.1, host: a.example }, { value: 240.240.0.2, host: b.example }]";
  const addresses = (spec: string, status = "") => entry(`resolution: STATIC, ${spec}`, { status })?.addresses;
  assertEquals(addresses("addresses: [10.0.0.5/24, 10.1.0.1/32, 10.2.0.1]"), [
    "n/10.0.0.0/24",
    "n/10.1.0.1",
    "n/10.2.0.1",
  ]);
  assertEquals(addresses("", allocated), ["n/240.240.0.1"]);
  assertEquals(addresses("addresses: [10.2.0.1]", allocated), ["n/10.2.0.1"]);
});
