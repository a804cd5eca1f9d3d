import { assertEquals } from "@std/assert";
import { AUTHORIZATION_TYPE_URL } from "../../mesh/proto/authorization_codec.ts";
import { TestMesh } from "./testing.ts";
import { GATEWAY, NAMED, POD, podUid, SERVICE, SERVICE_ENTRY, WORKLOAD_ENTRY } from "./waypoint_testing.ts";

const USE = "istio.io/use-waypoint", CANARY = "istio.io/use-waypoint-canary", ALL = "istio.io/waypoint-for: all";
const INSTANCE = POD("w-1", { labels: `${NAMED}: w`, account: "waypoint", ip: "10.0.0.9" });
const BEHIND = SERVICE("s", { labels: `${USE}: w`, spec: "selector: { app: a }" }) +
  POD("behind", { labels: "app: a" });
const OWN = POD("own", { labels: `${USE}: w`, ip: "10.0.0.2" });
const KEY = "shop/istio_allow_waypoint_shop_w";
const GATEWAYS = GATEWAY("w", { labels: ALL }) + GATEWAY("next", { labels: ALL });

const namesOf = (mesh: TestMesh) => [...mesh.index.all(AUTHORIZATION_TYPE_URL)].map(({ name }) => name).sort();
const namedBy = (mesh: TestMesh, pod: string) => mesh.address(podUid(pod))?.authorizationPolicies;

Deno.test("a waypoint's accounts are let through to whatever is behind it, only where that is asked for (CP-361, CP-360)", () => {
  const objects = GATEWAYS + INSTANCE + BEHIND + OWN + POD("apart", { ip: "10.0.0.3" });
  const off = new TestMesh(objects);
  assertEquals([namesOf(off), namedBy(off, "behind"), namedBy(off, "own")], [[], undefined, undefined]);
  const mesh = new TestMesh(objects, { autoAllowWaypoints: true, trustDomain: "td" });
  assertEquals(namesOf(mesh), [KEY], "none without accounts");
  assertEquals(mesh.get(AUTHORIZATION_TYPE_URL, KEY), {
    name: "istio_allow_waypoint_shop_w",
    namespace: "shop",
    scope: "WORKLOAD_SELECTOR",
    action: "ALLOW",
    dryRun: false,
    rules: [[[{ principals: ["td/ns/shop/sa/waypoint"] }]]],
  });
  assertEquals([namedBy(mesh, "behind"), namedBy(mesh, "own"), namedBy(mesh, "apart")], [[KEY], [KEY], undefined]);
});

Deno.test("every kind of workload behind a waypoint names its policy, last (CP-361, CP-215)", () => {
  const mesh = new TestMesh(
    GATEWAYS + INSTANCE + BEHIND + WORKLOAD_ENTRY("vm", { labels: "app: a" }) +
      SERVICE_ENTRY("e", { labels: `${USE}: w`, spec: "resolution: STATIC, endpoints: [{ address: 10.2.0.1 }]" }) + `
apiVersion: v1
kind: Service
metadata: { name: manual, namespace: shop, labels: { ${USE}: w } }
spec: { clusterIP: 10.96.0.4, ports: [{ name: a, port: 80 }] }
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: { name: manual-1, namespace: shop, labels: { kubernetes.io/service-name: manual } }
addressType: IPv4
endpoints: [{ addresses: [10.0.0.7], targetRef: { kind: Pod, name: named, namespace: shop } }]
ports: [{ name: a, port: 80 }]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: zz, namespace: shop }
spec: { selector: { matchLabels: { app: a } }, rules: [{}] }
---` + POD("named", { ip: "10.0.0.7" }),
    { autoAllowWaypoints: true },
  );
  const named = (uid: string) => mesh.address(uid)?.authorizationPolicies;
  assertEquals(named(podUid("behind")), ["shop/zz", KEY]);
  assertEquals(named("c1/networking.istio.io/WorkloadEntry/shop/vm"), ["shop/zz", KEY]);
  assertEquals(named("c1/networking.istio.io/ServiceEntry/shop/e/10.2.0.1"), [KEY]);
  assertEquals(named(podUid("named")), [KEY], "by a slice of a service without a selector");
});

Deno.test("a canary's accounts are let through too, and no reference outlives its policy (CP-361, CP-355)", () => {
  const canary = SERVICE("s", { labels: `${USE}: w, ${CANARY}: next`, spec: "selector: { app: a }" });
  const mesh = new TestMesh(
    GATEWAYS + INSTANCE + canary + POD("behind", { labels: "app: a" }) +
      POD("next-1", { labels: `${NAMED}: next`, ip: "10.0.0.8" }),
    { autoAllowWaypoints: true },
  );
  const next = "shop/istio_allow_waypoint_shop_next";
  assertEquals(namedBy(mesh, "behind"), [next, KEY]);
  assertEquals(mesh.remove("Pod/shop/next-1"), [`+${podUid("behind")}`, `-${podUid("next-1")}`, `-${next}`]);
  assertEquals(namedBy(mesh, "behind"), [KEY]);
  assertEquals(mesh.set(GATEWAY("w", { labels: ALL, status: "" })).at(-1), `-${KEY}`);
  assertEquals([namedBy(mesh, "behind"), namesOf(mesh)], [undefined, []]);
});
