import { assert, assertEquals } from "@std/assert";
import type { KubernetesObject } from "../objects.ts";
import { describeIndex } from "./describe.ts";
import { changeOf, objectsOf, TestMesh } from "./testing.ts";
import { GATEWAY, MESH, NAMESPACE, SERVICE, serviceName } from "./waypoint_testing.ts";

const SCOPES = MESH(
  "serviceScopeConfigs: [{ scope: GLOBAL, servicesSelector: { matchExpressions: [{ key: istio.io/global, operator: In, values: ['true'] }] } }]",
);
const SYSTEM = (network: string) => NAMESPACE("istio-system", { labels: `topology.istio.io/network: ${network}` });
const GLOBAL = "istio.io/global: 'true'";
const CART = (clusterIp: string, { labels = GLOBAL, ports = "[{ port: 80, targetPort: 8080 }]" } = {}) =>
  SERVICE("cart", { labels, spec: `clusterIP: ${clusterIp}, selector: { app: cart }, ports: ${ports}` })
    .replace("ports: [{ port: 80 }], ", "");
const POD = (name: string, ip: string, { account = "cart", ready = true, weightless = "" } = {}) => `
apiVersion: v1
kind: Pod
metadata: { name: ${name}, namespace: shop, labels: { app: cart } ${weightless} }
spec: { serviceAccountName: ${account} }
status: { podIP: ${ip}, phase: Running, conditions: [{ type: Ready, status: "${ready ? "True" : "False"}" }] }
---`;
const EAST_WEST = (ip: string, name = "ew") =>
  GATEWAY(name, {
    namespace: "istio-system",
    className: "istio-east-west",
    labels: "topology.istio.io/network: net2",
    listeners: "{ name: mesh, port: 15008, protocol: HBONE, tls: { mode: Terminate } }",
    status: `addresses: [{ type: IPAddress, value: ${ip} }]`,
  });

const LOCAL = SCOPES + SYSTEM("net1") + NAMESPACE("shop") + CART("10.96.0.1") + POD("own", "10.0.0.1");
const FAR = SYSTEM("net2") + NAMESPACE("shop") + CART("10.97.0.1") + POD("a", "10.0.0.1") + EAST_WEST("203.0.113.2");
const NAME = serviceName("cart");
const SPLIT = `net2/SplitHorizonWorkload/istio-system/ew/203.0.113.2/${NAME}`;
const GATE = "NetworkGateway/net2/203.0.113.2/0";

function twoNetworks(local = LOCAL, far = FAR): TestMesh {
  const mesh = new TestMesh(local, { multiNetwork: true });
  mesh.set(far, "c2");
  return mesh;
}

function workloads(mesh: TestMesh): string[] {
  return [...mesh.index.graph.workloads.entries()].map(([uid]) => uid).sort();
}

Deno.test("AmbientIndex: without the flag other clusters' objects do not enter (CP-280)", () => {
  const mesh = new TestMesh(LOCAL);
  assertEquals(mesh.set(FAR, "c2"), []);
  assertEquals(workloads(mesh), ["c1//Pod/shop/own"]);
});

Deno.test("AmbientIndex: members on another network are one workload behind its gateway; the service has every cluster's addresses (CP-124, CP-281 to CP-284)", () => {
  const mesh = twoNetworks();
  assertEquals(workloads(mesh), [GATE, "c1//Pod/shop/own", SPLIT].sort());
  assertEquals(mesh.address(SPLIT), {
    uid: SPLIT,
    name: SPLIT,
    namespace: "shop",
    network: "net2",
    tunnelProtocol: "HBONE",
    trustDomain: "cluster.local",
    serviceAccount: "default", // What the data plane takes an absent one for; so of the next one.
    networkGateway: { destination: "net2/203.0.113.2", hboneMtlsPort: 15008 },
    workloadType: "pod",
    status: "HEALTHY",
    clusterId: "c2",
    services: { [NAME]: ["80:8080"] },
    networkMode: "STANDARD",
    capacity: 1,
  });
  const service = mesh.address(NAME);
  assertEquals(service?.addresses, ["net1/10.96.0.1", "net2/10.97.0.1"]);
  assertEquals(service?.subjectAltNames, ["spiffe://cluster.local/ns/shop/sa/cart"]);
  assertEquals(mesh.address("net2/10.97.0.1")?.hostname, "cart.shop.svc.cluster.local");
  assertEquals(mesh.address(GATE)?.serviceAccount, "ew", "the account its deployment has");
  assertEquals(mesh.set(POD("b", "10.0.0.2", { account: "back" }), "c2"), [`+${SPLIT}`, `+${NAME}`]);
  assertEquals(mesh.address(NAME)?.subjectAltNames, [
    "spiffe://cluster.local/ns/shop/sa/back",
    "spiffe://cluster.local/ns/shop/sa/cart",
  ]);
  assertEquals(mesh.address(SPLIT)?.capacity, 2);
});

Deno.test("AmbientIndex: members that are not healthy count for nothing; without a healthy one nor is what stands for them (CP-282)", () => {
  const mesh = twoNetworks(LOCAL, FAR + POD("b", "10.0.0.2"));
  const seen = () => [mesh.address(SPLIT)?.status, mesh.address(SPLIT)?.capacity];
  assertEquals(seen(), ["HEALTHY", 2]);
  assertEquals(mesh.set(POD("b", "10.0.0.2", { ready: false }), "c2"), [`+${SPLIT}`]);
  assertEquals(seen(), ["HEALTHY", 1]);
  mesh.set(POD("a", "10.0.0.1", { ready: false }), "c2");
  assertEquals(seen(), ["UNHEALTHY", 2]);
  mesh.apply([{ kind: "Pod", key: "Pod/shop/a", object: undefined, cluster: "c2" }]);
  assertEquals(mesh.apply([{ kind: "Pod", key: "Pod/shop/b", object: undefined, cluster: "c2" }]), [
    `+${NAME}`,
    `-${SPLIT}`,
  ]);
  assertEquals(mesh.address(NAME)?.subjectAltNames, undefined);
});

Deno.test("AmbientIndex: no gateway, or no global service: nothing of the other network is sent (CP-282)", () => {
  assertEquals(workloads(twoNetworks(LOCAL, FAR.replace("istio-east-west", "istio"))), ["c1//Pod/shop/own"]);
  const local = twoNetworks(LOCAL.replaceAll("istio.io/global: 'true'", ""));
  assertEquals(workloads(local), [GATE, "c1//Pod/shop/own"].sort());
  assertEquals(local.address(NAME)?.addresses, ["net1/10.96.0.1"], "a service that is local stays alone (CP-281)");
  const mesh = twoNetworks(LOCAL, FAR.replaceAll("istio.io/global: 'true'", ""));
  assertEquals(mesh.address(NAME)?.addresses, ["net1/10.96.0.1"]);
  assertEquals(workloads(mesh), [GATE, "c1//Pod/shop/own"].sort(), "nor does another cluster's local one count");
});

Deno.test("AmbientIndex: of several gateways the first in stable order leads, the config cluster's own view before others' (CP-124, CP-282)", () => {
  const mesh = twoNetworks(LOCAL, FAR + EAST_WEST("203.0.113.1", "aa"));
  assertEquals(workloads(mesh).filter((it) => it.includes("Split")), [
    SPLIT.replace("ew/203.0.113.2", "aa/203.0.113.1"),
  ]);
  const view = GATEWAY("ew", {
    namespace: "istio-system",
    className: "istio-remote",
    labels: "topology.istio.io/network: net2",
    listeners: "{ name: cross, port: 15018, protocol: HBONE }",
    status: "addresses: [{ type: IPAddress, value: 203.0.113.2 }]",
  });
  const both = twoNetworks(LOCAL + view);
  assertEquals(both.address(SPLIT)?.networkGateway, { destination: "net2/203.0.113.2", hboneMtlsPort: 15018 });
  assertEquals(both.address("NetworkGateway/net2/203.0.113.2/15018")?.serviceAccount, "ew-istio-remote");
  assertEquals(both.address(GATE), undefined);
});

Deno.test("AmbientIndex: another cluster on the same network: its pods are sent as they are, under its own id (CP-282)", () => {
  const mesh = twoNetworks(LOCAL, FAR.replace(": net2", ": net1").replace(EAST_WEST("203.0.113.2"), ""));
  assertEquals(workloads(mesh), ["c1//Pod/shop/own", "c2//Pod/shop/a"]);
  const pod = mesh.address("c2//Pod/shop/a");
  assertEquals([pod?.clusterId, pod?.network, pod?.services], ["c2", "net1", { [NAME]: ["80:8080"] }]);
  assertEquals(mesh.address(NAME)?.subjectAltNames, undefined);
});

Deno.test("AmbientIndex: a cluster's Nodes, Namespaces and slices are its own (CP-121, CP-208)", () => {
  const node = (zone: string) => `
apiVersion: v1
kind: Node
metadata: { name: n1, labels: { topology.kubernetes.io/zone: ${zone} } }
---`;
  const pod = POD("p", "10.0.0.9").replace("spec: {", "spec: { nodeName: n1,");
  const slice = `
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: { name: s, namespace: shop, labels: { kubernetes.io/service-name: named } }
addressType: IPv4
endpoints: [{ addresses: [10.0.0.9], targetRef: { kind: Pod, name: p } }, { addresses: [192.0.2.7] }]
---`;
  const named = SERVICE("named", { labels: GLOBAL, spec: "clusterIP: 10.97.0.9" });
  const mesh = new TestMesh(LOCAL + node("home") + pod, { multiNetwork: true });
  mesh.set(SYSTEM("net1") + NAMESPACE("shop") + node("away") + pod + slice + named, "c2");
  assertEquals(mesh.address("c1//Pod/shop/p")?.locality, { zone: "home" });
  assertEquals(mesh.address("c2//Pod/shop/p")?.locality, { zone: "away" });
  assertEquals(Object.keys(mesh.address("c1//Pod/shop/p")?.services ?? {}), [NAME]);
  assertEquals(Object.keys(mesh.address("c2//Pod/shop/p")?.services ?? {}), [serviceName("named")]);
  assertEquals(mesh.address("c2/discovery.k8s.io/EndpointSlice/shop/s/192.0.2.7")?.clusterId, "c2");
});

Deno.test("AmbientIndex: with no service of its own the first other cluster's counts, by id; ports that differ are said (CP-281)", () => {
  const mesh = new TestMesh(SCOPES + SYSTEM("net1"), { multiNetwork: true });
  const other = (ports: string, ip: string) => SYSTEM("net1") + NAMESPACE("shop") + CART(ip, { ports });
  mesh.set(other("[{ port: 90 }]", "10.95.0.1"), "c3");
  mesh.set(other("[{ port: 80 }]", "10.97.0.1"), "c2");
  assertEquals([mesh.address(NAME)?.ports, mesh.address(NAME)?.addresses], [["80:80"], [
    "net1/10.95.0.1",
    "net1/10.97.0.1",
  ]]);
  assertEquals([...mesh.index.graph.problems.entries()].map(([, it]) => it.reason), ["PortsDiffer"]);
  mesh.index.withdraw("c2");
  assertEquals(mesh.address(NAME)?.ports, ["90:90"]);
  assertEquals([...mesh.index.graph.problems.entries()], []);
});

Deno.test("AmbientIndex: a binding to a waypoint survives the merge, ingress and all (CP-286)", () => {
  const use = "istio.io/use-waypoint: w, istio.io/ingress-use-waypoint: 'true'";
  const bound = (yaml: string) => yaml.replaceAll(GLOBAL, `${GLOBAL}, ${use}`);
  const seen = (mesh: TestMesh) => [mesh.address(NAME)?.waypoint, mesh.address(NAME)?.ingressUseWaypoint];
  const expected = [{ destination: "shop/w.shop.svc.cluster.local", hboneMtlsPort: 15008 }, true];
  const mesh = twoNetworks(bound(LOCAL) + GATEWAY("w"), FAR);
  assertEquals(seen(mesh), expected);
  assert(mesh.address(NAME)?.subjectAltNames !== undefined, "it is merged");
  const farOnly = twoNetworks(SCOPES + SYSTEM("net1"), bound(FAR) + GATEWAY("w"));
  assertEquals(seen(farOnly), expected, "the other cluster's own waypoint");
  assertEquals(workloads(farOnly), [GATE, SPLIT].sort());
  const elsewhere = twoNetworks(bound(LOCAL), FAR + GATEWAY("w"));
  assertEquals(seen(elsewhere), [undefined, undefined], "another cluster's waypoint is none of the own service's");
});

Deno.test("AmbientIndex: a cluster that goes takes all it gave with it and leaves nothing behind; coming back changes nothing (CP-121, CP-285)", () => {
  const mesh = twoNetworks(), full = describeIndex(mesh.index);
  const sizes = () => mesh.index.collections().map(({ name, size }) => `${name} ${size}`);
  const alone = new TestMesh(LOCAL, { multiNetwork: true });
  const before = alone.index.collections().map(({ name, size }) => `${name} ${size}`);
  assertEquals(mesh.set(FAR, "c2"), [], "new credentials for the same cluster flap nothing");
  for (let round = 0; round < 3; round++) {
    mesh.index.withdraw("c2");
    assertEquals(describeIndex(mesh.index), describeIndex(alone.index));
    assertEquals(sizes(), before);
    mesh.set(FAR, "c2");
    assertEquals(describeIndex(mesh.index), full);
  }
});

Deno.test("AmbientIndex: the config cluster under its own id is the config cluster", () => {
  const mesh = new TestMesh("", { multiNetwork: true });
  mesh.apply(objectsOf(LOCAL).map((object: KubernetesObject) => changeOf(object, "c1")));
  assertEquals(describeIndex(mesh.index), describeIndex(new TestMesh(LOCAL, { multiNetwork: true }).index));
});
