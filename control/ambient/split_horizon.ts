/** Services and workloads of several clusters and networks made one (CP-281 to CP-286). Pure. */
import { formatIdentity } from "../../mesh/identity.ts";
import type { Service, ServiceAddress } from "../../mesh/service.ts";
import { TunnelProtocol, type Workload, WorkloadType } from "../../mesh/workload.ts";
import { addressAlias } from "./addresses.ts";
import { gatewayAddress, type NetworkGateway } from "./network_gateways.ts";
import type { ServiceCandidate } from "./service_candidates.ts";
import { NO_LOCALITY } from "./workload_pod.ts";

function sortedTexts(texts: Iterable<string>): readonly string[] {
  return [...new Set(texts)].sort();
}

/** Every address once, in the order of its text: equal on every replica. */
function mergedAddresses(services: readonly Service[]): readonly ServiceAddress[] {
  const found = new Map<string, ServiceAddress>();
  for (const { addresses } of services) {
    for (const address of addresses) {
      found.set(addressAlias(address.network, address.ip, address.prefixLength), address);
    }
  }
  return [...found].sort(([left], [right]) => left < right ? -1 : 1).map(([, address]) => address);
}

/**
 * One service of its claims in all clusters: the config cluster's as it is, unless it is global; then with the addresses
 * and names of all (CP-281). Without one the first cluster's by id counts.
 *
 * @param own the config cluster's; @param others of other clusters, global ones alone, ordered by cluster.
 */
export function mergedService(
  own: ServiceCandidate | undefined,
  others: readonly ServiceCandidate[],
): ServiceCandidate | undefined {
  const base = own ?? others[0];
  if (base === undefined || !base.global || (own === undefined ? 1 : 0) === others.length) return base;
  const services = [base, ...others].map(({ service }) => service);
  const subjectAltNames = sortedTexts(services.flatMap((service) => service.subjectAltNames));
  return { ...base, service: { ...base.service, addresses: mergedAddresses(services), subjectAltNames } };
}

/** Whether clusters disagree on a service's ports: worth a word, though the base's are used. */
export function portsDiffer(base: ServiceCandidate, others: readonly ServiceCandidate[]): boolean {
  const portsOf = ({ service }: ServiceCandidate) =>
    service.ports.map(({ servicePort, targetPort }) => `${servicePort}:${targetPort}`).sort().join(" ");
  const ports = portsOf(base);
  return others.some((other) => portsOf(other) !== ports);
}

/** Who may answer behind another network's gateway, for double HBONE to check: sorted (CP-284). */
export function identitiesOf(members: readonly Workload[]): readonly string[] {
  return sortedTexts(
    members.filter(({ serviceAccount }) => serviceAccount !== "").map((member) => formatIdentity(member)),
  );
}

/** A service with the identities of its members on other networks. */
export function withIdentities(service: Service, identities: readonly string[]): Service {
  return { ...service, subjectAltNames: sortedTexts([...service.subjectAltNames, ...identities]) };
}

/**
 * What stands for all of a service's members on one other network (CP-282). Its capacity is that of the healthy ones;
 * where none is left it is not healthy itself, which upstream does not say.
 */
export function splitHorizonWorkload(
  key: string,
  { service, gateway, members, trustDomain }: {
    readonly service: Service;
    readonly gateway: NetworkGateway;
    readonly members: readonly Workload[];
    readonly trustDomain: string;
  },
): Workload {
  const uid = `${gateway.network}/SplitHorizonWorkload/${gateway.identity}/${key}`;
  const healthy = members.filter((member) => member.healthy), counted = healthy.length > 0 ? healthy : members;
  return {
    uid,
    name: uid,
    namespace: service.namespace,
    addresses: [],
    hostname: "",
    network: gateway.network,
    tunnelProtocol: TunnelProtocol.HBONE,
    trustDomain,
    serviceAccount: "",
    networkGateway: gatewayAddress(gateway),
    node: "",
    canonicalName: "",
    canonicalRevision: "",
    workloadType: WorkloadType.POD,
    workloadName: "",
    nativeTunnel: false,
    authorizationPolicies: [],
    healthy: healthy.length > 0,
    clusterId: gateway.clusterId,
    locality: NO_LOCALITY,
    services: new Map([[key, service.ports.map(({ servicePort, targetPort }) => ({ servicePort, targetPort }))]]),
    hostNetwork: false,
    capacity: counted.reduce((sum, { capacity }) => sum + capacity, 0),
  };
}
