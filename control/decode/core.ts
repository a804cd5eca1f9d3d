/** The schemas of Pod, Service and EndpointSlice. */
import type {
  ContainerPort,
  EndpointSliceObject,
  KubernetesServicePort,
  ObjectMeta,
  PodObject,
  ServiceObject,
  SliceEndpoint,
} from "../objects.ts";
import type { Field } from "./field.ts";
import { host, ip, subdomain } from "./values.ts";

const PROTOCOLS = ["TCP", "UDP", "SCTP"] as const;
const POD_PHASES = ["", "Pending", "Running", "Succeeded", "Failed", "Unknown"] as const;
const SERVICE_TYPES = ["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"] as const;
const IP_FAMILIES = ["IPv4", "IPv6"] as const;
const ADDRESS_TYPES = ["IPv4", "IPv6", "FQDN"] as const;

function decodeContainerPorts(containers: readonly Field[]): ContainerPort[] {
  return containers.flatMap((container) =>
    container.get("ports").items().map((port) => ({
      name: port.get("name").text(),
      port: port.get("containerPort").required().port(),
      protocol: port.get("protocol").oneOf(PROTOCOLS, "TCP"),
    }))
  );
}

/** Throws FieldRefusal. */
export function decodePod(root: Field, meta: ObjectMeta): PodObject {
  const spec = root.get("spec").required(), status = root.get("status");
  const sidecars = spec.get("initContainers").items().filter((it) => it.get("restartPolicy").text() === "Always");
  const podIps = status.get("podIPs").items().map((item) => ip(item.get("ip")));
  const podIp = status.get("podIP");
  if (podIps.length === 0 && podIp.present && podIp.text() !== "") podIps.push(ip(podIp));
  const conditions = status.get("conditions").items();
  const ready = conditions.find((condition) => condition.get("type").text() === "Ready");
  const account = spec.get("serviceAccountName");
  return {
    kind: "Pod",
    meta,
    // The API server's default.
    serviceAccountName: account.present && account.text() !== "" ? subdomain(account) : "default",
    nodeName: spec.get("nodeName").text(),
    hostNetwork: spec.get("hostNetwork").boolean(),
    containerPorts: [...decodeContainerPorts(spec.get("containers").items()), ...decodeContainerPorts(sidecars)],
    phase: status.get("phase").oneOf(POD_PHASES, ""),
    podIps,
    ready: conditions.length === 0 ? "unstated" : ready?.get("status").text() === "True" ? "true" : "false",
  };
}

function decodeServicePort(field: Field): KubernetesServicePort {
  const port = field.get("port").required().port();
  const target = field.get("targetPort");
  return {
    name: field.get("name").text(),
    protocol: field.get("protocol").oneOf(PROTOCOLS, "TCP"),
    port,
    targetPort: typeof target.value === "string" ? target.text() : target.port(port),
    appProtocol: field.get("appProtocol").text(),
  };
}

/** `None` and the empty string are no addresses (CP-222). */
function clusterIp(field: Field): string {
  return field.value === "None" || field.value === "" ? field.text() : ip(field);
}

/** Throws FieldRefusal. */
export function decodeService(root: Field, meta: ObjectMeta): ServiceObject {
  const spec = root.get("spec").required();
  const single = spec.get("clusterIP"), many = spec.get("clusterIPs").items();
  return {
    kind: "Service",
    meta,
    type: spec.get("type").oneOf(SERVICE_TYPES, "ClusterIP"),
    clusterIps: many.length > 0 ? many.map(clusterIp) : single.present ? [clusterIp(single)] : [],
    ports: spec.get("ports").items().map(decodeServicePort),
    selector: spec.get("selector").textMap(),
    ipFamilies: spec.get("ipFamilies").items().map((item) => item.oneOf(IP_FAMILIES, "IPv4")),
    internalTrafficPolicy: spec.get("internalTrafficPolicy").oneOf(["Cluster", "Local"], "Cluster"),
    trafficDistribution: spec.get("trafficDistribution").text(),
    publishNotReadyAddresses: spec.get("publishNotReadyAddresses").boolean(),
    ingress: root.get("status").get("loadBalancer").get("ingress").items()
      .map((it) => it.get("ip").text() || it.get("hostname").text())
      .filter((it) => it !== ""),
  };
}

/** Throws FieldRefusal. */
export function decodeEndpointSlice(root: Field, meta: ObjectMeta): EndpointSliceObject {
  const addressType = root.get("addressType").required().oneOf(ADDRESS_TYPES, "IPv4");
  const endpoints = root.get("endpoints").items().map((endpoint): SliceEndpoint => {
    const addresses = endpoint.get("addresses").items();
    if (addresses.length === 0) endpoint.get("addresses").fail("must hold at least one address");
    const target = endpoint.get("targetRef");
    return {
      addresses: addresses.map(addressType === "FQDN" ? host : ip),
      ready: endpoint.get("conditions").get("ready").boolean(true),
      target: target.present
        ? {
          kind: target.get("kind").text(),
          namespace: target.get("namespace").text(),
          name: target.get("name").text(),
          uid: target.get("uid").text(),
        }
        : undefined,
    };
  });
  return {
    kind: "EndpointSlice",
    meta,
    addressType,
    endpoints,
    ports: root.get("ports").items().map((port) => ({
      name: port.get("name").text(),
      protocol: port.get("protocol").oneOf(PROTOCOLS, "TCP"),
      port: port.get("port").port(),
    })),
  };
}
