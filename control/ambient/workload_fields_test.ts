/** Table 3.2 of the rules, field by field: what pods, entries and slices yield beyond what has a test of its own. */
import { assertEquals } from "@std/assert";
import { TestMesh } from "./testing.ts";

const pod = (labels: string, more = "spec: {}") => `
apiVersion: v1
kind: Pod
metadata: { name: p, namespace: shop, labels: { ${labels} } }
${more}
status: { podIP: 10.0.0.1 }
---`;
const POD = "c1//Pod/shop/p";

Deno.test("canonical name and revision: the first label that says something (CP-205)", () => {
  const cases: [labels: string, name: string, revision: string][] = [
    ["", "p", "latest"],
    ["app: a, version: v1", "a", "v1"],
    ["app.kubernetes.io/name: k, app: a, app.kubernetes.io/version: k1, version: v1", "k", "k1"],
    [
      "service.istio.io/canonical-name: c, app.kubernetes.io/name: k, service.istio.io/canonical-revision: c1, version: v1",
      "c",
      "c1",
    ],
    [`service.istio.io/canonical-name: "", app: a, version: ""`, "a", "latest"],
    ["service.istio.io/workload-name: w", "w", "latest"],
  ];
  for (const [labels, name, revision] of cases) {
    const workload = new TestMesh(pod(labels)).address(POD);
    assertEquals([workload?.canonicalName, workload?.canonicalRevision], [name, revision], labels);
    const entry = new TestMesh(`
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: { name: p, namespace: shop, labels: { ${labels} } }
spec: { address: 10.0.0.1 }`).address("c1/networking.istio.io/WorkloadEntry/shop/p");
    assertEquals([entry?.canonicalName, entry?.canonicalRevision], [name, revision], labels);
  }
});

const SERVICE = (ports: string, name = "s") => `
apiVersion: v1
kind: Service
metadata: { name: ${name}, namespace: shop }
spec: { selector: { app: a }, ports: [${ports}] }
---`;
const CONTAINERS = `spec:
  containers:
    - ports: [{ name: web, containerPort: 8080 }, { name: dns, containerPort: 53, protocol: UDP }]
    - ports: [{ name: web, containerPort: 9999 }]
  initContainers:
    - { restartPolicy: Always, ports: [{ name: side, containerPort: 7070 }, { name: web, containerPort: 7071 }] }
    - { ports: [{ name: once, containerPort: 6060 }] }`;

Deno.test("a Service's ports on a pod, under the service's key, in its order; what the pod lacks is left out (CP-209, CP-210)", () => {
  const portsOf = (ports: string) => new TestMesh(SERVICE(ports) + pod("app: a", CONTAINERS)).address(POD)?.services;
  const on = (...ports: string[]) => ({ "shop/s.shop.svc.cluster.local": ports });
  assertEquals(portsOf("{ name: b, port: 81, targetPort: 1 }, { name: a, port: 80 }"), on("81:1", "80:80"));
  assertEquals(portsOf("{ port: 80, targetPort: web }"), on("80:8080"), "containers first, the first of the name");
  assertEquals(portsOf("{ port: 80, targetPort: side }"), on("80:7070"), "then sidecars");
  assertEquals(
    portsOf("{ name: a, port: 80, targetPort: once }, { name: b, port: 81 }"),
    on("81:81"),
    "no init container",
  );
  assertEquals(portsOf("{ port: 80, targetPort: dns }"), on(), "TCP alone; the service stays named");
});

const SLICE = (more: string, labels = "kubernetes.io/service-name: s") => `
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: { name: s-1, namespace: shop, labels: { ${labels} } }
${more}
---`;
const MANUAL = `
apiVersion: v1
kind: Service
metadata: { name: s, namespace: shop }
spec: { clusterIP: 10.96.0.1, ports: [{ name: http, port: 80 }, { name: other, port: 81 }] }
---`;

Deno.test("endpoints of a slice that are no pods are workloads of its Service, joined by port names (CP-214)", () => {
  const endpoints = "endpoints: [{ addresses: [192.0.2.1] }, { addresses: [192.0.2.2], conditions: { ready: false } }]";
  const ports = "ports: [{ name: http, port: 8080 }, { name: strange, port: 1 }, { name: other }]";
  const mesh = new TestMesh(MANUAL + SLICE(`addressType: IPv4\n${endpoints}\n${ports}`));
  const uid = (ip: string) => `c1/discovery.k8s.io/EndpointSlice/shop/s-1/${ip}`;
  assertEquals(mesh.address(uid("192.0.2.1")), {
    uid: uid("192.0.2.1"),
    name: "s-1",
    namespace: "shop",
    addresses: ["192.0.2.1"],
    tunnelProtocol: "NONE",
    trustDomain: "cluster.local",
    serviceAccount: "default",
    workloadType: "deployment",
    status: "HEALTHY",
    clusterId: "c1",
    services: { "shop/s.shop.svc.cluster.local": ["80:8080"] },
    networkMode: "HOST_NETWORK",
    capacity: 1,
  });
  assertEquals(mesh.address(uid("192.0.2.2"))?.status, "UNHEALTHY");
});

Deno.test("slices without a Service, of names, or of pods yield no workloads (CP-214)", () => {
  const one = "endpoints: [{ addresses: [192.0.2.1] }]\nports: [{ name: http, port: 80 }]", ip4 = "addressType: IPv4\n";
  const count = (yaml: string) =>
    [...new TestMesh(yaml).index.graph.workloads.entries()].filter(([uid]) => uid.includes("EndpointSlice")).length;
  assertEquals(count(MANUAL + SLICE(ip4 + one)), 1);
  assertEquals(count(SLICE(ip4 + one)), 0, "no such Service");
  assertEquals(count(MANUAL + SLICE(ip4 + one, "")), 0, "it names none");
  assertEquals(count(MANUAL + SLICE("addressType: FQDN\nendpoints: [{ addresses: [a.example] }]")), 0);
  const named = ip4 + "endpoints: [{ addresses: [192.0.2.1], targetRef: { kind: Pod, name: p, namespace: shop } }]";
  assertEquals(count(MANUAL + SLICE(named)), 0);
  const hidden = `
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: { name: s, namespace: shop }
spec: { hosts: [s.shop.svc.cluster.local], resolution: STATIC, ports: [{ name: http, number: 80 }] }
---`;
  assertEquals(count(hidden + SLICE(ip4 + one)), 0, "a ServiceEntry of that host is no Service");
});

Deno.test("account, network mode, capacity and names of entries (CP table 3.2, CP-204, CP-212)", () => {
  const entry = (spec: string, metadata = "") =>
    new TestMesh(
      `
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: { name: vm, namespace: shop, ${metadata} }
spec: { ${spec} }`,
      { network: "n" },
    ).address("c1/networking.istio.io/WorkloadEntry/shop/vm");
  const plain = entry("address: 10.1.0.1");
  assertEquals([plain?.serviceAccount, plain?.capacity, plain?.network, plain?.networkMode], [
    "default",
    1,
    "n",
    "STANDARD",
  ]);
  const full = entry("address: vm.example, weight: 7, network: far, serviceAccount: db");
  assertEquals([full?.hostname, full?.addresses, full?.capacity, full?.network, full?.serviceAccount], [
    "vm.example",
    undefined,
    7,
    "far",
    "db",
  ]);
  const group = "annotations: { istio.io/autoRegistrationGroup: g }, labels: { service.istio.io/workload-name: l }";
  assertEquals(entry("address: 10.1.0.1", group)?.workloadName, "g");
  assertEquals(entry("address: 10.1.0.1", "labels: { service.istio.io/workload-name: l }")?.workloadName, "l");
  const host = new TestMesh(pod("", "spec: { hostNetwork: true, serviceAccountName: x }")).address(POD);
  assertEquals([host?.networkMode, host?.serviceAccount], ["HOST_NETWORK", "x"]);
});
