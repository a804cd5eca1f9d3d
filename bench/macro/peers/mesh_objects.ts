/** The Kubernetes objects of a topology: two pods on two nodes, and a policy that lets the one reach the other. */
import { CLIENT_IP, SERVER_IP } from "../topology.ts";

/** YAML for istiod's folder. */
export function meshObjects(): string {
  return [NAMESPACE, node("client"), node("server"), pod("client", CLIENT_IP), pod("server", SERVER_IP), POLICY].join(
    "---\n",
  );
}

/**
 * JSON for istiod's folder: pods of other nodes, four of each service account.
 * @param options `revision`: another number changes every one of them.
 */
export function otherPods({ from, count, revision }: { from: number; count: number; revision: number }): string {
  const items = Array.from({ length: count }, (_, index) => from + index).map((at) => ({
    apiVersion: "v1",
    kind: "Pod",
    metadata: {
      name: otherName(at),
      namespace: "bench",
      labels: { app: `app-${at >> 2}`, "service.istio.io/canonical-revision": `v${revision}` },
      annotations: { "ambient.istio.io/redirection": "enabled" },
    },
    spec: { nodeName: "other-node", serviceAccountName: `app-${at >> 2}`, containers: [{ name: "app" }] },
    status: {
      phase: "Running",
      podIPs: [{ ip: otherIp(at) }],
      conditions: [{ type: "Ready", status: "True" }],
    },
  }));
  return JSON.stringify({ apiVersion: "v1", kind: "List", items });
}

export const otherName = (at: number) => `app-${at >> 2}-7d4b9c6f5d-${String(at).padStart(5, "0")}`;
export const otherIp = (at: number) => `10.87.${at >> 8}.${at & 255}`;

const NAMESPACE = `apiVersion: v1
kind: Namespace
metadata:
  name: bench
  labels: { istio.io/dataplane-mode: ambient }
`;

// Every connection is judged, and let in by its verified identity.
const POLICY = `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: clients-only, namespace: bench }
spec:
  action: ALLOW
  rules:
    - from:
        - source: { principals: ["cluster.local/ns/bench/sa/client"] }
`;

function node(role: string): string {
  return `apiVersion: v1
kind: Node
metadata: { name: ${role}-node }
`;
}

function pod(role: string, ip: string): string {
  return `apiVersion: v1
kind: Pod
metadata:
  name: ${role}
  namespace: bench
  labels: { app: ${role} }
  annotations: { ambient.istio.io/redirection: enabled }
spec:
  nodeName: ${role}-node
  serviceAccountName: ${role}
  containers:
    - name: app
status:
  phase: Running
  podIPs: [{ ip: ${ip} }]
  conditions: [{ type: Ready, status: "True" }]
`;
}
