/** A MeshView over plain arrays: what tests decide with, and the oracle for the data plane's view in shared memory. */
import { formatIp, type IpWords, prefixContains } from "../base/address.ts";
import { type Policy, PolicyScope } from "./policy.ts";
import { type Service, serviceKey } from "./service.ts";
import type { MeshView } from "./view.ts";
import { TunnelProtocol, type Workload } from "./workload.ts";

/** Everything known of a mesh; keys (uid, `namespace/hostname`, policy key) are unique. */
export interface MeshState {
  readonly workloads?: readonly Workload[];
  readonly services?: readonly Service[];
  readonly policies?: readonly Policy[];
}

/**
 * Derives every answer from the whole state by scanning it: slow, and plainly right. Staging (ZT-138) and replacement
 * (ZT-136, ZT-139) need no code: an endpoint counts once its service is in the state. Where the rules leave a tie, services
 * and policies go by key, and of workloads the one given last (the newest) is meant.
 */
export class PlainMeshView implements MeshView {
  readonly #workloads: readonly Workload[];
  readonly #services: readonly Service[];
  readonly #policies: readonly Policy[];

  constructor(state: MeshState) {
    this.#workloads = state.workloads ?? [];
    this.#services = sortedBy(state.services ?? [], (service) => serviceKey(service.namespace, service.hostname));
    this.#policies = sortedBy(state.policies ?? [], (policy) => policy.key);
  }

  workloadAt(network: string, word0: number, word1: number, word2: number, word3: number): Workload | undefined {
    const text = formatIp(word0, word1, word2, word3);
    const owners = this.#workloads.filter((workload) =>
      !workload.hostNetwork && workload.network === network && workload.addresses.some((ip) => formatIp(...ip) === text)
    );
    return best(owners.reverse(), addressPreference);
  }

  serviceAt(
    network: string,
    word0: number,
    word1: number,
    word2: number,
    word3: number,
    clientNamespace: string | undefined,
  ): Service | undefined {
    const visible = this.#services.filter((service) =>
      !service.namespaceOnly || clientNamespace === undefined || service.namespace === clientNamespace
    );
    const inNamespace = (service: Service) => service.namespace === clientNamespace ? 1 : 0;
    const text = formatIp(word0, word1, word2, word3);
    const exact = visible.filter((service) =>
      service.addresses.some((address) =>
        address.network === network && address.prefixLength === undefined && formatIp(...address.ip) === text
      )
    );
    if (exact.length > 0) return best(exact, (service) => inNamespace(service) * 2 + (service.canonical ? 1 : 0));
    const ip: IpWords = [word0, word1, word2, word3];
    const ranges = visible.filter((service) => longestPrefix(service, network, ip) >= 0);
    return best(
      ranges,
      (service) => inNamespace(service) * 1_000 + longestPrefix(service, network, ip) * 2 + (service.canonical ? 1 : 0),
    );
  }

  serviceNamed(namespace: string, hostname: string): Service | undefined {
    return this.#services.find((service) => service.namespace === namespace && service.hostname === hostname);
  }

  servicesOfHostname(hostname: string): readonly Service[] {
    return this.#services.filter((service) => service.hostname === hostname);
  }

  workloadNamed(namespace: string, hostname: string): Workload | undefined {
    return this.#workloads.findLast((workload) => workload.namespace === namespace && workload.hostname === hostname);
  }

  endpointsOf(service: Service): readonly Workload[] {
    const key = serviceKey(service.namespace, service.hostname);
    const unhealthyToo = service.loadBalancing?.allowUnhealthy === true;
    return this.#workloads.filter((workload) => workload.services.has(key) && (workload.healthy || unhealthyToo));
  }

  policiesFor(workload: Workload): readonly Policy[] {
    const named = workload.authorizationPolicies.map((key) => this.#policies.find((policy) => policy.key === key));
    const inForce = [
      ...this.#policies.filter((policy) => policy.scope === PolicyScope.GLOBAL),
      ...this.#policies.filter((policy) =>
        policy.scope === PolicyScope.NAMESPACE && policy.namespace === workload.namespace
      ),
      ...named.filter((policy) => policy !== undefined),
    ];
    return [...new Set(inForce)];
  }
}

/** Which of several owners of an address is meant (ZT-024). */
function addressPreference(workload: Workload): number {
  const pod = workload.uid.includes("//Pod/") ? 2 : 0;
  return pod + (workload.tunnelProtocol === TunnelProtocol.HBONE ? 1 : 0);
}

/** The longest of the service's ranges that holds the address, or -1. */
function longestPrefix(service: Service, network: string, ip: IpWords): number {
  let longest = -1;
  for (const address of service.addresses) {
    if (address.network !== network || address.prefixLength === undefined) continue;
    if (prefixContains(address.ip, address.prefixLength, ...ip)) longest = Math.max(longest, address.prefixLength);
  }
  return longest;
}

function sortedBy<T>(items: readonly T[], key: (item: T) => string): readonly T[] {
  return items.toSorted((left, right) => key(left) < key(right) ? -1 : key(left) > key(right) ? 1 : 0);
}

/** The first of those with the highest score. */
function best<T>(items: readonly T[], score: (item: T) => number): T | undefined {
  let chosen: T | undefined, highest = -1;
  for (const item of items) {
    const own = score(item);
    if (own > highest) [chosen, highest] = [item, own];
  }
  return chosen;
}
