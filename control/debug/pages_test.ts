/** What the debug pages say, and to whom. */
import { assertEquals, assertStringIncludes } from "@std/assert";
import { AUTHORIZATION_TYPE_URL } from "../../mesh/proto/authorization_codec.ts";
import { ADDRESS_TYPE_URL } from "../../mesh/proto/workload_codec.ts";
import { TestMesh } from "../ambient/testing.ts";
import type { ClientNode } from "../xds/node.ts";
import { WORKLOAD_TYPE_URL } from "../xds/resources.ts";
import type { StreamStatus } from "../xds/stream.ts";
import { ALL_PAGES, debugAccess } from "./access.ts";
import { DebugPages, type DebugPagesOptions } from "./pages.ts";

const MESH = `
apiVersion: v1
kind: Pod
metadata: {name: cart-1, namespace: shop, labels: {app: cart}}
spec: {serviceAccountName: cart, nodeName: node-1, containers: [{ports: [{containerPort: 8080}]}]}
status: {phase: Running, podIP: 10.0.0.5, podIPs: [{ip: 10.0.0.5}], conditions: [{type: Ready, status: "True"}]}
---
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec: {clusterIP: 10.9.0.1, selector: {app: cart}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: only-web, namespace: shop}
spec: {action: ALLOW, rules: [{from: [{source: {principals: [cluster.local/ns/web/sa/web], ipBlocks: [10.0.0.0/8]}}]}]}
`;

const NODE: ClientNode = {
  type: "ztunnel",
  ip: "10.0.0.1",
  pod: "ztunnel-1",
  namespace: "istio-system",
  name: "ztunnel-1.istio-system",
  serviceAccount: "ztunnel",
  node: "node-1",
  clusterId: "",
  version: "1.30",
  labels: { app: "ztunnel" },
  metadata: { NODE_NAME: "node-1" },
};
const WATCH = {
  typeUrl: ADDRESS_TYPE_URL,
  wildcard: true,
  names: 0,
  waiting: 0,
  sentNonce: "2-x",
  acknowledgedNonce: "1-x",
  lastError: "",
  sentAtMs: Date.UTC(2026, 0, 2, 3, 4, 5),
};
const REFUSED = { ...WATCH, typeUrl: AUTHORIZATION_TYPE_URL, lastError: "no such field" };
const FRESH = { ...WATCH, typeUrl: WORKLOAD_TYPE_URL, sentNonce: "", acknowledgedNonce: "", sentAtMs: undefined };

function stream(id: string, node: Partial<ClientNode>, watches: StreamStatus["watches"]): StreamStatus {
  const connectedAtMs = Date.UTC(2026, 0, 1);
  return { connectionId: id, connectedAtMs, address: "10.0.0.1:4000", node: { ...NODE, ...node }, watches };
}

const STREAMS = [
  stream("ztunnel-1.istio-system-1", {}, [WATCH, REFUSED, FRESH]),
  stream("gateway.shop-2", { type: "router", name: "gateway.shop", namespace: "shop", version: "" }, []),
];

function pagesOf(options: Partial<DebugPagesOptions> = {}): DebugPages & { read(path: string): unknown } {
  const { index } = new TestMesh(MESH, { clusterId: "c1" });
  const pages = new DebugPages({
    ads: {
      status: () => STREAMS,
      pushAll: () => 2,
      disconnect: () => true,
      resourcesOf: (id, typeUrl) => id.startsWith("ztunnel") ? [...index.all(typeUrl)] : [],
    },
    index,
    clusterId: "c1",
    readiness: { ready: true, describe: () => "ready\n" },
    objects: () => ["Pod/shop/cart-1", "Pod/shop/cart-2", "Service/shop/cart"],
    settings: () => ({ trustDomain: "cluster.local" }),
    clusters: () => [{ id: "c1", syncStatus: "synced" }],
    leaders: () => [{ lock: "istio-status-leader", leads: true }],
    disconnects: false,
    ...options,
  });
  return Object.assign(pages, { read: (path: string) => JSON.parse(pages.page(path, ALL_PAGES)) });
}

function statusOf(path: string, identities?: string[], options?: Partial<DebugPagesOptions>): number {
  const [name, query] = path.split("?");
  const rules = { namespaces: new Set(["istio-system"]), enforced: true };
  const access = identities === undefined ? ALL_PAGES : debugAccess(identities, rules);
  return pagesOf(options).answer(name!, new URLSearchParams(query), access).status;
}

Deno.test("syncz has a row a client with upstream's keys, nonces, times and the last refusal (CP-018, CP-020)", () => {
  const sentTime = "2026-01-02T03:04:05.000Z";
  assertEquals(pagesOf().read("syncz"), [
    { cluster_id: "c1", proxy: "gateway.shop", proxy_type: "router", resources: {} },
    {
      cluster_id: "c1",
      proxy: "ztunnel-1.istio-system",
      proxy_type: "ztunnel",
      istio_version: "1.30",
      resources: {
        [ADDRESS_TYPE_URL]: { sent: "2-x", acked: "1-x", sentTime },
        [AUTHORIZATION_TYPE_URL]: { sent: "2-x", acked: "1-x", sentTime, lastError: "no such field" },
        [WORKLOAD_TYPE_URL]: { sentTime: "0001-01-01T00:00:00Z" },
      },
    },
  ]);
  assertEquals((pagesOf().read("syncz?namespace=shop") as unknown[]).length, 1);
});

Deno.test("syncz gives the types that Envoys watch keys of their own (CP-018)", () => {
  const cluster = { ...WATCH, typeUrl: "type.googleapis.com/envoy.config.cluster.v3.Cluster" };
  const status = () => [stream("gateway.shop-2", { type: "router" }, [cluster])];
  const ads = { status, pushAll: () => 0, disconnect: () => true, resourcesOf: () => [] };
  const [row] = pagesOf({ ads }).read("syncz") as Record<string, unknown>[];
  assertEquals([row!.cluster_sent, row!.cluster_acked, row!.listener_sent], ["2-x", "1-x", undefined]);
});

Deno.test("clients() tells tools of data planes with a status for each type, never of who watches nothing (CP-021)", () => {
  assertEquals(pagesOf().clients(ALL_PAGES), [{
    node: {
      id: "ztunnel-1.istio-system",
      metadata: { CLUSTER_ID: "c1", NAMESPACE: "istio-system", ISTIO_VERSION: "1.30" },
    },
    types: [
      { typeUrl: AUTHORIZATION_TYPE_URL, status: 4, lastUpdatedMs: WATCH.sentAtMs, error: "no such field" },
      { typeUrl: ADDRESS_TYPE_URL, status: 3, lastUpdatedMs: WATCH.sentAtMs, error: "" },
      { typeUrl: WORKLOAD_TYPE_URL, status: 2, lastUpdatedMs: undefined, error: "" },
    ],
  }]);
  assertEquals(pagesOf().clients("nobody"), []);
});

Deno.test("pages of one proxy take its name or its connection, 400 without one, 404 if it is elsewhere (CP-015)", () => {
  for (const page of ["config_dump", "edsz", "ndsz", "ecdsz"]) {
    const statuses = ["", "?proxyID=", "?proxyID=x.y", "?proxyID=ztunnel-1.istio-system", "?proxyID=gateway.shop-2"]
      .map((query) => statusOf(page + query));
    assertEquals(statuses, [400, 400, 404, 200, 200], page);
  }
  assertEquals([statusOf("adsz?proxyID=x.y"), statusOf("adsz?proxyID=gateway.shop")], [404, 200]);
  // Tools that ask each replica in turn look for these words.
  assertStringIncludes(
    pagesOf().page("config_dump?proxyID=x.y", ALL_PAGES),
    "Proxy not connected to this Pilot instance",
  );
});

Deno.test("config_dump shows what a client is sent, as messages; edsz and its kin are empty for it (CP-015)", () => {
  const { configs } = pagesOf().read("config_dump?proxyID=ztunnel-1.istio-system") as { configs: unknown[] };
  assertEquals(configs, [
    {
      "@type": ADDRESS_TYPE_URL,
      service: {
        name: "cart",
        namespace: "shop",
        hostname: "cart.shop.svc.cluster.local",
        addresses: [{ address: "CgkAAQ==" }],
        ports: [{ servicePort: 80, targetPort: 8080 }],
        canonical: true,
      },
    },
    {
      "@type": ADDRESS_TYPE_URL,
      workload: {
        uid: "c1//Pod/shop/cart-1",
        name: "cart-1",
        namespace: "shop",
        addresses: ["CgAABQ=="],
        serviceAccount: "cart",
        node: "node-1",
        canonicalName: "cart",
        canonicalRevision: "latest",
        workloadType: "POD",
        workloadName: "cart-1",
        clusterId: "c1",
        services: { "shop/cart.shop.svc.cluster.local": { ports: [{ servicePort: 80, targetPort: 8080 }] } },
      },
    },
  ]);
  assertEquals(pagesOf().read("edsz?proxyID=ztunnel-1.istio-system"), {});
  assertEquals(pagesOf().read("config_dump?proxyID=gateway.shop"), {});
  const policies = pagesOf().read("config_dump?proxyID=ztunnel-1.istio-system&types=wads") as { configs: unknown };
  assertEquals(policies.configs, [{
    "@type": AUTHORIZATION_TYPE_URL,
    name: "only-web",
    namespace: "shop",
    scope: "NAMESPACE",
    rules: [{
      clauses: [{
        matches: [{
          principals: [{ exact: "cluster.local/ns/web/sa/web" }],
          sourceIps: [{ address: "CgAAAA==", length: 8 }],
        }],
      }],
    }],
  }]);
});

Deno.test("ambientz shows addresses as text in base64 (CP-015)", () => {
  const { workloads, services, policies } = pagesOf().read("ambientz") as Record<string, { addresses?: unknown[] }[]>;
  assertEquals(workloads![0]!.addresses, [btoa("10.0.0.5")]);
  assertEquals(services![0]!.addresses, [{ address: btoa("10.9.0.1") }]);
  assertEquals(policies!.length, 1);
});

Deno.test("pages of the mesh show what was derived, from what, and for whom (CP-015, CP-699)", () => {
  const pages = pagesOf();
  const findings = pages.read("analyzez") as { code: string; origin: string }[];
  assertEquals(findings.map(({ code, origin }) => `${code} ${origin}`), []);
  const krtz = pages.read("krtz") as { name: string; size: number; items: string[] }[];
  assertEquals(krtz.find(({ name }) => name === "workloads")?.items, ["c1//Pod/shop/cart-1"]);
  const [one] = pages.read("krtz?collection=workloads") as { items: Record<string, { name: string }> }[];
  assertEquals(one!.items["c1//Pod/shop/cart-1"]!.name, "cart-1");
  const service = "shop/cart.shop.svc.cluster.local";
  const shards = pages.read("endpointz") as Record<string, Record<string, { addresses: string[] }[]>>;
  assertEquals(shards[service]!.c1![0]!.addresses, ["10.0.0.5"]);
  assertEquals(pages.read("endpointShardz"), shards);
  assertEquals((pages.read("registryz") as { name: string }[]).map(({ name }) => name), ["cart"]);
  assertEquals(pages.read("resourcesz"), ["Pod", "Service"]);
  assertEquals(pages.read("clusterz"), [{ id: "c1", syncStatus: "synced" }]);
  assertEquals(pages.read("mesh"), { trustDomain: "cluster.local" });
  assertEquals(
    Object.keys((pages.read("authorizationz") as { authorization_policies: object }).authorization_policies),
    [
      "shop",
    ],
  );
  assertEquals(pages.read("networkz"), []);
  const cache = pages.read("cachez?sizes=true") as Record<string, { resources: number }>;
  assertEquals(cache[ADDRESS_TYPE_URL]!.resources, 2);
  assertEquals(Object.keys(pages.read("instancesz") as object), ["ztunnel-1.istio-system", "gateway.shop"]);
});

Deno.test("adsz and connections list the clients; adsz?push tells how many were pushed to (CP-015)", () => {
  const pages = pagesOf();
  const { totalClients, clients } = pages.read("adsz") as { totalClients: number; clients: Record<string, unknown>[] };
  assertEquals([totalClients, clients[1]!.connectionId, clients[1]!.labels], [2, "ztunnel-1.istio-system-1", {
    app: "ztunnel",
  }]);
  assertEquals((clients[1]!.watches as Record<string, unknown>)[ADDRESS_TYPE_URL], ["*"]);
  assertEquals((pages.read("connections") as { clients: unknown[] }).clients[0], {
    connectionId: "gateway.shop-2",
    connectedAt: "2026-01-01T00:00:00.000Z",
    address: "10.0.0.1:4000",
  });
  assertEquals(pages.page("adsz?push=true", ALL_PAGES), "Pushed to 2 servers\n");
});

Deno.test("pages of what is not there say so, and are in no list; so does one that a setting forbids (CP-015)", () => {
  const list = pagesOf().read("list") as string[];
  for (const page of ["sidecarz", "telemetryz", "inject", "mcsz", "push_status"]) {
    assertEquals([statusOf(page), list.includes(page)], [404, false], page);
  }
  for (const page of list) assertEquals(statusOf(`${page}?proxyID=gateway.shop`), 200, page);
  const drop = "force_disconnect?proxyID=gateway.shop";
  assertEquals([statusOf(drop), statusOf(drop, undefined, { disconnects: true })], [404, 200]);
  assertEquals(pagesOf({ disconnects: true }).names().includes("force_disconnect"), true);
});

Deno.test("pages refuse whoever has no identity, and bound others to proxies of their namespace (CP-016, CP-017)", () => {
  const shop = ["spiffe://cluster.local/ns/shop/sa/x"];
  assertEquals([statusOf("syncz", []), statusOf("syncz", shop)], [401, 403]);
  assertEquals(statusOf("config_dump?proxyID=gateway.shop", shop), 200);
  assertEquals(statusOf("config_dump?proxyID=ztunnel-1.istio-system", shop), 404, "as if it were not there");
  const access = debugAccess(shop, { namespaces: new Set(), enforced: true });
  assertEquals(pagesOf().configOf("ztunnel-1.istio-system", access), undefined);
  assertEquals(pagesOf().clients(access), []);
});

Deno.test("answers indent where `pretty` asks for it (CP-015)", () => {
  assertStringIncludes(pagesOf().page("clusterz?pretty", ALL_PAGES), '\n  {\n    "id": "c1"');
});
