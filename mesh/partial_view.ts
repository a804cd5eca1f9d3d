/** A mesh of which only what was asked for is known: answers as far as it goes, and notes the first name to ask for (ZT-127). */
import { formatIp } from "../base/address.ts";
import type { Policy } from "./policy.ts";
import { type Service, serviceKey } from "./service.ts";
import type { MeshView } from "./view.ts";
import type { Workload } from "./workload.ts";

/** `<network>/<ip>`: the name by which an address is asked for. */
export function addressName(network: string, word0: number, word1: number, word2: number, word3: number): string {
  return `${network}/${formatIp(word0, word1, word2, word3)}`;
}

/**
 * Wraps another view. A decision that was made while {@link missing} is set was made in ignorance: it is to be thrown away,
 * the name asked for, and the decision made again. A name is known when anything at all is found by it.
 */
export class PartialView implements MeshView {
  readonly #known: MeshView;
  readonly #isAbsent: (name: string) => boolean;
  #missing = "";

  /** @param isAbsent whether a name was asked for lately, so that not finding it is an answer. */
  constructor(known: MeshView, isAbsent: (name: string) => boolean) {
    this.#known = known;
    this.#isAbsent = isAbsent;
  }

  /** The first name that was looked up since {@link begin} and is neither known nor absent; empty: none. */
  get missing(): string {
    return this.#missing;
  }

  /** Before each decision. */
  begin(): void {
    this.#missing = "";
  }

  workloadAt(network: string, word0: number, word1: number, word2: number, word3: number): Workload | undefined {
    const workload = this.#known.workloadAt(network, word0, word1, word2, word3);
    if (workload === undefined) this.#checkAddress(network, word0, word1, word2, word3);
    return workload;
  }

  serviceAt(
    network: string,
    word0: number,
    word1: number,
    word2: number,
    word3: number,
    clientNamespace: string | undefined,
  ): Service | undefined {
    const service = this.#known.serviceAt(network, word0, word1, word2, word3, clientNamespace);
    if (service === undefined || !hasVip(service, network, word0, word1, word2, word3)) {
      this.#checkAddress(network, word0, word1, word2, word3);
    }
    return service;
  }

  serviceNamed(namespace: string, hostname: string): Service | undefined {
    const service = this.#known.serviceNamed(namespace, hostname);
    if (service === undefined) this.#checkName(namespace, hostname);
    return service;
  }

  workloadNamed(namespace: string, hostname: string): Workload | undefined {
    const workload = this.#known.workloadNamed(namespace, hostname);
    if (workload === undefined) this.#checkName(namespace, hostname);
    return workload;
  }

  servicesOfHostname(hostname: string): readonly Service[] {
    return this.#known.servicesOfHostname(hostname); // Without its namespace a name cannot be asked for.
  }

  endpointsOf(service: Service): readonly Workload[] {
    return this.#known.endpointsOf(service); // They come with their service.
  }

  policiesFor(workload: Workload): readonly Policy[] {
    return this.#known.policiesFor(workload); // Policies are never on demand.
  }

  /** An address inside a service's range may yet be a workload's own (ZT-017), or another service's VIP: only those count. */
  #checkAddress(network: string, word0: number, word1: number, word2: number, word3: number): void {
    if (this.#missing !== "") return;
    if (this.#known.workloadAt(network, word0, word1, word2, word3) !== undefined) return;
    const service = this.#known.serviceAt(network, word0, word1, word2, word3, undefined);
    if (service !== undefined && hasVip(service, network, word0, word1, word2, word3)) return;
    this.#note(addressName(network, word0, word1, word2, word3));
  }

  #checkName(namespace: string, hostname: string): void {
    if (this.#missing !== "" || this.#known.serviceNamed(namespace, hostname) !== undefined) return;
    if (this.#known.workloadNamed(namespace, hostname) === undefined) this.#note(serviceKey(namespace, hostname));
  }

  #note(name: string): void {
    if (!this.#isAbsent(name)) this.#missing = name;
  }
}

function hasVip(
  service: Service,
  network: string,
  word0: number,
  word1: number,
  word2: number,
  word3: number,
): boolean {
  for (const { network: its, ip, prefixLength } of service.addresses) {
    const same = ip[3] === word3 && ip[2] === word2 && ip[1] === word1 && ip[0] === word0;
    if (prefixLength === undefined && same && its === network) return true;
  }
  return false;
}
