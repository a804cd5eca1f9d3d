/** For tests: workloads, services and policies of which only what matters is written down. */
import { type IpWords, parseIp } from "../base/address.ts";
import { EMPTY_MATCH, type Policy, type PolicyMatch } from "./policy.ts";
import type { Service } from "./service.ts";
import type { GatewayAddress, PortMapping, Workload } from "./workload.ts";

export function ip(text: string): IpWords {
  const words = parseIp(text);
  if (words === undefined) throw new TypeError(`not an IP address: ${text}`);
  return words;
}

/** A healthy pod of namespace `ns1` that speaks no HBONE; its uid and service account follow its name. */
export function workload(name: string, addresses: string, fields: Partial<Workload> = {}): Workload {
  return {
    uid: `cluster1//Pod/${fields.namespace ?? "ns1"}/${name}`,
    name,
    namespace: "ns1",
    addresses: addresses.split(" ").filter((text) => text !== "").map(ip),
    hostname: "",
    network: "",
    tunnelProtocol: 0,
    trustDomain: "cluster.local",
    serviceAccount: name,
    waypoint: undefined,
    networkGateway: undefined,
    node: "",
    canonicalName: "",
    canonicalRevision: "",
    workloadType: 2,
    workloadName: name,
    nativeTunnel: false,
    applicationTunnel: undefined,
    authorizationPolicies: [],
    healthy: true,
    clusterId: "Kubernetes",
    locality: { region: "", zone: "", subzone: "" },
    services: new Map(),
    hostNetwork: false,
    capacity: 1,
    ...fields,
  };
}

/** A service of namespace `ns1`, hostname `<name>.example`. VIPs as `ip` or `ip/length`; ports as in {@link ports}. */
export function service(name: string, vips: string, portsText: string, fields: Partial<Service> = {}): Service {
  const addresses = vips.split(" ").filter((text) => text !== "").map((text) => {
    const [address, length] = text.split("/");
    const base = { network: "", ip: ip(address!) };
    return length === undefined ? base : { ...base, prefixLength: Number(length) };
  });
  return {
    name,
    namespace: "ns1",
    hostname: `${name}.example`,
    addresses,
    ports: ports(portsText),
    subjectAltNames: [],
    waypoint: undefined,
    weightedWaypoints: [],
    loadBalancing: undefined,
    ipFamilies: 0,
    canonical: false,
    ingressUseWaypoint: false,
    namespaceOnly: false,
    ...fields,
  };
}

/** `80:8080 81:0` as port mappings. */
export function ports(text: string): PortMapping[] {
  return text.split(" ").filter((pair) => pair !== "").map((pair) => {
    const [servicePort, targetPort] = pair.split(":").map(Number);
    return { servicePort: servicePort!, targetPort: targetPort! };
  });
}

/** A workload's services: `{ "ns1/a.example": "80:8080" }`. */
export function serving(services: Record<string, string>): Map<string, PortMapping[]> {
  return new Map(Object.entries(services).map(([key, text]) => [key, ports(text)]));
}

/** A reference `ip` or `namespace/hostname`, port 15008. */
export function reference(text: string, hboneMtlsPort = 15008, network = ""): GatewayAddress {
  const [namespace, hostname] = text.split("/");
  if (hostname !== undefined) return { hostname: { namespace: namespace!, hostname }, hboneMtlsPort };
  return { address: { network, ip: ip(text) }, hboneMtlsPort };
}

export function match(fields: Partial<PolicyMatch> = {}): PolicyMatch {
  return { ...EMPTY_MATCH, ...fields };
}

/** An ALLOW policy of namespace `ns1` for that namespace, without rules. */
export function policy(name: string, fields: Partial<Policy> = {}): Policy {
  const namespace = fields.namespace ?? "ns1";
  return { key: `${namespace}/${name}`, name, namespace, scope: 1, action: 0, rules: [], dryRun: false, ...fields };
}

/** The seeds of a fuzz test: 200, always the same, unless FUZZ_ROUNDS asks for more (`deno task fuzz`). */
export function seeds(): number[] {
  const rounds = Number(Deno.env.get("FUZZ_ROUNDS") ?? "1");
  return Array.from({ length: 200 * rounds }, (_, seed) => seed + 1);
}
