/** Kubernetes objects of the lab, as text. */
import type { Pod } from "./mesh.ts";

/** The object of a running pod, captured or not. */
export function podYaml({ spec, ipv4, ipv6 }: Pod, enrolled: boolean): string {
  return `apiVersion: v1
kind: Pod
metadata:
  name: ${spec.name}
  namespace: ${spec.namespace}
  labels: { app: ${spec.name} }
${enrolled ? "  annotations: { ambient.istio.io/redirection: enabled }\n" : ""}spec:
  nodeName: ${spec.node}
  serviceAccountName: ${spec.serviceAccount}
  containers: [{ name: app }]
status:
  phase: Running
  podIPs: [{ ip: ${ipv4} }, { ip: "${ipv6}" }]
  conditions: [{ type: Ready, status: "True" }]
`;
}

/** A service in front of the pods of one app label. */
export function serviceYaml(service: {
  name: string;
  namespace: string;
  addresses: readonly string[];
  port: number;
  targetPort: number;
}): string {
  const { name, namespace, addresses, port, targetPort } = service;
  return `apiVersion: v1
kind: Service
metadata: { name: ${name}, namespace: ${namespace} }
spec:
  clusterIPs: [${addresses.map((address) => JSON.stringify(address)).join(", ")}]
  selector: { app: ${name} }
  ports: [{ name: tcp, port: ${port}, targetPort: ${targetPort} }]
`;
}

/** An AuthorizationPolicy; `spec` is YAML that stands under `spec:`, two blanks in. */
export function policyYaml(name: string, namespace: string, spec: string): string {
  return `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: ${name}, namespace: ${namespace} }
spec:
${spec}
`;
}
