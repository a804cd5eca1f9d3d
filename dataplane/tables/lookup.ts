/** What a worker sees of the mesh: the live snapshot as domain objects, each decoded once and kept while its content stands. */
import { isIpv4 } from "../../base/address.ts";
import type { Policy } from "../../mesh/policy.ts";
import { type Service, serviceKey } from "../../mesh/service.ts";
import type { MeshView } from "../../mesh/view.ts";
import type { Workload } from "../../mesh/workload.ts";
import { DecodeAhead, DECODED_PER_TURN_MAX, grow, type Kept } from "./decode_ahead.ts";
import type { Tables } from "./handles.ts";
import { HEADER, WORKER } from "./layout.ts";
import { EntryKind, maskWord } from "./snapshot_format.ts";
import { decodePolicy, decodeService, decodeWorkload } from "./snapshot_rows.ts";
import { SnapshotSlot } from "./snapshot_slot.ts";

const NO_WORKLOADS: readonly Workload[] = Object.freeze([]);
const NO_POLICIES: readonly Policy[] = Object.freeze([]);

interface KeptPolicies {
  readonly version: number;
  readonly policies: readonly Policy[];
}

/**
 * The mesh as of one generation; {@link refresh} moves on to the next. Unchanged resources keep object identity across
 * generations, so that objects can be keys of caches.
 */
export class SnapshotReader implements MeshView {
  readonly #tables: Tables;
  readonly #worker: number;
  #slot = new SnapshotSlot();
  /** The live snapshot's, while what is needed of it is decoded ahead. */
  #next = new SnapshotSlot();
  readonly #ahead: DecodeAhead;
  #generation = 0;
  /** By row: what was made of it, and of which version. */
  readonly #kept: Kept[] = [];
  readonly #keptVersions: number[] = [];
  readonly #rowOf = new WeakMap<object, number>();
  #policiesOf = new WeakMap<Workload, KeptPolicies>();

  /** @param worker whose row acknowledges; -1 for the agent, which may only read between its own publications. */
  constructor(tables: Tables, worker: number) {
    this.#tables = tables;
    this.#worker = worker;
    this.#ahead = new DecodeAhead(this.#kept, this.#keptVersions, this.#rowOf);
  }

  /** A newer snapshot is live, and what it changes is being decoded; {@link refresh} again soon. */
  get warming(): boolean {
    return this.#ahead.busy;
  }

  /** The generation this reader stands at; 0 before the first. */
  get generation(): number {
    return this.#generation;
  }

  /**
   * Moves to the live snapshot and acknowledges it. Once a turn, and nowhere within one. A worker first decodes anew what
   * it had decoded and has changed, some of it each time, so that no connection pays for ten thousand at once; until
   * then it stays where it is, and the agent leaves that slot alone. @returns Whether it moved.
   */
  refresh(): boolean {
    const generation = this.#tables.header.load(0, HEADER.generation);
    if (generation === this.#generation) return false;
    if (!this.#ahead.busy) {
      this.#next.attach(this.#tables.handles.slots[(generation & 1) as 0 | 1], generation);
      this.#ahead.begin(this.#next);
    }
    if (!this.#ahead.goOn(this.#worker >= 0 ? DECODED_PER_TURN_MAX : Infinity)) return false;
    this.#ahead.finish();
    [this.#slot, this.#next] = [this.#next, this.#slot];
    this.#generation = generation;
    // Everything above reads the new slot only: from here on the agent may rebuild the other one.
    if (this.#worker >= 0) this.#tables.workers.store(this.#worker, WORKER.acknowledgedGeneration, generation);
    return true;
  }

  workloadAt(network: string, word0: number, word1: number, word2: number, word3: number): Workload | undefined {
    const slot = this.#slot, number = slot.networkNumber(network);
    if (number < 0) return undefined;
    let best = -1, bestRank = -1, bestVersion = 0;
    for (
      let at = slot.firstAt(EntryKind.WORKLOAD_AT, 0, number, word0, word1, word2, word3);
      at >= 0;
      at = slot.nextAt(at)
    ) {
      const row = slot.rowAt(at), rank = slot.extraAt(at), version = slot.versionOf(row);
      // Of equals the newest: an address that is used anew belongs to who got it last.
      if (rank < bestRank || (rank === bestRank && ((version - bestVersion) | 0) < 0)) continue;
      best = row;
      bestRank = rank;
      bestVersion = version;
    }
    return best < 0 ? undefined : this.#workload(best);
  }

  serviceAt(
    network: string,
    word0: number,
    word1: number,
    word2: number,
    word3: number,
    clientNamespace: string | undefined,
  ): Service | undefined {
    const slot = this.#slot, number = slot.networkNumber(network);
    if (number < 0) return undefined;
    const first = slot.firstAt(EntryKind.SERVICE_AT, 0, number, word0, word1, word2, word3);
    const exact = this.#bestService(undefined, first, clientNamespace);
    if (exact !== undefined) return exact;
    return this.#serviceAround(number, word0, word1, word2, word3, clientNamespace);
  }

  serviceNamed(namespace: string, hostname: string): Service | undefined {
    const at = this.#slot.firstNamed(EntryKind.SERVICE_NAMED, serviceKey(namespace, hostname));
    return at < 0 ? undefined : this.#service(this.#slot.rowAt(at));
  }

  /** In the order of their keys. */
  servicesOfHostname(hostname: string): readonly Service[] {
    const slot = this.#slot, services: Service[] = [];
    for (let at = slot.firstNamed(EntryKind.HOSTNAME, hostname); at >= 0; at = slot.nextNamed(at)) {
      services.push(this.#service(slot.rowAt(at)));
    }
    return services.sort((a, b) => (keyOf(a) < keyOf(b) ? -1 : 1));
  }

  workloadNamed(namespace: string, hostname: string): Workload | undefined {
    const slot = this.#slot;
    let best = -1, bestVersion = 0;
    const name = serviceKey(namespace, hostname);
    for (let at = slot.firstNamed(EntryKind.WORKLOAD_NAMED, name); at >= 0; at = slot.nextNamed(at)) {
      const row = slot.rowAt(at), version = slot.versionOf(row);
      if (best >= 0 && ((version - bestVersion) | 0) < 0) continue;
      best = row;
      bestVersion = version;
    }
    return best < 0 ? undefined : this.#workload(best);
  }

  endpointsOf(service: Service): readonly Workload[] {
    const slot = this.#slot;
    let row = this.#rowOf.get(service) ?? -1;
    if (row < 0 || this.#kept[row] !== service || slot.versionOf(row) !== this.#keptVersions[row]) {
      // Not of this generation: whoever holds an older object means the service of that name.
      const at = slot.firstNamed(EntryKind.SERVICE_NAMED, serviceKey(service.namespace, service.hostname));
      if (at < 0) return NO_WORKLOADS;
      row = slot.rowAt(at);
    }
    const list = slot.linkOf(row);
    if (list < 0) return NO_WORKLOADS;
    const version = slot.versionOf(list);
    if (this.#keptVersions[list] === version) return this.#kept[list] as readonly Workload[];
    const endpoints: Workload[] = [];
    for (let at = 0, count = slot.listLength(list); at < count; at++) {
      endpoints.push(this.#workload(slot.listItem(list, at)));
    }
    this.#keep(list, version, endpoints);
    return endpoints;
  }

  policiesFor(workload: Workload): readonly Policy[] {
    const slot = this.#slot, version = slot.policiesVersion;
    const kept = this.#policiesOf.get(workload);
    if (kept !== undefined && kept.version === version) return kept.policies;
    const found: Policy[] = [];
    this.#policiesNamed(EntryKind.GLOBAL_POLICIES, "", found);
    this.#policiesNamed(EntryKind.POLICIES_OF, workload.namespace, found);
    for (const key of workload.authorizationPolicies) this.#policiesNamed(EntryKind.POLICY_NAMED, key, found);
    const policies = found.length === 0 ? NO_POLICIES : [...new Set(found)];
    this.#policiesOf.set(workload, { version, policies });
    return policies;
  }

  /** The keys in the workload's `authorizationPolicies` that are not in the snapshot (ZT-106: skipped, with a warning). */
  unknownPoliciesOf(workload: Workload): readonly string[] {
    return workload.authorizationPolicies.filter((key) => this.#slot.firstNamed(EntryKind.POLICY_NAMED, key) < 0);
  }

  /** The workload behind an enrolled pod, as the agent matched it (ZT-016); undefined while it is not known. */
  localWorkload(podRow: number): Workload | undefined {
    const row = this.#slot.podWorkloadRow(podRow);
    return row < 0 ? undefined : this.#workload(row);
  }

  /** The number of a resource's row, or -1 for an object that no snapshot held. With its version it names a content. */
  rowOf(resource: Workload | Service): number {
    return this.#rowOf.get(resource) ?? -1;
  }

  /** The number by which requests to the agent name a network, or -1 if the snapshot knows none of that name. */
  networkNumber(network: string): number {
    return this.#slot.networkNumber(network);
  }

  #policiesNamed(kind: number, name: string, found: Policy[]): void {
    const slot = this.#slot, from = found.length;
    for (let at = slot.firstNamed(kind, name); at >= 0; at = slot.nextNamed(at)) {
      found.push(this.#policy(slot.rowAt(at)));
    }
    if (found.length - from < 2) return;
    // By key, so that verdicts name the same policy in every worker.
    const sorted = found.splice(from).sort((a, b) => (a.key < b.key ? -1 : 1));
    found.push(...sorted);
  }

  /** CIDR VIPs: rank by (in the client's namespace, prefix length, canonical) (ZT-018). */
  #serviceAround(
    network: number,
    word0: number,
    word1: number,
    word2: number,
    word3: number,
    clientNamespace: string | undefined,
  ): Service | undefined {
    const slot = this.#slot, v4 = isIpv4(word0, word1, word2);
    let best: Service | undefined;
    for (let length = v4 ? 32 : 128; length >= 0; length--) {
      if (!slot.hasPrefix(v4, length)) continue;
      const at = v4
        ? slot.firstAt(EntryKind.SERVICE_CIDR, length, network, 0, 0, word2, maskWord(word3, length))
        : slot.firstAt(
          EntryKind.SERVICE_CIDR,
          length,
          network,
          maskWord(word0, length),
          maskWord(word1, length - 32),
          maskWord(word2, length - 64),
          maskWord(word3, length - 96),
        );
      const candidate = this.#bestService(undefined, at, clientNamespace);
      if (candidate === undefined) continue;
      if (candidate.namespace === clientNamespace) return candidate; // Nothing shorter can beat it.
      best ??= candidate;
    }
    return best;
  }

  /** Of the visible services that share a key: one of the client's namespace, else a canonical one, else the first by key. */
  #bestService(best: Service | undefined, first: number, clientNamespace: string | undefined): Service | undefined {
    const slot = this.#slot;
    for (let at = first; at >= 0; at = slot.nextAt(at)) {
      const candidate = this.#service(slot.rowAt(at));
      const own = candidate.namespace === clientNamespace;
      if (candidate.namespaceOnly && clientNamespace !== undefined && !own) continue;
      if (best === undefined || precedes(candidate, best, clientNamespace)) best = candidate;
    }
    return best;
  }

  #workload(row: number): Workload {
    const version = this.#slot.versionOf(row);
    if (this.#keptVersions[row] === version) return this.#kept[row] as Workload;
    return this.#keep(row, version, decodeWorkload(this.#slot, row));
  }

  #service(row: number): Service {
    const version = this.#slot.versionOf(row);
    if (this.#keptVersions[row] === version) return this.#kept[row] as Service;
    return this.#keep(row, version, decodeService(this.#slot, row));
  }

  #policy(row: number): Policy {
    const version = this.#slot.versionOf(row);
    if (this.#keptVersions[row] === version) return this.#kept[row] as Policy;
    return this.#keep(row, version, decodePolicy(this.#slot, row));
  }

  #keep<T extends Workload | Service | Policy | readonly Workload[]>(row: number, version: number, object: T): T {
    grow(this.#kept, this.#keptVersions, row);
    this.#kept[row] = object;
    this.#keptVersions[row] = version;
    this.#rowOf.set(object, row);
    return object;
  }
}

/** Whether a service goes before another that shares its key (ZT-018). */
function precedes(candidate: Service, other: Service, clientNamespace: string | undefined): boolean {
  const own = candidate.namespace === clientNamespace, otherOwn = other.namespace === clientNamespace;
  if (own !== otherOwn) return own;
  if (candidate.canonical !== other.canonical) return candidate.canonical;
  return keyOf(candidate) < keyOf(other); // Rare: it allocates.
}

function keyOf(service: Service): string {
  return serviceKey(service.namespace, service.hostname);
}
