/** Tables 3.2 and 3.3 of the rules on the wire: which fields a resource of each origin has, by their numbers, where all that can be said is said. */
import { assertEquals } from "@std/assert";
import { ADDRESS_TYPE_URL } from "../../mesh/proto/workload_codec.ts";
import { TestMesh } from "./testing.ts";
import { GATEWAY, NAMESPACE, serviceName } from "./waypoint_testing.ts";

/** What is common to all: a waypoint for workloads and services, its canary, our network's gateway, and policies. */
const SURROUNDINGS = [
  NAMESPACE("istio-system"),
  NAMESPACE("shop", { labels: "istio.io/ingress-use-waypoint: 'true'" }),
  GATEWAY("wp", { labels: "istio.io/waypoint-for: all" }),
  GATEWAY("next", { labels: "istio.io/waypoint-for: all" }),
  GATEWAY("in", { annotations: "ambient.istio.io/waypoint-inbound-binding: PROXY/15088" }),
  GATEWAY("remote", {
    namespace: "istio-system",
    className: "istio-remote",
    labels: "topology.istio.io/network: n1",
    annotations: "gateway.istio.io/service-account: gw",
    status: "addresses: [{ type: IPAddress, value: 203.0.113.9 }]",
  }),
  `
apiVersion: v1
kind: Node
metadata:
  name: node-1
  labels:
    { topology.kubernetes.io/region: r, topology.kubernetes.io/zone: z, topology.istio.io/subzone: s }
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: few, namespace: shop }
spec: { selector: { matchLabels: { app: a } }, rules: [{ from: [{ source: { namespaces: [shop] } }] }] }
---`,
].join("");

const WAYPOINT = "istio.io/use-waypoint: wp";
const NAMES = "app: a, service.istio.io/canonical-name: c, service.istio.io/canonical-revision: r";
const TUNNEL = "networking.istio.io/tunnel: http";
const LABELS = `${NAMES}, ${TUNNEL}, ${WAYPOINT}`;
const CANARY = "istio.io/use-waypoint-canary: next";

const KUBERNETES_SERVICE = `
apiVersion: v1
kind: Service
metadata:
  name: a
  namespace: shop
  labels: { ${WAYPOINT}, ${CANARY} }
  annotations: { istio.io/use-waypoint-canary-weight: "10" }
spec:
  clusterIP: 10.96.0.1
  clusterIPs: [10.96.0.1]
  ipFamilies: [IPv4]
  trafficDistribution: PreferClose
  selector: { app: a }
  ports: [{ name: http, port: 80, targetPort: 8080 }]
---`;
const POD = (name: string, labels: string, status = "") => `
apiVersion: v1
kind: Pod
metadata:
  name: ${name}
  namespace: shop
  labels: { ${labels} }
spec: { nodeName: node-1, serviceAccountName: acct, hostNetwork: true, containers: [] }
status: { phase: Running, podIP: 10.0.0.1, podIPs: [{ ip: 10.0.0.1 }, { ip: "fd00::1" }] ${status} }
---`;
const NOT_READY = ', conditions: [{ type: Ready, status: "False" }]';
const ENDPOINT = (labels: string) =>
  `address: 10.1.0.1, labels: { ${labels} }, locality: r/z/s, weight: 3, serviceAccount: acct, ports: { http: 8081 }`;
const WORKLOAD_ENTRY = `
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: { name: vm, namespace: shop, labels: { ${WAYPOINT} } }
spec: { ${ENDPOINT(`${NAMES}, ${TUNNEL}`)} }
---`;
const SERVICE_ENTRY = `
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata:
  name: e
  namespace: shop
  labels: { ${LABELS}, ${CANARY} }
  annotations: { networking.istio.io/traffic-distribution: PreferClose }
spec:
  hosts: [e.example]
  addresses: [10.2.0.0/24]
  resolution: STATIC
  ports: [{ number: 80, name: http, protocol: HTTP, targetPort: 81 }]
  subjectAltNames: [spiffe://td/ns/a/sa/b]
  endpoints: [{ ${ENDPOINT(`${NAMES}, ${WAYPOINT}`)} }]
---`;
const SLICE = `
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: { name: s-1, namespace: shop, labels: { kubernetes.io/service-name: a } }
addressType: IPv4
endpoints: [{ addresses: [192.0.2.1], conditions: { ready: false } }]
ports: [{ name: http, port: 8080 }]
---`;

const MESH = new TestMesh(
  SURROUNDINGS + KUBERNETES_SERVICE + POD("p", LABELS, NOT_READY) +
    POD("in-1", `gateway.networking.k8s.io/gateway-name: in, ${LABELS}`) + WORKLOAD_ENTRY + SERVICE_ENTRY + SLICE,
  { network: "n1", trustDomain: "td.example", multiNetwork: true },
);

function varint(bytes: Uint8Array, at: number): { value: number; next: number } {
  let value = 0, shift = 1;
  for (;; at++, shift *= 128) {
    value += (bytes[at]! & 0x7f) * shift;
    if (bytes[at]! < 0x80) return { value, next: at + 1 };
  }
}

/** The numbers of a message's fields, each once, in order; `inside` names the field whose message is looked at instead. */
function fieldsOf(bytes: Uint8Array, inside?: number): number[] {
  const found = new Set<number>();
  for (let at = 0; at < bytes.length;) {
    const tag = varint(bytes, at), number = tag.value >> 3, kind = tag.value & 7, first = varint(bytes, tag.next);
    const end = kind === 2 ? first.next + first.value : first.next;
    if (number === inside) return fieldsOf(bytes.subarray(first.next, end));
    found.add(number);
    at = end;
  }
  return [...found].sort((one, other) => one - other);
}

/** Of the resource of a name, the fields of its workload, or of its service. */
function fields(name: string): number[] {
  const found = MESH.index.lookup(ADDRESS_TYPE_URL, name).find((it) => it.name === name);
  return found === undefined ? [] : fieldsOf(found.bytes, fieldsOf(found.bytes)[0]!);
}

/** By row of table 3.2: what each field is called. */
const WORKLOAD = {
  name: 1,
  namespace: 2,
  addresses: 3,
  network: 4,
  tunnelProtocol: 5,
  trustDomain: 6,
  serviceAccount: 7,
  waypoint: 8,
  node: 9,
  canonicalName: 10,
  canonicalRevision: 11,
  workloadType: 12,
  workloadName: 13,
  nativeTunnel: 14,
  authorizationPolicies: 16,
  status: 17,
  clusterId: 18,
  networkGateway: 19,
  uid: 20,
  services: 22,
  applicationTunnel: 23,
  locality: 24,
  networkMode: 25,
  capacity: 27,
} as const;
type WorkloadField = keyof typeof WORKLOAD;
const SERVICE = {
  name: 1,
  namespace: 2,
  hostname: 3,
  addresses: 4,
  ports: 5,
  subjectAltNames: 6,
  waypoint: 7,
  loadBalancing: 8,
  ipFamilies: 9,
  canonical: 11,
  ingressUseWaypoint: 12,
  weightedWaypoints: 13,
} as const;

/** The names of fields by a table, so that a difference reads well. */
function named(table: Readonly<Record<string, number>>, numbers: readonly number[]): string[] {
  return numbers.map((number) => Object.entries(table).find(([, it]) => it === number)?.[0] ?? `field ${number}`)
    .sort();
}

/** A column of table 3.2: every field but those that its origin cannot have. */
const ROWS = Object.keys(WORKLOAD) as WorkloadField[];
const COLUMNS: Readonly<Record<string, readonly [uid: string, without: readonly WorkloadField[]]>> = {
  "a Pod": ["c1//Pod/shop/p", ["applicationTunnel", "capacity"]],
  "a Pod of a Gateway": ["c1//Pod/shop/in-1", ["waypoint", "capacity", "status"]],
  "a WorkloadEntry": [
    "c1/networking.istio.io/WorkloadEntry/shop/vm",
    ["node", "status", "applicationTunnel", "networkMode"],
  ],
  "a ServiceEntry's endpoint": [
    "c1/networking.istio.io/ServiceEntry/shop/e/10.1.0.1",
    ["node", "status", "applicationTunnel", "networkMode"],
  ],
  // Without the gateway that the table's row 19 gives it: Istio's own index sends none, and who is on that network asks none.
  "an EndpointSlice's endpoint": [
    "c1/discovery.k8s.io/EndpointSlice/shop/s-1/192.0.2.1",
    ROWS.filter((row) =>
      ![
        "uid",
        "name",
        "namespace",
        "addresses",
        "network",
        "trustDomain",
        "services",
        "status",
        "clusterId",
        "networkMode",
      ].includes(row)
    ),
  ],
  "a network's gateway": [
    "NetworkGateway/n1/203.0.113.9/15008",
    ROWS.filter((row) =>
      !["uid", "name", "namespace", "addresses", "network", "trustDomain", "serviceAccount"].includes(row)
    ),
  ],
};

for (const [what, [uid, without]] of Object.entries(COLUMNS)) {
  Deno.test(`${what} has each field of its column in table 3.2 on the wire, and no other (CP-200, CP-202 to CP-216)`, () => {
    const expected = ROWS.filter((row) => !without.includes(row)).sort();
    assertEquals(named(WORKLOAD, fields(uid)), expected);
  });
}

Deno.test("a Service has each field of its column in table 3.3 on the wire, and no other (CP-220 to CP-230)", () => {
  const expected = Object.keys(SERVICE).filter((row) => row !== "subjectAltNames").sort();
  assertEquals(named(SERVICE, fields(serviceName("a"))), expected);
});

Deno.test("a ServiceEntry has each field of its column in table 3.3 on the wire, and no other (CP-220 to CP-230)", () => {
  const expected = Object.keys(SERVICE).filter((row) => row !== "ipFamilies").sort();
  assertEquals(named(SERVICE, fields("shop/e.example")), expected);
});
