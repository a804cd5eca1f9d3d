/** What the mesh itself answers to a question for addresses (ZT-178 to ZT-187): pure, from services and their endpoints. */
import { type IpWords, isIpv4 } from "../../../base/address.ts";
import { IpFamilies, type Service, serviceKey } from "../../../mesh/service.ts";
import type { Workload } from "../../../mesh/workload.ts";
import { Type } from "../../../wire/dns/message.ts";
import { candidates, hasDomain, hostnamesFor, searchDomains } from "./names.ts";

/** What is asked of the mesh state. */
export interface DnsMesh {
  /** Every service of that hostname in lower case, in the order they became known. */
  servicesOfHostname(hostname: string): Iterable<Service>;
  /** A service's stored endpoints (ZT-137). */
  storedEndpoints(key: string): readonly Workload[];
}

/** Whoever asks: the workload of the pod whose listener took the query (ZT-177). */
export interface DnsClient {
  readonly namespace: string;
  readonly network: string;
}

export interface AnswerSettings {
  /** In lower case. */
  readonly clusterDomain: string;
  /** Search domains that all clients have; undefined: those that Kubernetes gives a pod, by its namespace (ZT-180). */
  readonly search: readonly string[] | undefined;
  /** PREFERED_SERVICE_NAMESPACE; empty for none. */
  readonly preferredNamespace: string;
  /** IPV6_ENABLED: without it no AAAA record is given (ZT-183). */
  readonly ipv6: boolean;
}

/** An answer of our own. Without addresses it says that the name exists and has none of that family (ZT-183). */
export interface LocalAnswer {
  readonly service: Service;
  /** The name that the addresses belong to, when it is not the one that was asked (ZT-184). */
  readonly alias: string | undefined;
  readonly addresses: readonly IpWords[];
}

/**
 * Answers a question for A or AAAA. @param name lower case, without closing dot. @param random gives a number in [0, 1).
 * @returns undefined if the mesh does not know the name: the query is to be forwarded.
 */
export function answerLocally(
  mesh: DnsMesh,
  question: { readonly name: string; readonly type: number; readonly client: DnsClient },
  settings: AnswerSettings,
  random: () => number,
): LocalAnswer | undefined {
  const { name, type, client } = question;
  if (name === "" || (type !== Type.A && type !== Type.AAAA)) return undefined; // ZT-178
  const { clusterDomain } = settings, search = settings.search ?? searchDomains(client.namespace, clusterDomain);
  for (const candidate of candidates(name, client.namespace, { clusterDomain, search })) {
    for (const hostname of hostnamesFor(candidate.name)) {
      const service = choose(mesh.servicesOfHostname(hostname), client, settings);
      if (service === undefined) continue;
      const addresses = familyAllowed(service, type, settings) ? addressesOf(mesh, service, type, client) : [];
      const alias = hostname.startsWith("*.") ? undefined : candidate.stripped;
      return { service, alias, addresses: shuffled(addresses, random) };
    }
  }
  return undefined;
}

/** The best of the services that may answer at all: own namespace, canonical, preferred namespace, first (ZT-182). */
function choose(services: Iterable<Service>, client: DnsClient, settings: AnswerSettings): Service | undefined {
  let best: Service | undefined, bestRank = -1;
  for (const service of services) {
    if (service.addresses.length === 0 && !isHeadless(service, settings)) continue;
    if (service.namespaceOnly && service.namespace !== client.namespace) continue; // ZT-141
    const rank = service.namespace === client.namespace
      ? 3
      : service.canonical
      ? 2
      : service.namespace === settings.preferredNamespace
      ? 1
      : 0;
    if (rank > bestRank) [best, bestRank] = [service, rank];
  }
  return best;
}

/** Only Kubernetes' own services are known to be headless; any other without a VIP has its addresses elsewhere. */
function isHeadless(service: Service, { clusterDomain }: AnswerSettings): boolean {
  return hasDomain(service.hostname.toLowerCase(), `svc.${clusterDomain}`);
}

function familyAllowed(service: Service, type: number, settings: AnswerSettings): boolean {
  if (type === Type.AAAA) return settings.ipv6 && service.ipFamilies !== IpFamilies.IPV4_ONLY;
  return service.ipFamilies !== IpFamilies.IPV6_ONLY;
}

function addressesOf(mesh: DnsMesh, service: Service, type: number, client: DnsClient): IpWords[] {
  const asked = (ip: IpWords) => isIpv4(ip[0], ip[1], ip[2]) === (type === Type.A);
  if (service.addresses.length > 0) {
    return service.addresses.filter(({ network, ip }) => network === client.network && asked(ip)).map(({ ip }) => ip);
  }
  const addresses: IpWords[] = [];
  for (const endpoint of mesh.storedEndpoints(serviceKey(service.namespace, service.hostname))) {
    const address = endpoint.addresses.find(asked);
    if (address !== undefined) addresses.push(address);
  }
  return addresses;
}

/** In random order, each order as likely as any (Fisher and Yates). */
function shuffled(addresses: readonly IpWords[], random: () => number): IpWords[] {
  const order = [...addresses];
  for (let left = order.length; left > 1; left--) {
    const at = Math.floor(random() * left), last = order[left - 1]!;
    order[left - 1] = order[at]!;
    order[at] = last;
  }
  return order;
}
