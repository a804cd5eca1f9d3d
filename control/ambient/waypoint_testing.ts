/** For tests of waypoints: objects of which only what matters is written down, in YAML. */

/** The label of a Gateway's instances. */
export const NAMED = "gateway.networking.k8s.io/gateway-name";

const READY = "addresses: [{ type: Hostname, value: NAME }]";

/** A Gateway that is ready and lets its own namespace attach, unless it is said otherwise. */
export const GATEWAY = (
  name: string,
  {
    namespace = "shop",
    labels = "",
    annotations = "",
    className = "istio-waypoint",
    listeners = "{ name: mesh, port: 15008, protocol: HBONE }",
    status = READY,
  } = {},
) => `
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: { name: ${name}, namespace: ${namespace}, generation: 4, labels: { ${labels} }, annotations: { ${annotations} } }
spec: { gatewayClassName: ${className}, listeners: [${listeners}] }
status: { ${status.replace("NAME", `${name}.${namespace}.svc.cluster.local`)} }
---`;

export const GATEWAY_CLASS = ({ labels = "", annotations = "", controller = "istio.io/mesh-controller" } = {}) => `
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: { name: istio-waypoint, labels: { ${labels} }, annotations: { ${annotations} } }
spec: { controllerName: ${controller} }
---`;

export const NAMESPACE = (name: string, { labels = "", annotations = "" } = {}) => `
apiVersion: v1
kind: Namespace
metadata: { name: ${name}, labels: { ${labels} }, annotations: { ${annotations} } }
---`;

/** The mesh's settings, as one line of YAML. */
export const MESH = (settings: string) => `
apiVersion: v1
kind: ConfigMap
metadata: { name: istio, namespace: istio-system }
data: { mesh: ${JSON.stringify(settings)} }
---`;

export const SERVICE = (
  name: string,
  { namespace = "shop", labels = "", annotations = "", created = "2026-01-01T00:00:00Z", spec = "" } = {},
) => `
apiVersion: v1
kind: Service
metadata:
  name: ${name}
  namespace: ${namespace}
  generation: 2
  creationTimestamp: "${created}"
  labels: { ${labels} }
  annotations: { ${annotations} }
spec: { ports: [{ port: 80 }], ${spec} }
---`;

export const serviceName = (name: string, namespace = "shop") => `${namespace}/${name}.${namespace}.svc.cluster.local`;

export const POD = (
  name: string,
  {
    namespace = "shop",
    labels = "",
    account = "default",
    phase = "Running",
    ip = "10.0.0.1",
    created = "2026-01-01T00:00:00Z",
  } = {},
) => `
apiVersion: v1
kind: Pod
metadata: { name: ${name}, namespace: ${namespace}, creationTimestamp: "${created}", labels: { ${labels} } }
spec: { serviceAccountName: ${account} }
status: { podIP: ${ip}, phase: ${phase} }
---`;

export const podUid = (name: string, namespace = "shop") => `c1//Pod/${namespace}/${name}`;

export const WORKLOAD_ENTRY = (name: string, { namespace = "shop", labels = "", spec = "address: 10.1.0.1" } = {}) => `
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: { name: ${name}, namespace: ${namespace}, generation: 3, labels: { ${labels} } }
spec: { ${spec} }
---`;

export const SERVICE_ENTRY = (
  name: string,
  {
    namespace = "shop",
    labels = "",
    annotations = "",
    created = "2026-01-01T00:00:00Z",
    hosts = `${name}.example`,
    spec = "resolution: STATIC",
  } = {},
) => `
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata:
  name: ${name}
  namespace: ${namespace}
  generation: 5
  creationTimestamp: "${created}"
  labels: { ${labels} }
  annotations: { ${annotations} }
spec: { hosts: ["${hosts}"], ports: [{ name: http, number: 80, protocol: HTTP }], ${spec} }
---`;
