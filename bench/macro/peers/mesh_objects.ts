/** The Kubernetes objects of a topology: two pods on two nodes, and a policy that lets the one reach the other. */
import { CLIENT_IP, SERVER_IP } from "../topology.ts";

/** YAML for istiod's folder. */
export function meshObjects(): string {
  return [NAMESPACE, node("client"), node("server"), pod("client", CLIENT_IP), pod("server", SERVER_IP), POLICY].join(
    "---\n",
  );
}

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
