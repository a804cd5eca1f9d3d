import { assertEquals } from "@std/assert";
import { TestMesh } from "./testing.ts";
import { GATEWAY, MESH, NAMESPACE, POD, podUid, SERVICE, serviceName, WORKLOAD_ENTRY } from "./waypoint_testing.ts";

const SYSTEM = (network?: string) =>
  NAMESPACE("istio-system", { labels: network === undefined ? "" : `topology.istio.io/network: '${network}'` });
type GatewayParts = Parameters<typeof GATEWAY>[1];
const addresses = (list: string) => ({ status: `addresses: [${list}]` });
const REMOTE = (name: string, more: GatewayParts = {}) =>
  GATEWAY(name, {
    namespace: "istio-system",
    className: "istio-remote",
    labels: "topology.istio.io/network: far",
    listeners: "{ name: tls, port: 15443, protocol: TLS }, { name: cross, port: 15018, protocol: HBONE }",
    ...addresses("{ type: IPAddress, value: 203.0.113.1 }"),
    ...more,
  });
const GATE = "NetworkGateway/far/203.0.113.1/15018";
const FAR_ENTRY = WORKLOAD_ENTRY("we", { spec: "network: far" });

Deno.test("AmbientIndex: the system namespace's label names the network, the setting only without one; live (CP-123)", () => {
  const mesh = new TestMesh(NAMESPACE("shop") + POD("p") + SERVICE("s", { spec: "clusterIP: 10.96.0.1" }), {
    network: "set",
  });
  const seen = () => [mesh.address(podUid("p"))?.network, mesh.address(serviceName("s"))?.addresses];
  assertEquals(seen(), ["set", ["set/10.96.0.1"]]);
  const every = [`+${podUid("p")}`, `+${serviceName("s")}`];
  assertEquals(mesh.set(SYSTEM("n1")), every);
  assertEquals(seen(), ["n1", ["n1/10.96.0.1"]]);
  assertEquals(mesh.set(SYSTEM("")), every, "an empty name is a name");
  assertEquals(seen(), [undefined, ["/10.96.0.1"]]);
  assertEquals(mesh.set(SYSTEM()), every);
  assertEquals(mesh.set(NAMESPACE("other", { labels: "topology.istio.io/network: x" })), []);
  assertEquals(
    new TestMesh(NAMESPACE("mesh", { labels: "topology.istio.io/network: x" }) + POD("p"), { systemNamespace: "mesh" })
      .address(podUid("p"))?.network,
    "x",
  );
});

Deno.test("AmbientIndex: a Gateway of class istio-remote leads into its network, and is a workload itself (CP-124, CP-207, CP-216)", () => {
  const mesh = new TestMesh(SYSTEM("near") + POD("p") + FAR_ENTRY);
  const entry = "c1/networking.istio.io/WorkloadEntry/shop/we";
  assertEquals(mesh.set(REMOTE("gate")), [`+${GATE}`, `+${entry}`]);
  assertEquals(mesh.address(GATE), {
    uid: GATE,
    name: GATE,
    namespace: "istio-system",
    addresses: ["203.0.113.1"],
    network: "far",
    tunnelProtocol: "NONE",
    trustDomain: "cluster.local",
    serviceAccount: "gate-istio-remote",
    workloadType: "deployment",
    status: "HEALTHY",
    clusterId: "Kubernetes", // What the data plane takes an absent one for.
    networkMode: "STANDARD",
    capacity: 1,
  });
  assertEquals(mesh.address(entry)?.networkGateway, { destination: "far/203.0.113.1", hboneMtlsPort: 15018 });
  assertEquals(mesh.address("far/203.0.113.1")?.uid, GATE, "its address finds it");
  assertEquals(mesh.address(podUid("p"))?.networkGateway, undefined);
  mesh.set(SYSTEM("far"));
  assertEquals(
    mesh.address(podUid("p"))?.networkGateway,
    { destination: "far/203.0.113.1", hboneMtlsPort: 15018 },
    "also of the own network, if one is known",
  );
  assertEquals(mesh.set(MESH("trustDomain: corp.example")).includes(`+${GATE}`), true);
  assertEquals(mesh.address(GATE)?.trustDomain, "corp.example");
  assertEquals(mesh.remove("Gateway/istio-system/gate").includes(`-${GATE}`), true);
  assertEquals(mesh.address(entry)?.networkGateway, undefined);
});

Deno.test("AmbientIndex: what is no gateway of another network, and the forms that are (CP-124)", () => {
  const gates = (yaml: string) => {
    const mesh = new TestMesh(yaml);
    return [...mesh.index.graph.workloads.entries()].map(([uid]) => uid).sort();
  };
  assertEquals(gates(REMOTE("g", { labels: "a: b" })), [], "no network");
  assertEquals(gates(REMOTE("g", { className: "istio-east-west" })), [], "the way into this cluster's own");
  assertEquals(gates(REMOTE("g", { listeners: "{ name: tls, port: 15443, protocol: TLS }" })), []);
  assertEquals(gates(REMOTE("g", { status: "" })), []);
  assertEquals(gates(REMOTE("g", addresses("{ type: IPAddress, value: nonsense }"))), []);
  const several = REMOTE("g", {
    ...addresses("{ type: IPAddress, value: 2001:db8::1 }, { type: Hostname, value: gate.example }"),
    annotations: "gateway.istio.io/service-account: own",
  });
  assertEquals(gates(several), ["NetworkGateway/far/2001:db8::1/15018", "NetworkGateway/far/gate.example/15018"]);
  const mesh = new TestMesh(several + FAR_ENTRY), named = mesh.address("NetworkGateway/far/gate.example/15018");
  assertEquals([named?.hostname, named?.addresses, named?.serviceAccount], ["gate.example", undefined, "own"]);
  assertEquals(
    mesh.address("c1/networking.istio.io/WorkloadEntry/shop/we")?.networkGateway,
    { destination: "far/2001:db8::1", hboneMtlsPort: 15018 },
    "the first in stable order",
  );
  assertEquals(
    new TestMesh(REMOTE("g", addresses("{ type: Hostname, value: gate.example }")) + FAR_ENTRY)
      .address("c1/networking.istio.io/WorkloadEntry/shop/we")?.networkGateway,
    { destination: "istio-system/gate.example", hboneMtlsPort: 15018 },
  );
});

Deno.test("AmbientIndex: two Gateways that name one address are one workload until the last is gone (CP-216)", () => {
  const mesh = new TestMesh(REMOTE("a") + REMOTE("b"));
  assertEquals(mesh.address(GATE)?.serviceAccount, "a-istio-remote");
  assertEquals(mesh.remove("Gateway/istio-system/a"), [`+${GATE}`]);
  assertEquals(mesh.address(GATE)?.serviceAccount, "b-istio-remote");
  assertEquals(mesh.remove("Gateway/istio-system/b"), [`-${GATE}`]);
});
