import { objectsOf } from "./testing.ts";
import { assertInterleavings } from "./interleaving_testing.ts";
import {
  GATEWAY,
  GATEWAY_CLASS,
  NAMED,
  NAMESPACE,
  POD,
  SERVICE,
  SERVICE_ENTRY,
  WORKLOAD_ENTRY,
} from "./waypoint_testing.ts";

const USE = "istio.io/use-waypoint", CANARY = "istio.io/use-waypoint-canary", ALL = "istio.io/waypoint-for: all";
const OPEN = "{ name: mesh, port: 15008, protocol: HBONE, allowedRoutes: { namespaces: { from: All } } }";

const SLICE = (ready: boolean) => `
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: { name: w-1, namespace: shop, labels: { kubernetes.io/service-name: w } }
addressType: IPv4
endpoints: [{ addresses: [10.0.0.9], conditions: { ready: ${ready} } }]
ports: [{ port: 15008 }]
---`;
const POLICY = (spec: string) => `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: p, namespace: shop }
spec: { ${spec} }
---`;

/** States of the objects that decide who is bound to what, several of each. */
const POOL = [
  GATEWAY("w", { labels: ALL }),
  GATEWAY("w", { labels: ALL, status: "" }),
  GATEWAY("w", { labels: ALL, listeners: OPEN, status: "addresses: [{ value: 10.0.0.9 }]" }),
  GATEWAY("w"),
  GATEWAY("next", { annotations: "ambient.istio.io/waypoint-inbound-binding: PROXY/15088" }),
  GATEWAY_CLASS(),
  GATEWAY_CLASS({ labels: "istio.io/waypoint-for: workload" }),
  NAMESPACE("shop"),
  NAMESPACE("shop", { labels: `${USE}: w, ${CANARY}: next`, annotations: `${CANARY}-weight: "10"` }),
  NAMESPACE("far", { labels: `${USE}: w, ${USE}-namespace: shop` }),
  SERVICE("s", { spec: "selector: { app: a }" }),
  SERVICE("s", { labels: `${USE}: next`, spec: "selector: { app: a }" }),
  SERVICE("s", { labels: `${USE}: w, ${CANARY}: next`, spec: "selector: { app: a }" }),
  SERVICE("w", { labels: "gateway.istio.io/managed: istio.io-mesh-controller" }),
  SERVICE("far", { namespace: "far" }),
  SERVICE_ENTRY("e", { hosts: "*.example" }),
  SERVICE_ENTRY("e", { labels: `${USE}: w`, spec: "resolution: STATIC, endpoints: [{ address: 10.2.0.1 }]" }),
  POD("p", { labels: "app: a" }),
  POD("p", { labels: `app: a, ${USE}: w` }),
  POD("w-1", { labels: `${NAMED}: w`, account: "w", ip: "10.0.0.9" }),
  POD("w-1", { labels: `${NAMED}: next`, account: "next", ip: "10.0.0.9" }),
  WORKLOAD_ENTRY("vm", { labels: `app: a, ${USE}: w` }),
  WORKLOAD_ENTRY("vm", { labels: `app: a, ${USE}: none` }),
  SLICE(true),
  SLICE(false),
  POLICY("targetRefs: [{ kind: Service, name: s }, { kind: Gateway, name: w }]"),
  POLICY("selector: { matchLabels: { app: a } }, rules: [{}]"),
].flatMap((yaml) => objectsOf(yaml));

Deno.test("waypoints: any order of any changes ends where a fresh start does, conditions and references included (CP-105, CP-269, CP-355, CP-361)", () => {
  assertInterleavings(POOL, { autoAllowWaypoints: true });
});
