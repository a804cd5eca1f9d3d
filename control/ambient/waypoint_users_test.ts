import { assertEquals } from "@std/assert";
import { ADDRESS_TYPE_URL } from "../../mesh/proto/workload_codec.ts";
import { keyOf } from "../objects.ts";
import type { ResourceChange } from "../xds/resources.ts";
import { AmbientIndex } from "./index.ts";
import { objectsOf, TestMesh } from "./testing.ts";
import { GATEWAY, POD, podUid, SERVICE, SERVICE_ENTRY, serviceName, WORKLOAD_ENTRY } from "./waypoint_testing.ts";

const USE = "istio.io/use-waypoint", CANARY = "istio.io/use-waypoint-canary", ALL = "istio.io/waypoint-for: all";
const OWN = "shop/own.shop.svc.cluster.local", OTHER = "shop/other.shop.svc.cluster.local";
const GATEWAYS = GATEWAY("own", { labels: ALL }) + GATEWAY("other", { labels: ALL }) +
  GATEWAY("ip", { labels: ALL, status: "addresses: [{ value: 10.0.0.9 }]" });

/** What the index says of a batch, by type and name, with the waypoints beside it. */
function changesOf(index: AmbientIndex, yaml: string, removed: readonly string[] = []): Map<string, readonly string[]> {
  const changes: ResourceChange[] = [];
  const unsubscribe = index.subscribe((change) => changes.push(change));
  index.apply([
    ...(yaml === "" ? [] : objectsOf(yaml)).map((object) => ({ kind: object.kind, key: keyOf(object), object })),
    ...removed.map((key) => ({ kind: key.split("/")[0] as "Service", key, object: undefined })),
  ]);
  unsubscribe();
  assertEquals(changes.every(({ typeUrl }) => typeUrl === ADDRESS_TYPE_URL), true);
  return new Map(changes.flatMap(({ waypoints }) => [...waypoints ?? []]));
}

Deno.test("each change of an address tells the waypoints it referred to, and refers to now (CP-424)", () => {
  const index = new AmbientIndex({ clusterId: "c1", network: "n" }), service = serviceName("s");
  assertEquals(changesOf(index, GATEWAYS + SERVICE("s") + POD("p")), new Map(), "none for what refers to none");
  assertEquals(changesOf(index, SERVICE("s", { labels: `${USE}: own` })), new Map([[service, [OWN]]]));
  const weighted = SERVICE("s", { labels: `${USE}: own, ${CANARY}: other` });
  assertEquals(changesOf(index, weighted), new Map([[service, [OWN, OTHER]]]));
  assertEquals(
    changesOf(index, SERVICE("s", { labels: `${USE}: ip` })),
    new Map([[service, [OWN, OTHER, "n/10.0.0.9"]]]),
  );
  assertEquals(changesOf(index, "", ["Service/shop/s"]), new Map([[service, ["n/10.0.0.9"]]]));
  assertEquals(changesOf(index, POD("p", { labels: `${USE}: own` })), new Map([[podUid("p"), [OWN]]]));
  assertEquals(changesOf(index, GATEWAY("own", { labels: ALL, status: "" })), new Map([[podUid("p"), [OWN]]]));
});

Deno.test("who goes through a waypoint, by its name or address, oldest first, then by key (CP-593)", () => {
  const use = `${USE}: own`, old = "2025-01-01T00:00:00Z";
  const mesh = new TestMesh(
    GATEWAYS + SERVICE("b", { labels: use }) + SERVICE("a", { labels: use }) +
      SERVICE("z", { labels: use, created: old }) + SERVICE("canary", { labels: `${USE}: other, ${CANARY}: own` }) +
      SERVICE_ENTRY("e", { labels: use, created: old }) + SERVICE("apart") +
      SERVICE("own", { labels: `${use}, gateway.istio.io/managed: istio.io-mesh-controller` }) +
      POD("p2", { labels: use }) + POD("p1", { labels: use, ip: "10.0.0.2" }) +
      POD("p3", { labels: use, ip: "10.0.0.3", created: old }) + POD("apart", { ip: "10.0.0.4" }) +
      POD("own-1", { labels: `${use}, gateway.networking.k8s.io/gateway-name: own`, ip: "10.0.0.5" }) +
      WORKLOAD_ENTRY("vm", { labels: use }) + SERVICE("ip", { labels: `${USE}: ip` }),
    { network: "n" },
  );
  const { waypointUsers: users } = mesh.index;
  assertEquals(users.services(OWN).map((it) => it.hostname), [
    "e.example",
    "z.shop.svc.cluster.local",
    "a.shop.svc.cluster.local",
    "b.shop.svc.cluster.local",
    "canary.shop.svc.cluster.local",
  ]);
  // A WorkloadEntry that does not say when it was made counts as the oldest.
  assertEquals(users.workloads(OWN).map((it) => it.name), ["vm", "p3", "p1", "p2"]);
  assertEquals(users.services("n/10.0.0.9").map((it) => it.name), ["ip"]);
  assertEquals([users.services("n/10.0.0.8"), users.workloads("shop/none")], [[], []]);
  mesh.set(SERVICE("a") + POD("p1", { ip: "10.0.0.2" }));
  assertEquals(users.services(OWN).map((it) => it.name).includes("a"), false);
  assertEquals(users.workloads(OWN).map((it) => it.name), ["vm", "p3", "p2"]);
});
