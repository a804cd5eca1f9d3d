import { assert, assertEquals, assertNotEquals, assertStrictEquals } from "@std/assert";
import { Logger } from "../../base/log.ts";
import { AUTHORIZATION_TYPE_URL } from "../../mesh/proto/authorization_codec.ts";
import { ADDRESS_TYPE_URL } from "../../mesh/proto/workload_codec.ts";
import { keyOf, type KubernetesObject } from "../objects.ts";
import { describeIndex } from "./describe.ts";
import { AmbientIndex } from "./index.ts";
import { assertInterleavings } from "./interleaving_testing.ts";
import { objectsOf, TestMesh } from "./testing.ts";
import { MESH } from "./waypoint_testing.ts";

const NODE = (zone: string) => `
apiVersion: v1
kind: Node
metadata: { name: n1, labels: { topology.kubernetes.io/zone: ${zone} } }
---`;
const POD = (
  name: string,
  { labels = "app: cart", ip = "10.0.0.1", more = "nodeName: n1", namespace = "shop", status = "" } = {},
) => `
apiVersion: v1
kind: Pod
metadata: { name: ${name}, namespace: ${namespace}, labels: { ${labels} } }
spec: { ${more} }
status: { podIP: ${ip} ${status} }
---`;
const SERVICE = (
  name: string,
  spec = "selector: { app: cart }, ports: [{ port: 80, targetPort: 8080 }]",
  metadata = "",
) => `
apiVersion: v1
kind: Service
metadata: { name: ${name}, namespace: shop ${metadata} }
spec: { clusterIP: 10.96.0.1, ${spec} }
---`;
const NAMESPACE = (metadata: string) => `
apiVersion: v1
kind: Namespace
metadata: { name: shop, ${metadata} }
---`;
const POLICY = (name: string, spec: string, namespace = "shop", labels = "") => `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: ${name}, namespace: ${namespace}, labels: { ${labels} } }
spec: ${spec}
---`;
const SELECTING = (app: string) => `{ selector: { matchLabels: { app: ${app} } }, rules: [{}] }`;

const P1 = "c1//Pod/shop/p1", P2 = "c1//Pod/shop/p2", P3 = "c1//Pod/shop/p3";
const CART = "shop/cart.shop.svc.cluster.local", OTHER = "shop/other.shop.svc.cluster.local";
const BASE = [
  NODE("z1"),
  NAMESPACE(""),
  POD("p1"),
  POD("p2", { ip: "10.0.0.2", more: "nodeName: n2" }),
  POD("p3", { ip: "10.0.0.3", labels: "app: other" }),
  SERVICE("cart"),
  SERVICE("other", "selector: { app: other }, ports: [{ port: 80 }]").replace("10.96.0.1", "10.96.0.2"),
  POLICY("ap", SELECTING("cart")),
].join("\n");

/** A mutation of one input of the field tables, and all that may be announced for it. */
const MUTATIONS:
  readonly (readonly [what: string, change: string | readonly string[], announced: readonly string[]])[] = [
    ["a pod's label, out of the service and the policy", POD("p1", { labels: "app: none" }), [`+${P1}`]],
    ["a pod's address", POD("p1", { ip: "10.0.0.9" }), [`+${P1}`]],
    ["a pod's account", POD("p1", { more: "nodeName: n1, serviceAccountName: x" }), [`+${P1}`]],
    ["a pod's readiness", POD("p1", { status: ", conditions: [{ type: Ready, status: 'False' }]" }), [`+${P1}`]],
    ["a pod that ends", POD("p1", { status: ", phase: Succeeded" }), [`-${P1}`]],
    ["a pod that is deleted", ["Pod/shop/p1"], [`-${P1}`]],
    ["a Node's label: the pods on it", NODE("z2"), [`+${P1}`, `+${P3}`]],
    ["a Node that is deleted", ["Node//n1"], [`+${P1}`, `+${P3}`]],
    ["a Node nobody is on", NODE("z9").replace("n1", "n9"), []],
    [
      "a Service's port: it and its pods",
      SERVICE("cart", "selector: { app: cart }, ports: [{ port: 81, targetPort: 8080 }]"),
      [`+${P1}`, `+${P2}`, `+${CART}`],
    ],
    [
      "a Service's target: it and its pods",
      SERVICE("cart", "selector: { app: cart }, ports: [{ port: 80, targetPort: 9 }]"),
      [`+${P1}`, `+${P2}`, `+${CART}`],
    ],
    [
      "a Service's selector: the pods it leaves and finds",
      SERVICE("cart", "selector: { app: other }, ports: [{ port: 80, targetPort: 8080 }]"),
      [
        `+${P1}`,
        `+${P2}`,
        `+${P3}`,
      ],
    ],
    ["a Service's address: it alone", SERVICE("cart").replace("10.96.0.1", "10.96.0.7"), [`+${CART}`]],
    ["a Service that is deleted", ["Service/shop/cart"], [`+${P1}`, `+${P2}`, `-${CART}`]],
    ["a Service's label that nothing reads", SERVICE("cart", undefined, ", labels: { team: a }"), []],
    [
      "a Namespace's distribution: its services",
      NAMESPACE("annotations: { networking.istio.io/traffic-distribution: PreferClose }"),
      [
        `+${CART}`,
        `+${OTHER}`,
      ],
    ],
    ["a Namespace's label that nothing reads", NAMESPACE("labels: { a: b }"), []],
    ["a policy's selector: the policy stays as it was, the pods change", POLICY("ap", SELECTING("other")), [
      `+${P1}`,
      `+${P2}`,
      `+${P3}`,
    ]],
    ["a policy's rules: it alone", POLICY("ap", SELECTING("cart").replace("{}", "")), ["+shop/ap"]],
    ["a policy becomes another's (CP-426)", POLICY("ap", SELECTING("cart").replace("rules", "action: AUDIT, rules")), [
      `+${P1}`,
      `+${P2}`,
      "-shop/ap",
    ]],
    ["a policy's selector dropped: it changes its scope", POLICY("ap", "{ rules: [{}] }"), [
      "+shop/ap",
      `+${P1}`,
      `+${P2}`,
    ]],
    ["a policy that is deleted: after the pods", ["AuthorizationPolicy/shop/ap"], [`+${P1}`, `+${P2}`, "-shop/ap"]],
    ["a policy that comes: before the pods", POLICY("new", SELECTING("cart"), "istio-system"), [
      "+istio-system/new",
      `+${P1}`,
      `+${P2}`,
    ]],
    ["a policy of another namespace", POLICY("far", SELECTING("cart"), "far"), ["+far/far"]],
    ["the same once more", BASE, []],
  ];

for (const [what, change, announced] of MUTATIONS) {
  Deno.test(`AmbientIndex announces exactly what changed: ${what} (CP-217, CP-427, CP-444)`, () => {
    const mesh = new TestMesh(BASE);
    const mutate = () => typeof change === "string" ? mesh.set(change) : mesh.remove(...change);
    assertEquals(mutate(), announced);
    assertEquals(mutate(), [], "said once");
    const before = describeIndex(new TestMesh(BASE).index);
    mesh.set(BASE);
    if (!what.includes("comes") && !what.includes("another namespace") && !what.includes("nobody")) {
      assertEquals(describeIndex(mesh.index), before, "undone, all is as it was");
    }
  });
}

Deno.test("AmbientIndex: a selector policy in the root namespace reaches every namespace; others stay in theirs (CP-215, CP-334)", () => {
  const mesh = new TestMesh(BASE + POLICY("root", SELECTING("cart"), "istio-system") + POLICY("aa", SELECTING("cart")));
  assertEquals(mesh.address(P1)?.authorizationPolicies, ["istio-system/root", "shop/aa", "shop/ap"]);
  assertEquals(mesh.address(P3)?.authorizationPolicies, undefined);
  mesh.set(POLICY("wide", "{ rules: [{}] }"));
  assertEquals(mesh.address(P3)?.authorizationPolicies, undefined, "policies without selector are never listed");
  mesh.set(POLICY("every", "{ selector: {}, rules: [{}] }"));
  assertEquals(mesh.address(P3)?.authorizationPolicies, ["shop/every"]);
});

Deno.test("AmbientIndex: Istio's kinds of another revision are left out until relabelled (CP-107)", () => {
  const mesh = new TestMesh(POLICY("ap", "{}", "shop", "istio.io/rev: canary"), { revision: "stable" });
  assertEquals([...mesh.index.all(AUTHORIZATION_TYPE_URL)], []);
  assertEquals(mesh.set(POLICY("ap", "{}", "shop", "istio.io/rev: stable")), ["+shop/ap"]);
  assertEquals(mesh.set(POLICY("ap", "{}")), []);
  assertEquals(mesh.set(POLICY("ap", "{}", "shop", "istio.io/rev: canary")), ["-shop/ap"]);
});

Deno.test("AmbientIndex: the mesh's trust domain and root namespace are live, and what it was started with holds without them (CP-026, CP-027, CP-217)", () => {
  const pa = `
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: { name: strict, namespace: istio-system }
spec: { mtls: { mode: STRICT } }`;
  const mesh = new TestMesh(BASE + POLICY("mesh-wide", "{}", "istio-system") + pa);
  const before = describeIndex(mesh.index), strict = "istio_converted_static_strict";
  assertEquals(mesh.address(P3)?.authorizationPolicies, [`istio-system/${strict}`]);
  const everyWorkload = [...mesh.index.graph.workloads.entries()].map(([uid]) => `+${uid}`).sort();
  assertEquals(mesh.set(MESH("trustDomain: corp.example")), everyWorkload, "and no service or policy");
  assertEquals(mesh.address(P1)?.trustDomain, "corp.example");
  assertEquals(mesh.set(MESH("{ trustDomain: corp.example, trustDomainAliases: [old.example] }")), []);
  const moved = mesh.set(MESH("rootNamespace: shop"));
  assertEquals(
    moved.filter((it) => !it.includes("//")),
    [
      `+istio-system/mesh-wide`,
      `+shop/${strict}`,
      `-istio-system/${strict}`,
    ].filter((it) => it.startsWith("+")).concat(moved.filter((it) => it.startsWith("-"))),
  );
  assertEquals(mesh.get(AUTHORIZATION_TYPE_URL, "istio-system/mesh-wide")?.scope, "NAMESPACE");
  assertEquals([mesh.address(P1)?.trustDomain, mesh.address(P3)?.authorizationPolicies], ["cluster.local", undefined]);
  mesh.remove("MeshConfig//istio");
  assertEquals(describeIndex(mesh.index), before, "undone, all is as it was");
});

Deno.test("AmbientIndex.lookup(): an address that nobody has is every range's that holds it", () => {
  const range = (name: string, cidr: string) => `
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: { name: ${name}, namespace: shop }
spec: { hosts: [${name}.example], addresses: [${cidr}], resolution: STATIC, ports: [{ name: a, number: 80 }] }
---`;
  const mesh = new TestMesh(BASE + "\n" + range("near", "10.0.0.0/24") + range("wide", "10.0.0.0/8"));
  const names = (name: string) => mesh.index.lookup(ADDRESS_TYPE_URL, name).map((it) => it.name);
  assertEquals(names("/10.0.0.77"), ["shop/near.example", "shop/wide.example"]);
  assertEquals(names("/10.77.0.1"), ["shop/wide.example"]);
  assertEquals(names("/10.0.0.2"), [P2], "whose address it is comes first");
  assertEquals([names("/11.0.0.1"), names("other/10.0.0.77"), names("shop/10.0.0.77")], [[], [], []]);
});

Deno.test("AmbientIndex.lookup(): by uid, address, hostname and VIP; a service comes with its workloads (CP-418)", () => {
  const mesh = new TestMesh(BASE, { network: "n" });
  const names = (name: string, typeUrl = ADDRESS_TYPE_URL) => mesh.index.lookup(typeUrl, name).map((it) => it.name);
  assertEquals(names(P1), [P1]);
  assertEquals(names("n/10.0.0.1"), [P1]);
  assertEquals(names(CART), [CART, P1, P2]);
  assertEquals(names("n/10.96.0.1"), [CART, P1, P2]);
  assertEquals([names("n/10.0.0.99"), names("m/10.0.0.1"), names("shop/none")], [[], [], []]);
  assertEquals(names("shop/ap", AUTHORIZATION_TYPE_URL), ["shop/ap"]);
  assertEquals([names(P1, AUTHORIZATION_TYPE_URL), names(P1, "type.googleapis.com/other")], [[], []]);
  mesh.set(POD("twin", { ip: "10.0.0.1", more: "hostNetwork: true" }));
  assertEquals(names("n/10.0.0.1"), [P1, "c1//Pod/shop/twin"]);
  mesh.remove("Pod/shop/p1", "Pod/shop/twin");
  assertEquals([names("n/10.0.0.1"), names(P1)], [[], []]);
  assertEquals(mesh.index.workloadsOnNode("n2").map((it) => it.name), [P2]);
});

Deno.test("AmbientIndex: versions follow content, and what did not change stays the same object (CP-200)", () => {
  const mesh = new TestMesh(BASE), [before] = mesh.index.lookup(ADDRESS_TYPE_URL, P1);
  mesh.set(NODE("z2") + POD("p9", { ip: "10.0.0.9" }));
  mesh.set(NODE("z1"));
  const [after] = mesh.index.lookup(ADDRESS_TYPE_URL, P1);
  assertEquals(after, before);
  assert(/^[0-9a-f]{16}$/.test(after!.version));
  const [service] = mesh.index.lookup(ADDRESS_TYPE_URL, CART);
  mesh.set(POD("p1", { ip: "10.0.0.8" }));
  assertStrictEquals(mesh.index.lookup(ADDRESS_TYPE_URL, CART)[0], service);
  assertNotEquals(mesh.index.lookup(ADDRESS_TYPE_URL, P1)[0]!.version, before!.version);
});

Deno.test("AmbientIndex: a listener that unsubscribed hears nothing more", () => {
  const index = new AmbientIndex();
  let heard = 0;
  const stop = index.subscribe(() => heard++);
  const apply = (yaml: string) =>
    index.apply(objectsOf(yaml).map((object) => ({ kind: object.kind, key: keyOf(object), object })));
  apply(POD("p1"));
  stop();
  apply(POD("p2"));
  assertEquals(heard, 1);
});

Deno.test("AmbientIndex logs a waypoint that is asked for and not ready, once; traffic goes without it (CP-262 to CP-264)", () => {
  const lines: string[] = [];
  const index = new AmbientIndex({}, new Logger("ambient", { json: true, sink: (line) => lines.push(line) }));
  const apply = (yaml: string) =>
    index.apply(objectsOf(yaml).map((object) => ({ kind: object.kind, key: keyOf(object), object })));
  const logged = () =>
    lines.splice(0).map((line) => JSON.parse(line)).map(({ object, reason, detail }) =>
      `${object} ${reason} ${detail}`
    );
  const asks = "istio.io/use-waypoint: w, istio.io/use-waypoint-namespace: far";
  apply(SERVICE("cart", undefined, `, labels: { ${asks} }`) + POD("p1", { labels: asks }) + POD("p2"));
  const detail = "WaypointIsNotReady waypoint far/w is not ready: traffic goes without it";
  assertEquals(logged().sort(), [`Pod/shop/p1 ${detail}`, `Service/shop/cart ${detail}`]);
  apply(POD("p2", { ip: "10.0.0.7" }));
  assertEquals(logged(), []);
  apply(NAMESPACE("labels: { istio.io/use-waypoint: near }") + SERVICE("other"));
  const near = "WaypointIsNotReady waypoint shop/near is not ready: traffic goes without it";
  assertEquals(logged(), [`Service/shop/other ${near}`], "an object that asks itself is not affected, nor are pods");
  const own = SERVICE("other", undefined, ", labels: { istio.io/use-waypoint: none }");
  apply(own + SERVICE("gate", undefined, ", labels: { gateway.istio.io/managed: istio.io-mesh-controller }"));
  assertEquals(logged(), []);
  assertEquals([...index.graph.problems.entries()].map(([, it]) => it.object).sort(), [
    "Pod/shop/p1",
    "Service/shop/cart",
  ]);
});

/** Objects that interact in every way the graph knows, several versions of some. */
const POOL: readonly KubernetesObject[] = [
  ...["z1", "z2"].flatMap((zone) => objectsOf(NODE(zone))),
  ...objectsOf(NAMESPACE("")),
  ...objectsOf(NAMESPACE("annotations: { networking.istio.io/traffic-distribution: PreferClose }")),
  ...["app: cart", "app: other"].flatMap((labels) => objectsOf(POD("p1", { labels }))),
  ...objectsOf(POD("p2", { ip: "10.0.0.2", labels: "app: other" })),
  ...objectsOf(SERVICE("cart")),
  ...objectsOf(SERVICE("cart", "ports: [{ port: 80 }]")),
  ...objectsOf(POLICY("ap", SELECTING("cart"))),
  ...objectsOf(POLICY("ap", SELECTING("other"), "istio-system")),
  ...["STRICT", "PERMISSIVE"].flatMap((mode) =>
    ["istio-system", "shop"].flatMap((namespace) =>
      objectsOf(`
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: { name: pa, namespace: ${namespace} }
spec: { mtls: { mode: ${mode} } }`)
    )
  ),
  ...objectsOf(`
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: { name: ports, namespace: shop }
spec: { selector: { matchLabels: { app: cart } }, portLevelMtls: { 80: { mode: PERMISSIVE }, 81: { mode: STRICT } } }`),
  ...["out", "shop"].flatMap((namespace) =>
    objectsOf(`
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: { name: se, namespace: ${namespace} }
spec: { hosts: [cart.shop.svc.cluster.local, x.example.com], resolution: STATIC, ports: [{ name: a, number: 80 }], endpoints: [{ address: 172.16.0.1 }] }`)
  ),
  ...objectsOf(`
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: { name: s, namespace: shop, labels: { kubernetes.io/service-name: cart } }
addressType: IPv4
ports: [{ port: 80 }]
endpoints: [{ addresses: [192.0.2.1] }, { addresses: [10.0.0.2], targetRef: { kind: Pod, name: p2 } }]`),
];

Deno.test("AmbientIndex: any order of any changes ends where a fresh start does; references never dangle; news differ from the last (CP-105, CP-200, CP-355)", () => {
  assertInterleavings(POOL);
});
