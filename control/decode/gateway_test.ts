import { assertEquals } from "@std/assert";
import { objectsOf } from "../ambient/testing.ts";
import { EMPTY_FILE, readFileState } from "../folder/file_state.ts";
import type { GatewayObject } from "../objects.ts";

const WAYPOINT = `
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata:
  { name: egress, namespace: shop, generation: 3, labels: { istio.io/waypoint-for: all }, annotations: { a: b } }
spec:
  gatewayClassName: istio-waypoint
  addresses: [{ type: Hostname, value: mine.example }, { value: 10.0.0.9 }]
  infrastructure: { labels: { team: x }, annotations: { note: y } }
  listeners:
    - { name: mesh, port: 15008, protocol: HBONE }
    - name: proxy
      port: 15088
      protocol: istio.io/PROXY
      hostname: a.example
      tls: { mode: Passthrough }
      allowedRoutes:
        namespaces:
          from: Selector
          selector: { matchLabels: { a: b }, matchExpressions: [{ key: env, operator: In, values: [p, q] }] }
status:
  addresses: [{ type: Hostname, value: egress.shop.svc.cluster.local }, { type: IPAddress, value: 10.96.0.3 }]
`;

Deno.test("decodeGateway() keeps the fields of CP table 2.1, in v1 and v1beta1", () => {
  const expected: Omit<GatewayObject, "meta"> = {
    kind: "Gateway",
    className: "istio-waypoint",
    listeners: [
      {
        name: "mesh",
        port: 15008,
        protocol: "HBONE",
        hostname: "",
        tlsMode: "",
        from: "Same",
        selector: undefined,
      },
      {
        name: "proxy",
        port: 15088,
        protocol: "istio.io/PROXY",
        hostname: "a.example",
        tlsMode: "Passthrough",
        from: "Selector",
        selector: {
          matchLabels: new Map([["a", "b"]]),
          matchExpressions: [{ key: "env", operator: "In", values: ["p", "q"] }],
        },
      },
    ],
    infrastructure: { labels: new Map([["team", "x"]]), annotations: new Map([["note", "y"]]) },
    addresses: [{ type: "Hostname", value: "mine.example" }, { type: "IPAddress", value: "10.0.0.9" }],
    statusAddresses: [
      { type: "Hostname", value: "egress.shop.svc.cluster.local" },
      { type: "IPAddress", value: "10.96.0.3" },
    ],
  };
  for (const yaml of [WAYPOINT, WAYPOINT.replace("k8s.io/v1", "k8s.io/v1beta1")]) {
    const [{ meta, ...rest }] = objectsOf(yaml) as [GatewayObject];
    assertEquals(rest, expected);
    assertEquals(
      [meta.name, meta.namespace, meta.generation, meta.labels.get("istio.io/waypoint-for"), meta.annotations.get("a")],
      ["egress", "shop", 3, "all", "b"],
    );
  }
});

Deno.test("decodeGatewayClass() keeps the controller's name; it has no namespace", () => {
  const [decoded] = objectsOf(`
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: { name: istio-waypoint, labels: { istio.io/waypoint-for: workload } }
spec: { controllerName: istio.io/mesh-controller }
`);
  assertEquals(decoded?.kind === "GatewayClass" && [decoded.controllerName, decoded.meta.namespace], [
    "istio.io/mesh-controller",
    "",
  ]);
});

Deno.test("kindOf() ignores Istio's own Gateway, which is another kind", () => {
  assertEquals(objectsOf("apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: { name: x }\n"), []);
});

Deno.test("decodeGateway() refuses what would attach more than was written, with its field", () => {
  const refusals = (from: string, to: string) =>
    readFileState("t.yaml", new TextEncoder().encode(WAYPOINT.replace(from, to)), EMPTY_FILE).refusals
      .map((it) => `${it.field} ${it.reason}`);
  const at = "spec.listeners[1].allowedRoutes.namespaces";
  assertEquals(refusals("matchLabels", "matchLabel"), [
    `${at}.selector.matchLabel is not a field known here; known are matchLabels, matchExpressions`,
  ]);
  assertEquals(refusals("operator: In", "operator: Exists"), [
    `${at}.selector.matchExpressions[0].values must be absent for Exists`,
  ]);
  assertEquals(refusals("from: Selector", "from: Every"), [
    `${at}.from must be one of All, Same, Selector, None, is string "Every"`,
  ]);
  assertEquals(refusals("port: 15008", "port: 0"), [
    "spec.listeners[0].port must be a whole number of 1 to 65535, is number 0",
  ]);
});

Deno.test("decodeAuthorizationPolicy() keeps its targets, of either form (CP-331, CP-365)", () => {
  const policy = (spec: string) =>
    objectsOf(`
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: p, namespace: shop }
spec: ${spec}
`)[0];
  const targets = (spec: string) => {
    const decoded = policy(spec);
    return decoded?.kind === "AuthorizationPolicy" ? decoded.targets : undefined;
  };
  const gateway = { group: "gateway.networking.k8s.io", kind: "Gateway", name: "w" };
  assertEquals(targets("{ targetRef: { group: gateway.networking.k8s.io, kind: Gateway, name: w } }"), [gateway]);
  assertEquals(targets(`{ targetRefs: [{ kind: Service, group: "", name: a }, { kind: Service, name: b }] }`), [
    { group: "", kind: "Service", name: "a" },
    { group: "", kind: "Service", name: "b" },
  ]);
  assertEquals(targets("{}"), []);
});
