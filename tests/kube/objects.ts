/** Objects as tests write them, by a few words each. */

export interface PodWords {
  readonly ip: string;
  readonly labels?: Readonly<Record<string, string>>;
  readonly node?: string;
  readonly account?: string;
  readonly ready?: boolean;
}

export function namespace(name: string): object {
  return { apiVersion: "v1", kind: "Namespace", metadata: { name, labels: { "istio.io/dataplane-mode": "ambient" } } };
}

export function account(space: string, name: string): object {
  return { apiVersion: "v1", kind: "ServiceAccount", metadata: { namespace: space, name } };
}

/** A pod that runs, as a kubelet would have it. */
export function pod(space: string, name: string, words: PodWords): object {
  const { ip, labels = {}, node = "node-1", account = "default", ready = true } = words;
  return {
    apiVersion: "v1",
    kind: "Pod",
    metadata: { namespace: space, name, labels, annotations: { "ambient.istio.io/redirection": "enabled" } },
    spec: { nodeName: node, serviceAccountName: account, containers: [{ name: "app", image: "app" }] },
    status: {
      phase: "Running",
      podIP: ip,
      podIPs: [{ ip }],
      conditions: [{ type: "Ready", status: ready ? "True" : "False" }],
    },
  };
}

export function service(space: string, name: string, selector: Readonly<Record<string, string>>): object {
  return {
    apiVersion: "v1",
    kind: "Service",
    metadata: { namespace: space, name },
    spec: { selector, ports: [{ name: "http", port: 80, targetPort: 8080 }] },
  };
}

export function authorizationPolicy(space: string, name: string, spec: object): object {
  return {
    apiVersion: "security.istio.io/v1",
    kind: "AuthorizationPolicy",
    metadata: { namespace: space, name },
    spec,
  };
}
