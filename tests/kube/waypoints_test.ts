/** A waypoint's life against a real API server: from a Gateway to objects that are bound, and what their status says. */
import { assertEquals } from "@std/assert";
import { type ApiServer, startApiServer } from "./api_server.ts";
import { installManifests, Istiod } from "./istiod.ts";
import { until } from "./until.ts";

const DEADLINE_MS = 120_000; // an election, and what is written after it
const USE = "istio.io/use-waypoint";
const GATEWAY = {
  apiVersion: "gateway.networking.k8s.io/v1",
  kind: "Gateway",
  metadata: { name: "w", namespace: "shop" },
  spec: { gatewayClassName: "istio-waypoint", listeners: [{ name: "mesh", port: 15008, protocol: "HBONE" }] },
};
const CARRIER = {
  apiVersion: "v1",
  kind: "Service",
  metadata: { name: "w", namespace: "shop", labels: { "gateway.istio.io/managed": "istio.io-mesh-controller" } },
  spec: { ports: [{ name: "mesh", port: 15008 }] },
};
const slice = (ready: boolean) => ({
  apiVersion: "discovery.k8s.io/v1",
  kind: "EndpointSlice",
  metadata: { name: "w-1", namespace: "shop", labels: { "kubernetes.io/service-name": "w" } },
  addressType: "IPv4",
  endpoints: [{ addresses: ["10.0.0.9"], conditions: { ready } }],
  ports: [{ name: "mesh", port: 15008 }],
});
const service = (name: string) => ({
  apiVersion: "v1",
  kind: "Service",
  metadata: { name, namespace: "shop", labels: { [USE]: "w" } },
  spec: { ports: [{ port: 80 }] },
});
const entry = (name: string, hosts: string[]) => ({
  apiVersion: "networking.istio.io/v1",
  kind: "ServiceEntry",
  metadata: { name, namespace: "shop" },
  spec: {
    hosts,
    resolution: "DYNAMIC_DNS",
    location: "MESH_EXTERNAL",
    ports: [{ name: "tls", number: 443, protocol: "TLS" }],
  },
});
const policy = (name: string, spec: object) => ({
  apiVersion: "security.istio.io/v1",
  kind: "AuthorizationPolicy",
  metadata: { name, namespace: "shop" },
  spec,
});

/** `type status/reason` of each condition, sorted. */
async function said(server: ApiServer, object: string): Promise<string[]> {
  const path = "{range .status.conditions[*]}{.type} {.status}/{.reason}{'\\n'}{end}";
  const text = await server.kubectl(["get", object, "-n", "shop", "-o", `jsonpath=${path}`]);
  return text.split("\n").filter((line) => line !== "").sort();
}

async function saysAtLast(server: ApiServer, object: string, ...expected: string[]): Promise<void> {
  let now: string[] = [];
  const same = async () => JSON.stringify(now = await said(server, object)) === JSON.stringify(expected);
  try {
    await until(same, `what ${object} says`, DEADLINE_MS);
  } catch {
    assertEquals(now, expected, object);
  }
}

Deno.test("a waypoint over a real API server: addresses once it is ready, then objects bound to it, all of which their status says (CP-260, CP-270, CP-275, CP-365, CP-572, CP-573)", async () => {
  await using server = await startApiServer({ definitions: ["istio", "gateway"] });
  await installManifests(server);
  await server.apply({ apiVersion: "v1", kind: "Namespace", metadata: { name: "shop" } });
  await using istiod = await Istiod.start(server);
  using reader = await istiod.reader();
  const boundTo = (name: string) => reader.print((it) => it === name).match(/waypoint: .*/)?.[0];

  await server.apply(GATEWAY, CARRIER, slice(false), service("cart"));
  await server.apply(entry("wild", ["*.example.com"]), entry("first", ["a.example"]), entry("second", ["a.example"]));
  const target = (name: string) => ({ kind: "Service", group: "", name });
  await server.apply(
    policy("l4", { rules: [{}] }),
    policy("l7", { targetRefs: [target("cart"), target("gone")], rules: [{}] }),
  );
  const notReady = "istio.io/WaypointBound False/WaypointIsNotReady",
    bound = "istio.io/WaypointBound True/WaypointAccepted";
  await saysAtLast(server, "service/cart", notReady);
  await saysAtLast(
    server,
    "gateway/w",
    "Accepted True/Accepted",
    "Programmed False/AddressNotAssigned",
    "ResolvedRefs True/ResolvedRefs",
  );
  await saysAtLast(server, "serviceentry/wild", "istio.io/WaypointMissing True/NoWaypointForWildcardService");
  await saysAtLast(server, "serviceentry/second", "ambit/InMesh False/HostnameTaken");
  await saysAtLast(server, "authorizationpolicy/l4", "ZtunnelAccepted True/Accepted");
  await saysAtLast(server, "authorizationpolicy/l7", "WaypointAccepted False/Invalid");

  await server.apply(slice(true));
  await saysAtLast(
    server,
    "gateway/w",
    "Accepted True/Accepted",
    "Programmed True/Programmed",
    "ResolvedRefs True/ResolvedRefs",
  );
  await saysAtLast(server, "service/cart", bound);
  await saysAtLast(server, "authorizationpolicy/l7", "WaypointAccepted True/PartiallyInvalid");
  const cart = "shop/cart.shop.svc.cluster.local";
  await until(() => boundTo(cart) !== undefined, "proxies hear of the waypoint", DEADLINE_MS);
  assertEquals(boundTo(cart)?.includes("shop/w.shop.svc.cluster.local"), true, boundTo(cart));

  // Its pods are gone: the address stays, and nobody goes past it. Then nothing asks for it any more.
  await server.apply(slice(false));
  await saysAtLast(
    server,
    "gateway/w",
    "Accepted True/Accepted",
    "Programmed False/AddressNotAssigned",
    "ResolvedRefs True/ResolvedRefs",
  );
  assertEquals(boundTo(cart)?.includes("shop/w.shop.svc.cluster.local"), true);
  await server.kubectl(["label", "service/cart", "-n", "shop", `${USE}-`]);
  await saysAtLast(server, "service/cart");
  await server.kubectl(["delete", "serviceentry/first", "-n", "shop"]);
  await saysAtLast(server, "serviceentry/second");
});
