/** The mesh as clients are told of it: encoded resources, kept current by object changes, with news to subscribers. */
import { assert } from "../../base/assert.ts";
import type { Logger } from "../../base/log.ts";
import { AUTHORIZATION_TYPE_URL, encodeAuthorization } from "../../mesh/proto/authorization_codec.ts";
import { ADDRESS_TYPE_URL, encodeServiceAddress, encodeWorkloadAddress } from "../../mesh/proto/workload_codec.ts";
import type { Service } from "../../mesh/service.ts";
import { serviceKey } from "../../mesh/service.ts";
import type { Workload } from "../../mesh/workload.ts";
import { Engine } from "../collect/engine.ts";
import type { Change, Collection, Index } from "../collect/store.ts";
import type { ObjectChange } from "../objects.ts";
import type { Resource, ResourceChange, ResourceView } from "../xds/resources.ts";
import { addressAlias, rangeAliases } from "./addresses.ts";
import { type AmbientGraph, buildAmbientGraph } from "./graph.ts";
import { AMBIENT_DEFAULTS, type AmbientOptions } from "./options.ts";
import { SharedValues } from "../shared_values.ts";
import { withdrawCluster, writeObject } from "./sources.ts";
import { versionOf } from "./version.ts";
import { waypointsOfService, waypointsOfWorkload, WaypointUsers } from "./waypoint_users.ts";

type Listener = (change: ResourceChange) => void;

function resource(name: string, aliases: readonly string[], bytes: Uint8Array): Resource {
  // A copy: what the encoder returns is a part of a pool, all of which would be kept.
  return { name, aliases, bytes: bytes.slice(), version: versionOf(bytes) };
}

function withWaypoints(plain: Resource, waypoints: readonly string[]): Resource {
  return waypoints.length === 0 ? plain : { ...plain, waypoints };
}

function resourceOfWorkload(workload: Workload): Resource {
  const aliases = workload.addresses.map((ip) => addressAlias(workload.network, ip));
  return withWaypoints(resource(workload.uid, aliases, encodeWorkloadAddress(workload)), waypointsOfWorkload(workload));
}

function resourceOfService(service: Service): Resource {
  const aliases = service.addresses.map(({ network, ip, prefixLength }) => addressAlias(network, ip, prefixLength));
  const plain = resource(serviceKey(service.namespace, service.hostname), aliases, encodeServiceAddress(service));
  return withWaypoints(plain, waypointsOfService(service));
}

/**
 * Derives workloads, services and policies from objects, wherever those come from, and serves them by name and alias.
 * Construct it, then feed it with {@link apply}. Content that did not change is never announced again (CP-444), and its
 * resource stays the same object.
 */
export class AmbientIndex implements ResourceView {
  readonly options: AmbientOptions;
  readonly graph: AmbientGraph;
  /** Who goes through which waypoint. */
  readonly waypointUsers: WaypointUsers;
  readonly #engine = new Engine();
  readonly #shared = new SharedValues();
  readonly #workloads: Collection<Resource>;
  readonly #services: Collection<Resource>;
  readonly #policies: Collection<Resource>;
  readonly #workloadsByAlias: Index<Resource>;
  readonly #servicesByAlias: Index<Resource>;
  readonly #workloadsByService: Index<Workload>;
  readonly #workloadsByNode: Index<Workload>;
  readonly #listeners = new Set<Listener>();
  #generation = 0;
  #addressChanges: Change<Resource>[] = [];
  #policyChanges: readonly Change<Resource>[] = [];

  constructor(options: Partial<AmbientOptions> = {}, log?: Logger) {
    this.options = { ...AMBIENT_DEFAULTS, ...options };
    const engine = this.#engine;
    this.graph = buildAmbientGraph(engine, this.options);
    this.waypointUsers = new WaypointUsers(engine, this.graph, this.options.clusterId);
    this.#workloads = engine.derive("workload resources", this.graph.workloads, resourceOfWorkload);
    this.#services = engine.derive("service resources", this.graph.services, resourceOfService);
    this.#policies = engine.derive(
      "policy resources",
      this.graph.policies,
      (policy) => resource(policy.key, [], encodeAuthorization(policy)),
    );
    this.#workloadsByAlias = engine.index(this.#workloads, "workloads by alias", ({ aliases }) => aliases);
    this.#servicesByAlias = engine.index(this.#services, "services by alias", ({ aliases }) => aliases);
    this.#workloadsByService = engine.index(
      this.graph.workloads,
      "workloads by service",
      (it) => [...it.services.keys()],
    );
    this.#workloadsByNode = engine.index(
      this.graph.workloads,
      "workloads by node",
      ({ node }) => node === "" ? [] : [node],
    );
    engine.subscribe(this.#policies, (changes) => this.#policyChanges = changes);
    engine.subscribe(this.#services, (changes) => this.#addressChanges.push(...changes));
    engine.subscribe(this.#workloads, (changes) => this.#addressChanges.push(...changes));
    if (log !== undefined) this.#logProblems(log);
  }

  #logProblems(log: Logger): void {
    this.#engine.subscribe(this.graph.problems, (changes) => {
      for (const { after } of changes) {
        if (after === undefined) continue;
        log.warn("object not in the mesh as written", {
          object: after.object,
          reason: after.reason,
          detail: after.message,
        });
      }
    });
  }

  /**
   * Takes a batch of object changes and tells the subscribers what came of it: policies that came or changed, then
   * addresses, then policies that went. So no workload is ever told of a policy that its readers lack (CP-427).
   */
  apply(changes: readonly ObjectChange[]): void {
    for (const change of changes) {
      const { object } = change;
      const kept = object === undefined ? change : { ...change, object: this.#shared.of(object) };
      writeObject(this.graph, kept, this.options);
    }
    this.#settle();
  }

  /** Takes a cluster that is gone out of the mesh, all of it at once (CP-285). */
  withdraw(cluster: string): void {
    withdrawCluster(this.graph, cluster);
    this.#settle();
  }

  #settle(): void {
    this.#engine.settle();
    const addresses = this.#addressChanges, policies = this.#policyChanges;
    this.#addressChanges = [];
    this.#policyChanges = [];
    if (addresses.length + policies.length > 0) this.#generation++;
    this.#announce(AUTHORIZATION_TYPE_URL, policies.filter(({ after }) => after !== undefined));
    this.#announce(ADDRESS_TYPE_URL, addresses);
    this.#announce(AUTHORIZATION_TYPE_URL, policies.filter(({ after }) => after === undefined));
  }

  get generation(): number {
    return this.#generation;
  }

  #announce(typeUrl: string, changes: readonly Change<Resource>[]): void {
    if (changes.length === 0) return;
    const updated: Resource[] = [], removed: string[] = [], waypoints = new Map<string, readonly string[]>();
    for (const { key, before, after } of changes) {
      const referred = new Set([...before?.waypoints ?? [], ...after?.waypoints ?? []]);
      if (referred.size > 0) waypoints.set(key, [...referred]);
      if (after === undefined) removed.push(key);
      else updated.push(after);
    }
    const change: ResourceChange = {
      typeUrl,
      updated,
      removed: removed.sort(),
      ...(waypoints.size > 0 && { waypoints }),
    };
    for (const listener of [...this.#listeners]) listener(change);
  }

  /** Everything that is derived, and what from, for the debug page. */
  collections(): readonly Collection<unknown>[] {
    return this.#engine.collections();
  }

  /** Calls back after each settling that changed one of the graph's collections, for as long as the index lives. */
  follow<T>(collection: Collection<T>, listener: (changes: readonly Change<T>[]) => void): void {
    this.#engine.subscribe(collection, listener);
  }

  /** Calls back for every later change, until the returned function is called. The listener must not call {@link apply}. */
  subscribe(listener: Listener): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  /** Every resource of a type: for addresses services first, then workloads; none of a type unknown here. */
  *all(typeUrl: string): IterableIterator<Resource> {
    if (typeUrl === AUTHORIZATION_TYPE_URL) { for (const [, it] of this.#policies.entries()) yield it; }
    if (typeUrl !== ADDRESS_TYPE_URL) return;
    for (const [, it] of this.#services.entries()) yield it;
    for (const [, it] of this.#workloads.entries()) yield it;
  }

  /**
   * What a name stands for, the first that hits: uid, a workload's address, a service's name, its address (CP-418), and
   * then, which upstream leaves out, every service whose range holds the address: clients would bypass it.
   */
  lookup(typeUrl: string, name: string): readonly Resource[] {
    if (typeUrl === AUTHORIZATION_TYPE_URL) {
      const policy = this.#policies.get(name);
      return policy === undefined ? [] : [policy];
    }
    if (typeUrl !== ADDRESS_TYPE_URL) return [];
    const workload = this.#workloads.get(name);
    if (workload !== undefined) return [workload];
    const workloads = this.#workloadsByAlias.get(name);
    if (workloads.length > 0) return workloads;
    const service = this.#services.get(name);
    const services = service === undefined ? this.#servicesByAlias.get(name) : [service];
    const found = new Set<Resource>(services);
    if (found.size === 0) {
      for (const alias of rangeAliases(name)) for (const it of this.#servicesByAlias.get(alias)) found.add(it);
    }
    for (const { name: key } of [...found]) for (const it of this.workloadsOfService(key)) found.add(it);
    return [...found];
  }

  /** The workloads behind a service, by `namespace/hostname`. */
  workloadsOfService(key: string): readonly Resource[] {
    return this.#workloadsByService.get(key).map((it) => this.#resourceOf(it));
  }

  /** The workloads on a node (CP-419). */
  workloadsOnNode(node: string): readonly Resource[] {
    return this.#workloadsByNode.get(node).map((it) => this.#resourceOf(it));
  }

  #resourceOf(workload: Workload): Resource {
    const found = this.#workloads.get(workload.uid);
    assert(found !== undefined, "every workload has its resource");
    return found;
  }
}
