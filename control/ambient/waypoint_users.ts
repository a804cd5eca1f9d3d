/** Who goes through a waypoint: the names by which addresses refer to theirs, and back from a name (CP-424, CP-593). */
import type { Service } from "../../mesh/service.ts";
import { serviceKey } from "../../mesh/service.ts";
import type { GatewayAddress, Workload } from "../../mesh/workload.ts";
import type { Engine } from "../collect/engine.ts";
import type { Index } from "../collect/store.ts";
import { objectKey, type ObjectKind } from "../objects.ts";
import { addressAlias } from "./addresses.ts";
import { suffixOfCluster } from "./clusters.ts";
import type { AmbientGraph } from "./graph.ts";

/** A waypoint as an address refers to it: `namespace/hostname`, or `network/ip`, which are names to look it up by. */
export function waypointName({ address, hostname }: GatewayAddress): string | undefined {
  if (hostname !== undefined) return serviceKey(hostname.namespace, hostname.hostname);
  return address && addressAlias(address.network, address.ip);
}

function namesOf(references: readonly (GatewayAddress | undefined)[]): readonly string[] {
  const names = references.map((it) => it && waypointName(it)).filter((it) => it !== undefined);
  return names.length > 1 ? [...new Set(names)] : names;
}

/** The waypoints of a service: its own, or the weighted ones, of which the first is its own. */
export function waypointsOfService({ waypoint, weightedWaypoints }: Service): readonly string[] {
  return namesOf([waypoint, ...weightedWaypoints.map((it) => it.destination)]);
}

export function waypointsOfWorkload({ waypoint }: Workload): readonly string[] {
  return waypoint === undefined ? [] : namesOf([waypoint]);
}

/** The kind, namespace and name in the uid of a workload that an object yielded (CP table 3.1). */
const UID = /^[^/]*\/[^/]*\/(Pod|WorkloadEntry|ServiceEntry)\/([^/]+)\/([^/]+)/;

/** Answers who goes through a waypoint, by its name. */
export class WaypointUsers {
  readonly #graph: AmbientGraph;
  readonly #services: Index<Service>;
  readonly #workloads: Index<Workload>;
  readonly #clusterId: string;

  /** Before anything is in the graph. */
  constructor(engine: Engine, graph: AmbientGraph, clusterId: string) {
    this.#graph = graph;
    this.#clusterId = clusterId;
    this.#services = engine.index(graph.services, "services by waypoint", waypointsOfService);
    this.#workloads = engine.index(graph.workloads, "workloads by waypoint", waypointsOfWorkload);
  }

  /** Oldest first, then by key: the same order on every replica. */
  services(name: string): readonly Service[] {
    return inOrder(this.#services.get(name), (service) => {
      const key = serviceKey(service.namespace, service.hostname);
      return [this.#graph.winners.get(key)?.createdAtMs ?? 0, key];
    });
  }

  /** Oldest first, then by uid. */
  workloads(name: string): readonly Workload[] {
    return inOrder(this.#workloads.get(name), (workload) => [this.#createdAtMs(workload), workload.uid]);
  }

  #createdAtMs({ uid, clusterId }: Workload): number {
    const [, kind, namespace, name] = UID.exec(uid) ?? [];
    if (kind === undefined) return 0;
    const source = this.#graph.sources[kind as Extract<ObjectKind, "Pod" | "WorkloadEntry" | "ServiceEntry">];
    const suffix = suffixOfCluster(clusterId === this.#clusterId ? undefined : clusterId);
    return source.get(objectKey(kind, namespace!, name!) + suffix)?.meta.createdAtMs ?? 0;
  }
}

function inOrder<T>(
  items: readonly T[],
  rankOf: (item: T) => readonly [createdAtMs: number, key: string],
): readonly T[] {
  const ranked = items.map((item) => [rankOf(item), item] as const);
  ranked.sort(([[leftMs, left]], [[rightMs, right]]) => leftMs - rightMs || (left < right ? -1 : 1));
  return ranked.map(([, item]) => item);
}
