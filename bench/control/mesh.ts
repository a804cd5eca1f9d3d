/** A made-up cluster of any size: objects as an API server writes them, one at a time, so that none need be kept. */
import { decodeObject, identify } from "../../control/decode/kinds.ts";
import { Field } from "../../control/decode/field.ts";
import { keyOf, type KubernetesObject, type ObjectChange } from "../../control/objects.ts";

export interface MeshSize {
  readonly pods: number;
  readonly services: number;
  readonly namespaces: number;
  /** AuthorizationPolicies with a selector. */
  readonly policies: number;
  readonly nodes: number;
}

/** The proportions of the goal: 10 pods a service at 100,000. */
export function sizeOf(pods: number): MeshSize {
  return { pods, services: 10_000, namespaces: 1_000, policies: 100, nodes: Math.max(10, pods / 50) };
}

const CREATED = "2026-01-31T12:00:00Z";

function decoded(plain: { readonly kind: string; readonly [key: string]: unknown }): KubernetesObject {
  // Through text, as from the wire: no two objects share a string that two messages would not.
  const root = new Field(JSON.parse(JSON.stringify(plain)));
  const kind = plain.kind as KubernetesObject["kind"];
  return decodeObject(root, identify(root, kind));
}

export function changeOf(object: KubernetesObject): ObjectChange {
  return { kind: object.kind, key: keyOf(object), object };
}

const namespaceOf = (service: number, { namespaces }: MeshSize) => `team-${service % namespaces}`;
const ipOf = (prefix: number, at: number) => `${prefix}.${(at >> 16) & 255}.${(at >> 8) & 255}.${at & 255}`;

export function node(at: number, zone = `zone-${at % 3}`): KubernetesObject {
  const labels = {
    "kubernetes.io/hostname": `node-${at}`,
    "topology.kubernetes.io/region": "eu-1",
    "topology.kubernetes.io/zone": zone,
  };
  return decoded({ apiVersion: "v1", kind: "Node", metadata: { name: `node-${at}`, labels } });
}

export function namespace(at: number, more: Readonly<Record<string, string>> = {}): KubernetesObject {
  const labels = { "kubernetes.io/metadata.name": `team-${at}`, "istio.io/dataplane-mode": "ambient", ...more };
  return decoded({ apiVersion: "v1", kind: "Namespace", metadata: { name: `team-${at}`, labels } });
}

export function service(at: number, size: MeshSize, selected = `app-${at}`): KubernetesObject {
  return decoded({
    apiVersion: "v1",
    kind: "Service",
    metadata: { name: `app-${at}`, namespace: namespaceOf(at, size), creationTimestamp: CREATED, uid: `s-${at}` },
    spec: {
      clusterIP: ipOf(11, at),
      clusterIPs: [ipOf(11, at)],
      ports: [{ name: "http", port: 80, targetPort: 8080 }, { name: "metrics", port: 9090, targetPort: "metrics" }],
      selector: { "app.kubernetes.io/name": selected },
      ipFamilies: ["IPv4"],
    },
  });
}

export function policy(at: number, size: MeshSize, selected = `app-${at}`): KubernetesObject {
  const namespace = namespaceOf(at, size);
  return decoded({
    apiVersion: "security.istio.io/v1",
    kind: "AuthorizationPolicy",
    metadata: { name: `allow-${at}`, namespace, creationTimestamp: CREATED },
    spec: {
      selector: { matchLabels: { "app.kubernetes.io/name": selected } },
      rules: [{ from: [{ source: { namespaces: [namespace] } }], to: [{ operation: { ports: ["8080"] } }] }],
    },
  });
}

/** Pod number `at`, of service `at % services` unless told otherwise. */
export function pod(at: number, size: MeshSize, options: { ready?: boolean; service?: number } = {}): KubernetesObject {
  const of = options.service ?? at % size.services, app = `app-${of}`, hash = hashOf(of);
  return decoded({
    apiVersion: "v1",
    kind: "Pod",
    metadata: {
      name: podName(at, of),
      namespace: namespaceOf(of, size),
      generateName: `${app}-${hash}-`,
      uid: podUid(at),
      creationTimestamp: CREATED,
      labels: {
        "app.kubernetes.io/name": app,
        "app.kubernetes.io/instance": "prod",
        "app.kubernetes.io/version": "1.4.2",
        "pod-template-hash": hash,
      },
      annotations: { "ambient.istio.io/redirection": "enabled", "prometheus.io/scrape": "true" },
      ownerReferences: [{ controller: true, kind: "ReplicaSet", name: `${app}-${hash}` }],
    },
    spec: {
      nodeName: `node-${at % size.nodes}`,
      serviceAccountName: app,
      containers: [{ ports: [{ name: "http", containerPort: 8080 }, { name: "metrics", containerPort: 9090 }] }],
    },
    status: {
      phase: "Running",
      podIP: ipOf(10, at),
      podIPs: [{ ip: ipOf(10, at) }],
      conditions: [{ type: "Ready", status: options.ready === false ? "False" : "True" }],
    },
  });
}

/** The slice of a service, of at most 100 of its pods, as the cluster keeps it: it changes with each of them. */
export function slice(at: number, size: MeshSize, unready = -1): KubernetesObject {
  const members = Array.from(
    { length: Math.min(100, Math.ceil((size.pods - at) / size.services)) },
    (_, nth) => at + nth * size.services,
  );
  return decoded({
    apiVersion: "discovery.k8s.io/v1",
    kind: "EndpointSlice",
    metadata: {
      name: `app-${at}-x`,
      namespace: namespaceOf(at, size),
      labels: { "kubernetes.io/service-name": `app-${at}` },
    },
    addressType: "IPv4",
    ports: [{ name: "http", port: 8080 }, { name: "metrics", port: 9090 }],
    endpoints: members.map((it) => ({
      addresses: [ipOf(10, it)],
      conditions: { ready: it !== unready },
      targetRef: { kind: "Pod", namespace: namespaceOf(at, size), name: podName(it, at), uid: podUid(it) },
    })),
  });
}

const hashOf = (service: number) => (service * 7919 % 0xfffffff).toString(36);
const podName = (at: number, service: number) =>
  `app-${service}-${hashOf(service)}-${(at * 104729 % 0xfffffff).toString(36)}`;
const podUid = (at: number) => `0d1f3a5c-0000-4000-8000-${at.toString(16).padStart(12, "0")}`;

/** Everything that is not a pod. */
export function* surroundings(size: MeshSize): Iterable<KubernetesObject> {
  for (let at = 0; at < size.nodes; at++) yield node(at);
  for (let at = 0; at < size.namespaces; at++) yield namespace(at);
  for (let at = 0; at < size.services; at++) yield service(at, size);
  for (let at = 0; at < size.policies; at++) yield policy(at, size);
}
