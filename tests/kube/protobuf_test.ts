/** What a real API server says in protobuf must be what it says in JSON: of every kind that is read so, field by field. */
import { assert, assertEquals } from "@std/assert";
import { Logger } from "../../base/log.ts";
import { decodeKubeObject } from "../../control/cluster/decode.ts";
import { WATCHED_KINDS } from "../../control/cluster/kinds.ts";
import { StatusMirror } from "../../control/status/status_mirror.ts";
import type { KubeApi, KubeObject, ResourceType, Scope } from "../../kube/api.ts";
import { openKubeApi } from "../../kube/client.ts";
import { loadKubeconfig } from "../../kube/kubeconfig_access.ts";
import { ENDPOINT_SLICES, NAMESPACES, NODES, PODS, SERVICE_ACCOUNTS, SERVICES } from "../../kube/resource_types.ts";
import { Mirror } from "../../kube/informer_testing.ts";
import { startApiServer } from "./api_server.ts";

const LABELS = { app: "a", "topology.kubernetes.io/zone": "z", long: "x".repeat(63) };
const ANNOTATIONS = {
  "ambient.istio.io/redirection": "enabled",
  "kubectl.kubernetes.io/last-applied-configuration": "{".repeat(5_000),
  "networking.istio.io/traffic-distribution": "PreferClose",
  "example.com/text": "Grüße, 世界",
};
const OWNERS = [
  { apiVersion: "v1", kind: "ConfigMap", name: "other", uid: "u1" },
  { apiVersion: "apps/v1", kind: "ReplicaSet", name: "a-5d4f", uid: "u2", controller: true, blockOwnerDeletion: true },
];
const metadata = (name: string, more: object = {}) => ({ name, labels: LABELS, annotations: ANNOTATIONS, ...more });
const container = (name: string, more: object = {}) => ({ name, image: "i", ...more });

/** Pods that say everything that is read of one, or nothing of it. */
const POD_OBJECTS: readonly [pod: object, status: object | undefined][] = [
  [{ metadata: { name: "bare" }, spec: { containers: [container("c")] } }, undefined],
  [{
    metadata: metadata("full", { generateName: "full-", ownerReferences: OWNERS, finalizers: ["example.com/hold"] }),
    spec: {
      serviceAccountName: "account",
      nodeName: "node-1",
      hostNetwork: true,
      containers: [
        container("c", { ports: [{ containerPort: 8080, name: "http" }, { containerPort: 53, protocol: "UDP" }] }),
        container("d", { env: [{ name: "A", value: "b" }], resources: { limits: { cpu: "1" } } }),
      ],
      initContainers: [
        container("side", { restartPolicy: "Always", ports: [{ containerPort: 9090, name: "metrics" }] }),
        container("once", { ports: [{ containerPort: 1 }] }),
      ],
    },
  }, {
    phase: "Running",
    podIP: "10.0.0.1",
    podIPs: [{ ip: "10.0.0.1" }, { ip: "fd00::1" }],
    conditions: [{ type: "Initialized", status: "True" }, { type: "Ready", status: "True", reason: "x" }],
  }],
  [{ metadata: { name: "unready", labels: {} }, spec: { nodeName: "node-2", containers: [container("c")] } }, {
    phase: "Pending",
    podIP: "10.0.0.2",
    conditions: [{ type: "Ready", status: "False", lastTransitionTime: "2026-01-31T12:00:00Z" }],
  }],
];

const SERVICE_OBJECTS: readonly [service: object, status: object | undefined][] = [
  [{ metadata: { name: "plain" }, spec: { selector: { app: "a" }, ports: [{ port: 80 }] } }, undefined],
  [
    { metadata: { name: "headless" }, spec: { clusterIP: "None", ports: [{ port: 80, targetPort: "http" }] } },
    undefined,
  ],
  [{ metadata: { name: "away" }, spec: { type: "ExternalName", externalName: "example.com" } }, undefined],
  [{
    metadata: metadata("full"),
    spec: {
      type: "LoadBalancer",
      selector: { app: "a", tier: "b" },
      publishNotReadyAddresses: true,
      internalTrafficPolicy: "Local",
      trafficDistribution: "PreferClose",
      ports: [
        { name: "web", port: 80, targetPort: 8080, appProtocol: "kubernetes.io/h2c" },
        { name: "dns", port: 53, protocol: "UDP", targetPort: "dns" },
      ],
    },
  }, {
    loadBalancer: { ingress: [{ ip: "192.0.2.1" }, { hostname: "lb.example.com" }] },
    conditions: [{
      type: "istio.io/WaypointBound",
      status: "True",
      observedGeneration: 3,
      lastTransitionTime: "2026-01-31T12:00:00Z",
      reason: "Accepted",
      message: "",
    }],
  }],
];

const SLICE_LABELS = { "kubernetes.io/service-name": "full" };
const SLICE_OBJECTS: readonly object[] = [
  { metadata: { name: "empty", labels: SLICE_LABELS }, addressType: "IPv4", endpoints: [], ports: [] },
  {
    metadata: { name: "names", labels: SLICE_LABELS },
    addressType: "FQDN",
    endpoints: [{ addresses: ["a.example.com"] }],
    ports: [{}],
  },
  {
    metadata: metadata("full", { labels: { ...LABELS, ...SLICE_LABELS } }),
    addressType: "IPv4",
    endpoints: [
      { addresses: ["10.0.0.1"], conditions: { ready: false, serving: true }, nodeName: "node-1", zone: "z" },
      {
        addresses: ["10.0.0.2", "10.0.0.3"],
        conditions: { ready: true },
        targetRef: { kind: "Pod", namespace: "shop", name: "full", uid: "u" },
      },
      { addresses: ["10.0.0.4"] },
    ],
    ports: [{ name: "", port: 80 }, { name: "dns", port: 53, protocol: "UDP", appProtocol: "x" }],
  },
];

/** Makes the objects, of every kind that every API server has. */
async function fill(api: KubeApi): Promise<void> {
  await api.create(NAMESPACES, "", { metadata: metadata("shop") });
  for (const name of ["default", "account"]) await api.create(SERVICE_ACCOUNTS, "shop", { metadata: { name } });
  await api.create(NODES, "", { metadata: metadata("node-1"), spec: { podCIDR: "10.0.0.0/24" } });
  for (const [type, objects] of [[PODS, POD_OBJECTS], [SERVICES, SERVICE_OBJECTS]] as const) {
    for (const [object, status] of objects) {
      const { metadata: { name } } = await api.create(type, "shop", object);
      if (status !== undefined) await api.patch(type, { namespace: "shop", name, subresource: "status" }, { status });
    }
  }
  await api.delete(PODS, { namespace: "shop", name: "full" }); // It stays, deleting, for its finalizer.
  for (const slice of SLICE_OBJECTS) await api.create(ENDPOINT_SLICES, "shop", slice);
}

Deno.test("what comes in protobuf is to us what comes in JSON, of every kind, in lists and watches (CP-101, CP-103)", async () => {
  await using server = await startApiServer({ definitions: ["istio", "gateway"] });
  const lines: string[] = [];
  const api = openKubeApi(await loadKubeconfig(server.kubeconfig), {
    log: new Logger("kube", { sink: (line) => lines.push(line) }),
  });
  using _closed = { [Symbol.dispose]: () => api.close() };
  await fill(api);
  let compared = 0;
  for (const { kind, type, scope } of WATCHED_KINDS) {
    if (scope.fields === undefined) continue;
    const { fields: _, ...asJson } = scope;
    const [json, proto] = await Promise.all([asJson, scope].map((it) => api.list(type, it, { limit: 0 })));
    const watched = await Promise.all([asJson, scope].map((it) => initialEvents(api, type, it)));
    assertEquals(proto!.resourceVersion, json!.resourceVersion, kind);
    assertEquals(await namesOf(watched[1]!), await namesOf(watched[0]!), kind);
    for (const [at, object] of json!.items.entries()) {
      const name = `${kind} ${object.metadata.name}`, want = told(kind, object);
      assertEquals(told(kind, proto!.items[at]!), want, name);
      assertEquals(proto!.items[at]!.metadata.managedFields, undefined, "it is protobuf indeed");
      for (const objects of watched) {
        const same = objects.find((it) => it.metadata.uid === object.metadata.uid);
        assertEquals(same && told(kind, same), want, `${name}, watched`);
      }
      compared++;
    }
  }
  assert(compared >= 15, `${compared} objects compared`);
  assertEquals(lines, [], "nothing was unreadable");

  const { scope } = WATCHED_KINDS.find(({ kind }) => kind === "Pod")!;
  await using mirror = new Mirror(api, PODS, { ...scope, namespace: "shop" });
  await mirror.untilNames("bare", "full", "unready");
  await api.delete(PODS, { namespace: "shop", name: "bare" }); // Bound to no node, it goes at once.
  await api.create(PODS, "shop", { metadata: { name: "new" }, spec: { containers: [container("c")] } });
  await mirror.untilNames("full", "new", "unready");
  assertEquals(mirror.informer.status().failures, 0);
});

/** All that is taken of an object. */
function told(kind: (typeof WATCHED_KINDS)[number]["kind"], object: KubeObject): unknown {
  const statuses = new StatusMirror(), { name, namespace = "" } = object.metadata;
  statuses.note(kind, { namespace, name }, object);
  const { uid, resourceVersion } = object.metadata, { object: decoded, refusal } = decodeKubeObject(kind, object);
  assertEquals(refusal, undefined, name);
  const status = statuses.get(`${kind}/${namespace}/${name}`)?.status as { conditions?: unknown } | undefined;
  return { uid, resourceVersion, namespace, decoded, conditions: status?.conditions };
}

/** What is there, by a watch that begins with it. */
async function initialEvents(api: KubeApi, type: ResourceType, scope: Scope): Promise<KubeObject[]> {
  const end = new AbortController(), objects: KubeObject[] = [];
  const options = { resourceVersion: "", initialEvents: true, signal: end.signal };
  for await (const event of api.watch(type, scope, options)) {
    if (event.type === "BOOKMARK" && event.initialEventsEnd) break;
    if (event.type !== "BOOKMARK") objects.push(event.object);
  }
  end.abort();
  return objects;
}

function namesOf(objects: readonly KubeObject[]): string[] {
  return objects.map(({ metadata: { namespace, name } }) => `${namespace}/${name}`).sort();
}
