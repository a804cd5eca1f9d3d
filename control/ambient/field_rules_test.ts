import { assertEquals } from "@std/assert";
import type { ServiceObject } from "../objects.ts";
import { changeOf, objectsOf, TestMesh } from "./testing.ts";

const P1 = "c1//Pod/shop/p1", CART = "shop/cart.shop.svc.cluster.local";

function pod({ labels = "app: cart", spec = "", owner = "" } = {}): string {
  return `
apiVersion: v1
kind: Pod
metadata: { name: p1, namespace: shop, labels: { ${labels} } ${owner} }
spec: { nodeName: n1, containers: [{ name: a, ports: [{ name: http, containerPort: 8080 }, { name: dns, containerPort: 53, protocol: UDP }] }] ${spec} }
status: { podIP: 10.0.0.1 }
---`;
}

function service(spec: string, metadata = ""): string {
  return `
apiVersion: v1
kind: Service
metadata: { name: cart, namespace: shop ${metadata} }
spec: { ${spec} }
---`;
}

function entry(spec: string, metadata = ""): string {
  return `
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: { name: se, namespace: shop ${metadata} }
spec: { hosts: [db.example], ports: [{ number: 80, name: http, protocol: HTTP }], ${spec} }
---`;
}

/** The fields of a resource that a case is about. */
function picked(mesh: TestMesh, name: string, ...fields: readonly string[]): unknown[] {
  const found = mesh.address(name);
  return fields.map((field) => found?.[field]);
}

Deno.test("canonical name and revision come from the first label that says them (CP-205)", () => {
  const rows: readonly (readonly [labels: string, name: string, revision: string])[] = [
    ["", "p1", "latest"],
    ["app: a, version: v1", "a", "v1"],
    ["app: a, app.kubernetes.io/name: k, version: v1, app.kubernetes.io/version: v2", "k", "v2"],
    [
      "app: a, app.kubernetes.io/name: k, service.istio.io/canonical-name: c, service.istio.io/canonical-revision: r, version: v",
      "c",
      "r",
    ],
    ["app: '', version: ''", "p1", "latest"],
  ];
  for (const [labels, name, revision] of rows) {
    assertEquals(
      picked(new TestMesh(pod({ labels })), P1, "canonicalName", "canonicalRevision"),
      [name, revision],
      labels,
    );
  }
});

Deno.test("a pod has the ports of its services that it can resolve, in their order, under namespace and hostname (CP-209, CP-210)", () => {
  const sidecar = `, initContainers: [
    { name: s, restartPolicy: Always, ports: [{ name: side, containerPort: 9000 }] },
    { name: i, ports: [{ name: early, containerPort: 1 }] }]`;
  const ports = `clusterIP: 10.96.0.1, selector: { app: cart }, ports: [
    { name: e, port: 84, targetPort: 7000 }, { name: a, port: 80, targetPort: http }, { name: b, port: 81, targetPort: side },
    { name: c, port: 82, targetPort: early }, { name: d, port: 83, targetPort: dns }, { name: f, port: 85 }]`;
  const mesh = new TestMesh(pod({ spec: sidecar }) + service(ports));
  assertEquals(picked(mesh, P1, "services"), [{ [CART]: ["84:7000", "80:8080", "81:9000", "85:85"] }]);
});

Deno.test("endpoints of slices that are no pods are workloads of their Service, and of nothing else (CP-214)", () => {
  const slice = (
    name: string,
    { labels = "kubernetes.io/service-name: cart", type = "IPv4", address = "10.9.0.1" } = {},
  ) => `
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: { name: ${name}, namespace: shop, labels: { ${labels} } }
addressType: ${type}
endpoints:
  - { addresses: ["${address}"], conditions: { ready: false } }
  - { addresses: ["${
    type === "FQDN" ? "b.example" : "10.9.0.2"
  }"], targetRef: { kind: Pod, name: p9, namespace: shop } }
ports: [{ name: http, port: 8080 }, { name: dns, port: 53, protocol: UDP }, { name: other, port: 1 }]
---`;
  const uid = (name: string) => `c1/discovery.k8s.io/EndpointSlice/shop/${name}/10.9.0.1`;
  const cart = service(
    "clusterIP: 10.96.0.1, ports: [{ name: http, port: 80 }, { name: dns, port: 53, protocol: UDP }]",
  );
  const mesh = new TestMesh(
    cart + slice("s1") + slice("s2", { labels: "" }) + slice("s3", { type: "FQDN", address: "a.example" }),
  );
  assertEquals(picked(mesh, uid("s1"), "services", "status", "networkMode", "tunnelProtocol"), [
    { [CART]: ["80:8080"] },
    "UNHEALTHY",
    "HOST_NETWORK",
    "NONE",
  ]);
  assertEquals(mesh.address(uid("s2")), undefined);
  assertEquals([...mesh.index.graph.workloads.entries()].length, 1);
});

Deno.test("an ExternalName Service is no part of the mesh, and one bad address leaves out the whole object (CP-220)", () => {
  const mesh = new TestMesh(
    service("type: ExternalName, externalName: a.example") + entry("addresses: [10.0.0.1], resolution: NONE"),
  );
  assertEquals(mesh.address(CART), undefined);
  const [good] = objectsOf(service("clusterIP: 10.96.0.1, ports: [{ port: 80 }]"));
  mesh.apply([changeOf({ ...good!, clusterIps: ["10.96.0.1", "ten"] } as ServiceObject)]);
  assertEquals(mesh.address(CART), undefined);
  mesh.apply([changeOf(good!)]);
  assertEquals(picked(mesh, CART, "addresses"), [["/10.96.0.1"]]);
});

Deno.test("a headless Service is known by name, has no address, and its pods are its own (CP-222)", () => {
  for (const ip of ["None", "''"]) {
    const mesh = new TestMesh(pod() + service(`clusterIP: ${ip}, selector: { app: cart }, ports: [{ port: 80 }]`));
    assertEquals(picked(mesh, CART, "hostname", "addresses"), ["cart.shop.svc.cluster.local", undefined]);
    assertEquals(picked(mesh, P1, "services"), [{ [CART]: ["80:80"] }]);
  }
});

Deno.test("a Service's traffic goes where its policies and annotations send it (CP-225)", () => {
  const namespace = (value: string) => `
apiVersion: v1
kind: Namespace
metadata: { name: shop, annotations: { networking.istio.io/traffic-distribution: ${value} } }
---`;
  const annotated = (value: string) => `, annotations: { networking.istio.io/traffic-distribution: ${value} }`;
  const sameZone = { mode: "FAILOVER", routingPreference: ["NETWORK", "REGION", "ZONE"] };
  const sameNode = { mode: "FAILOVER", routingPreference: ["NETWORK", "REGION", "ZONE", "SUBZONE", "NODE"] };
  const rows: readonly (readonly [spec: string, metadata: string, namespace: string, balance: unknown])[] = [
    ["", "", "", undefined],
    ["internalTrafficPolicy: Local, trafficDistribution: PreferClose,", "", "", {
      mode: "STRICT",
      routingPreference: ["NODE"],
    }],
    ["trafficDistribution: PreferClose,", annotated("PreferSameNode"), "", sameZone],
    ["trafficDistribution: PreferSameZone,", "", "", sameZone],
    ["", annotated("PreferSameNode"), namespace("PreferClose"), sameNode],
    ["", "", namespace("PreferClose"), sameZone],
    ["", annotated("Any"), namespace("PreferClose"), undefined],
    ["publishNotReadyAddresses: true,", "", "", {
      mode: "UNSPECIFIED",
      routingPreference: [],
      healthPolicy: "ALLOW_ALL",
    }],
    ["publishNotReadyAddresses: true, trafficDistribution: PreferClose,", "", "", {
      ...sameZone,
      healthPolicy: "ALLOW_ALL",
    }],
  ];
  for (const [spec, metadata, above, balance] of rows) {
    const mesh = new TestMesh(above + service(`${spec} clusterIP: 10.96.0.1, ports: [{ port: 80 }]`, metadata));
    const found = mesh.address(CART)?.loadBalancing as Record<string, unknown> | undefined;
    const { healthPolicy, ...rest } = found ?? {};
    const shown = found && (healthPolicy === "ALLOW_ALL" ? { ...rest, healthPolicy } : rest);
    assertEquals(shown, balance, `${spec} ${metadata} ${above}`);
  }
});

Deno.test("a ServiceEntry without resolution lets connections through to where they were going (CP-227)", () => {
  const balance = (spec: string, metadata = "") =>
    (new TestMesh(entry(spec, metadata)).address("shop/db.example")?.loadBalancing ?? {}) as Record<string, unknown>;
  assertEquals(balance("resolution: NONE").mode, "PASSTHROUGH");
  assertEquals(balance("resolution: NONE").healthPolicy, "ALLOW_ALL");
  assertEquals(balance("resolution: STATIC, endpoints: [{ address: 10.9.0.1 }]"), {});
  const annotated = ", annotations: { networking.istio.io/traffic-distribution: PreferClose }";
  assertEquals(balance("resolution: STATIC, endpoints: [{ address: 10.9.0.1 }]", annotated).mode, "FAILOVER");
});

Deno.test("a pod that comes again under its name is an update of the same workload (CP-422)", () => {
  const mesh = new TestMesh(pod());
  assertEquals(mesh.set(pod().replace("10.0.0.1", "10.0.0.7")), [`+${P1}`]);
  assertEquals(picked(mesh, P1, "addresses"), [["10.0.0.7"]]);
});

Deno.test("PeerAuthentications yield policies and no conditions of their own (CP-356)", () => {
  const mesh = new TestMesh(
    `
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: { name: strict, namespace: shop }
spec: { mtls: { mode: STRICT } }
---` + pod(),
  );
  assertEquals(picked(mesh, P1, "authorizationPolicies"), [["istio-system/istio_converted_static_strict"]]);
  assertEquals([...mesh.index.graph.conditions.entries()].filter(([key]) => key.includes("PeerAuthentication")), []);
});

Deno.test("an object of another revision is not seen, so that two istiods serve two meshes from one cluster (CP-663)", () => {
  const policy = `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: ap, namespace: shop, labels: { istio.io/rev: canary } }
spec: { selector: { matchLabels: { app: cart } }, rules: [{}] }
---`;
  const named = (revision: string) =>
    picked(new TestMesh(pod() + policy, { revision }), P1, "authorizationPolicies")[0];
  assertEquals([named("canary"), named("default"), named("")], [["shop/ap"], undefined, ["shop/ap"]]);
});
