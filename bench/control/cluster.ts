/** The cluster that control planes are measured in: namespaces, nodes, services, policies and pods, none of which runs. */
import type { ApiWriter } from "../../tests/kube/api_writer.ts";

const NAMESPACES = 10;
const PODS_PER_NODE = 100, PODS_PER_SERVICE = 20;
const SYSTEM = "istio-system";
/** The pod whose account's token every simulated proxy has. */
export const PROXY_POD = "ztunnel-bench", PROXY_NODE = "node-0";

/** A pod of the mesh by number; two of them never have the same address. */
export interface PodPlan {
  readonly namespace: string;
  readonly name: string;
  readonly service: string;
  readonly node: string;
  readonly ip: string;
}

/** Fills an empty API server. @returns Seconds that it took. */
export async function fillCluster(api: ApiWriter, pods: number): Promise<number> {
  const startedAt = performance.now(), nodes = Math.ceil(pods / PODS_PER_NODE);
  for (const name of [SYSTEM, ...Array.from({ length: NAMESPACES }, (_, at) => namespaceName(at))]) {
    const labels = { "istio.io/dataplane-mode": "ambient" };
    await api.call("POST", "/api/v1/namespaces", { metadata: { name, labels } });
    await api.call("POST", `/api/v1/namespaces/${name}/serviceaccounts`, { metadata: { name: "bench" } });
  }
  await api.call("POST", `/api/v1/namespaces/${SYSTEM}/serviceaccounts`, { metadata: { name: "ztunnel" } });
  await api.each(nodes, (at) => api.call("POST", "/api/v1/nodes", node(at)));
  await addPod(api, { namespace: SYSTEM, name: PROXY_POD, service: "", node: PROXY_NODE, ip: "10.0.0.1" }, "ztunnel");
  await api.each(Math.ceil(pods / PODS_PER_SERVICE), (at) => addService(api, at));
  for (let at = 0; at < NAMESPACES; at++) await addPolicy(api, namespaceName(at));
  await api.each(pods, (at) => addPod(api, podPlan(at, pods)));
  return (performance.now() - startedAt) / 1_000;
}

const namespaceName = (at: number) => `bench-${at % NAMESPACES}`;

/** The pod of a number below `pods`, or with higher numbers its successors. */
export function podPlan(number: number, pods: number): PodPlan {
  const service = Math.floor((number % pods) / PODS_PER_SERVICE);
  return {
    namespace: namespaceName(service),
    name: podName(number),
    service: `service-${service}`,
    node: `node-${Math.floor((number % pods) / PODS_PER_NODE)}`,
    ip: `10.${16 + ((number >> 16) & 127)}.${(number >> 8) & 255}.${number & 255}`,
  };
}

export const podName = (number: number) => `pod-${number}`;

/** Makes a pod, and writes the status that a kubelet would. Resolves when the API server has said yes to that. */
export async function addPod(api: ApiWriter, plan: PodPlan, account = "bench"): Promise<void> {
  const { namespace, name, service, node, ip } = plan, path = `/api/v1/namespaces/${namespace}/pods`;
  const labels = { app: service, "service.istio.io/canonical-revision": "v1" };
  await api.call("POST", path, {
    metadata: { name, labels, annotations: { "ambient.istio.io/redirection": "enabled" } },
    spec: {
      serviceAccountName: account,
      nodeName: node,
      containers: [{ name: "app", image: "bench", ports: [{ containerPort: 8080 }] }],
    },
  });
  await api.call("PATCH", `${path}/${name}/status`, {
    status: {
      phase: "Running",
      podIP: ip,
      podIPs: [{ ip }],
      conditions: [{ type: "Ready", status: "True" }],
    },
  }, "application/merge-patch+json");
}

/** Takes a pod away, at once; one that is not there is away. */
export async function removePod(api: ApiWriter, { namespace, name }: PodPlan): Promise<void> {
  const path = `/api/v1/namespaces/${namespace}/pods/${name}`;
  await api.call("DELETE", path, { gracePeriodSeconds: 0 }).catch((error: Error) => {
    if (!error.message.includes(": 404 ")) throw error; // A machine that is behind has not made it yet.
  });
}

function node(at: number): object {
  const zone = `zone-${at % 3}`;
  return {
    metadata: {
      name: `node-${at}`,
      labels: { "topology.kubernetes.io/region": "region", "topology.kubernetes.io/zone": zone },
    },
  };
}

function addService(api: ApiWriter, at: number): Promise<unknown> {
  const name = `service-${at}`;
  return api.call("POST", `/api/v1/namespaces/${namespaceName(at)}/services`, {
    metadata: { name },
    spec: { selector: { app: name }, ports: [{ name: "http", port: 80, targetPort: 8080 }] },
  });
}

function addPolicy(api: ApiWriter, namespace: string): Promise<unknown> {
  return api.call("POST", `/apis/security.istio.io/v1/namespaces/${namespace}/authorizationpolicies`, {
    apiVersion: "security.istio.io/v1",
    kind: "AuthorizationPolicy",
    metadata: { name: "same-mesh" },
    spec: { rules: [{ from: [{ source: { principals: ["cluster.local/ns/*"] } }] }] },
  });
}
