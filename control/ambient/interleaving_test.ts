/** Whatever changes in whatever order: the index ends where a fresh start does, on every replica, byte for byte. */
import { assert, assertEquals, assertNotEquals } from "@std/assert";
import { AUTHORIZATION_TYPE_URL } from "../../mesh/proto/authorization_codec.ts";
import { ADDRESS_TYPE_URL, decodeAddress } from "../../mesh/proto/workload_codec.ts";
import type { ObjectChange } from "../objects.ts";
import type { Resource, ResourceChange } from "../xds/resources.ts";
import { AmbientIndex } from "./index.ts";
import { changeOf, objectsOf } from "./testing.ts";
import { GATEWAY, GATEWAY_CLASS, MESH, NAMESPACE, SERVICE, SERVICE_ENTRY, WORKLOAD_ENTRY } from "./waypoint_testing.ts";

const TYPES = [ADDRESS_TYPE_URL, AUTHORIZATION_TYPE_URL];
const USE = "istio.io/use-waypoint";
const GLOBAL = "istio.io/global: 'true'";

const POD = (
  name: string,
  ip: string,
  { labels = "app: cart", ready = "True", account = "cart", node = "n1" } = {},
) => `
apiVersion: v1
kind: Pod
metadata: { name: ${name}, namespace: shop, uid: ${name}, labels: { ${labels} } }
spec: { serviceAccountName: ${account}, nodeName: ${node} }
status: { podIP: ${ip}, conditions: [{ type: Ready, status: "${ready}" }] }
---`;
const NODE = (zone: string) => `
apiVersion: v1
kind: Node
metadata: { name: n1, labels: { topology.kubernetes.io/zone: ${zone} } }
---`;
const CART = (labels: string, spec = "clusterIP: 10.96.0.1, selector: { app: cart }") =>
  SERVICE("cart", { labels, spec });
const SLICE = `
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: { name: s, namespace: shop, labels: { kubernetes.io/service-name: cart } }
addressType: IPv4
ports: [{ port: 80 }]
endpoints: [{ addresses: [192.0.2.1] }, { addresses: [10.0.0.2], targetRef: { kind: Pod, name: p2, uid: p2 } }]
---`;
const POLICY = (namespace: string, spec: string) => `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: ap, namespace: ${namespace} }
spec: ${spec}
---`;
const STRICT = (namespace: string, spec: string) => `
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: { name: pa, namespace: ${namespace} }
spec: ${spec}
---`;
const NETWORK_GATE = (className: string, ip: string) =>
  GATEWAY("ew", {
    namespace: "istio-system",
    className,
    labels: "topology.istio.io/network: net2",
    listeners: "{ name: mesh, port: 15008, protocol: HBONE, tls: { mode: Terminate } }",
    status: `addresses: [{ type: IPAddress, value: ${ip} }]`,
  });

/** Of every cluster, several versions of most. */
const EVERYWHERE: readonly string[] = [
  NODE("z1"),
  NODE("z2"),
  NAMESPACE("shop"),
  NAMESPACE("shop", { labels: `kept: 'yes', ${USE}: w` }),
  NAMESPACE("istio-system", { labels: "topology.istio.io/network: net1" }),
  NAMESPACE("istio-system", { labels: "topology.istio.io/network: net2" }),
  POD("p1", "10.0.0.1"),
  POD("p1", "10.0.0.1", { ready: "False", account: "other" }),
  POD("p1", "10.0.0.7", { labels: "app: other" }),
  POD("p2", "10.0.0.2", { labels: "app: cart, tier: back" }),
  CART(GLOBAL),
  CART(`${GLOBAL}, ${USE}: w`, "clusterIP: 10.96.0.2, selector: { app: other }"),
  CART("a: b", "clusterIP: 10.96.0.3"),
  SLICE,
  GATEWAY("w", { labels: "istio.io/waypoint-for: all" }),
  GATEWAY("w", { status: "" }),
  NETWORK_GATE("istio-east-west", "203.0.113.1"),
  NETWORK_GATE("istio-remote", "203.0.113.1"),
  NETWORK_GATE("istio-remote", "203.0.113.9"),
];

const SCOPES =
  "serviceScopeConfigs: [{ scope: GLOBAL, servicesSelector: { matchLabels: { istio.io/global: 'true' } } }]";
/** Of the config cluster alone. */
const CONFIGURATION: readonly string[] = [
  MESH(SCOPES),
  MESH(`${SCOPES}\ntrustDomain: corp.example\nrootNamespace: shop`),
  MESH(
    "serviceEntryVisibility: { defaultVisibility: NAMESPACE, policies: [{ visibility: NONE, matchingRules: [{ namespaceSelector: { matchLabels: { kept: 'yes' } } }] }] }",
  ),
  GATEWAY_CLASS({ labels: "istio.io/waypoint-for: workload" }),
  POLICY("shop", "{ selector: { matchLabels: { app: cart } }, rules: [{}] }"),
  POLICY("shop", "{ rules: [{}] }"),
  POLICY("istio-system", "{ selector: { matchLabels: { tier: back } }, action: DENY, rules: [{}] }"),
  STRICT("shop", "{ mtls: { mode: STRICT } }"),
  STRICT("istio-system", "{ mtls: { mode: STRICT } }"),
  STRICT("shop", "{ selector: { matchLabels: { app: cart } }, portLevelMtls: { 80: { mode: STRICT } } }"),
  SERVICE_ENTRY("se", {
    hosts: "cart.shop.svc.cluster.local",
    spec: "resolution: STATIC, endpoints: [{ address: 172.16.0.1 }]",
  }),
  SERVICE_ENTRY("se", { namespace: "far", hosts: "api.example", spec: "resolution: DNS" }),
  SERVICE_ENTRY("other", {
    hosts: "api.example",
    labels: `${USE}: w`,
    spec: "resolution: STATIC, workloadSelector: { labels: { app: cart } }",
  }),
  WORKLOAD_ENTRY("we", { labels: "app: cart", spec: "network: net2, serviceAccount: far" }),
  WORKLOAD_ENTRY("we", { labels: "app: other", spec: "address: 10.0.0.2" }),
];

const CLUSTERS = [undefined, "c2", "c3"] as const;
const POOL: readonly ObjectChange[] = [
  ...CLUSTERS.flatMap((cluster) => EVERYWHERE.flatMap(objectsOf).map((object) => changeOf(object, cluster))),
  ...CONFIGURATION.flatMap(objectsOf).map((object) => changeOf(object)),
];

function seededRandom(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor(state / 2 ** 32 * below);
  };
}

/** What a client that keeps up holds, and what must be true of it after every single announcement. */
class Client {
  readonly #held = new Map(TYPES.map((typeUrl) => [typeUrl, new Map<string, Resource>()]));

  take({ typeUrl, updated, removed }: ResourceChange): void {
    const held = this.#held.get(typeUrl)!;
    for (const name of removed) assert(held.delete(name), `${name} was known`);
    for (const resource of updated) {
      assertNotEquals(held.get(resource.name)?.version, resource.version, `${resource.name} has news (CP-444)`);
      held.set(resource.name, resource);
    }
    const policies = this.#held.get(AUTHORIZATION_TYPE_URL)!;
    for (const [uid, { bytes }] of this.#held.get(ADDRESS_TYPE_URL)!) {
      for (const name of decodeAddress(bytes).workload?.authorizationPolicies ?? []) {
        assert(policies.has(name), `${uid} names ${name}, which is not there`);
      }
    }
  }

  /** Every resource by its type and name: version and bytes. */
  contents(): Record<string, string> {
    return contents(TYPES.flatMap((typeUrl) => [...this.#held.get(typeUrl)!.values()].map((it) => [typeUrl, it])));
  }
}

function contents(resources: readonly (readonly [typeUrl: string, resource: Resource])[]): Record<string, string> {
  const entries = resources.map(([typeUrl, { name, version, bytes, aliases, waypoints }]) =>
    [`${typeUrl} ${name}`, `${version} ${bytes.toHex()} ${aliases} ${waypoints}`] as const
  );
  return Object.fromEntries(entries.sort(([left], [right]) => left < right ? -1 : 1));
}

function served(index: AmbientIndex): Record<string, string> {
  return contents(TYPES.flatMap((typeUrl) => [...index.all(typeUrl)].map((it) => [typeUrl, it] as const)));
}

function sizes(index: AmbientIndex): string[] {
  return index.collections().map(({ name, size }) => `${name} ${size}`);
}

function shuffled<T>(items: readonly T[], random: (below: number) => number): T[] {
  const result = [...items];
  for (let at = result.length - 1; at > 0; at--) {
    const other = random(at + 1);
    [result[at], result[other]] = [result[other]!, result[at]!];
  }
  return result;
}

/** A run of random changes; after each batch everything is held against fresh starts of other orders. */
function run(seed: number, multiNetwork: boolean): void {
  const random = seededRandom(seed), options = { clusterId: "c1", network: "net1", multiNetwork };
  const index = new AmbientIndex(options), client = new Client(), present = new Map<string, ObjectChange>();
  index.subscribe((change) => client.take(change));
  const idOf = ({ key, cluster = "" }: ObjectChange) => `${cluster} ${key}`;
  for (let batch = 0; batch < 12; batch++) {
    const changes = Array.from({ length: 1 + random(batch === 0 ? 30 : 5) }, () => {
      const change = POOL[random(POOL.length)]!, gone = random(4) === 0;
      if (gone) present.delete(idOf(change));
      else present.set(idOf(change), change);
      return gone ? { ...change, object: undefined } : change;
    });
    index.apply(changes);
    const leaving = random(8) === 0 ? CLUSTERS[1 + random(2)] : undefined;
    if (leaving !== undefined) {
      index.withdraw(leaving);
      for (const [id, { cluster }] of present) if (cluster === leaving) present.delete(id);
    }
    const where = `seed ${seed}, batch ${batch}`;
    assertEquals(client.contents(), served(index), where);
    for (const pieces of [1, 1 + random(6)]) {
      const fresh = new AmbientIndex(options), order = shuffled([...present.values()], random);
      const length = Math.max(1, Math.ceil(order.length / pieces));
      for (let at = 0; at < order.length; at += length) fresh.apply(order.slice(at, at + length));
      assertEquals(served(fresh), client.contents(), `${where}, in ${pieces} pieces`);
      const known = (it: string) => !it.startsWith("other clusters") && !it.startsWith("places of");
      assertEquals(sizes(fresh).filter(known), sizes(index).filter(known), `${where}: nothing is left behind`);
    }
  }
}

Deno.test("AmbientIndex: any order of any changes ends where a fresh start does, byte for byte; news differ from the last; references never dangle (CP-105, CP-200, CP-217, CP-355, CP-427)", () => {
  for (let seed = 1; seed <= 40; seed++) run(seed, false);
});

Deno.test("AmbientIndex: so do several clusters and networks, as they come, change and go (CP-105, CP-200, CP-284, CP-285)", () => {
  for (let seed = 1; seed <= 60; seed++) run(seed, true);
});
