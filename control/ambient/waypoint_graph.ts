/** From Gateways, their classes and the pods behind them to the waypoints of the mesh. */
import type { Policy } from "../../mesh/policy.ts";
import type { Engine } from "../collect/engine.ts";
import type { Collection } from "../collect/store.ts";
import type { Fetch } from "../collect/tracker.ts";
import { objectKey, type ObjectMeta } from "../objects.ts";
import { type ClusterSuffix, suffixOf } from "./clusters.ts";
import type { AmbientOptions, Problem } from "./options.ts";
import { type NetworkCollections, placeOfCluster } from "./network_graph.ts";
import type { ServiceCandidate } from "./service_candidates.ts";
import type { Inputs, Sources } from "./sources.ts";
import { type Waypoint, waypointKey, waypointOf } from "./waypoint.ts";
import { type FindWaypoint, GATEWAY_NAME, type WorkloadBinding } from "./waypoint_binding.ts";
import { allowWaypointPolicy, allowWaypointReferences } from "./waypoint_policies.ts";

export interface WaypointCollections {
  /** Usable ones, by `namespace/name`, and the suffix of its cluster. */
  readonly usable: Collection<Waypoint>;
  /** By `namespace/name`: the accounts that the pods of a Gateway run as, in all clusters, sorted; of any that has pods (CP-267). */
  readonly accounts: Collection<readonly string[]>;
  /** What lets them reach what is behind them, by `namespace/name` of the waypoints (CP-361). */
  readonly allowing: Collection<Policy>;
  readonly problems: Collection<Problem>;
}

/** Builds the part of the graph that yields waypoints. */
export function buildWaypoints(
  engine: Engine,
  { sources, mesh, networks }: Inputs & { readonly networks: NetworkCollections },
  options: AmbientOptions,
): WaypointCollections {
  const { items, problems } = engine.deriveOutcomes("waypoints of Gateways", sources.Gateway, (gateway, fetch, key) => {
    const gatewayClass = fetch.one(sources.GatewayClass, objectKey("GatewayClass", "", gateway.className));
    const suffix = suffixOf(key), place = placeOfCluster(networks, suffix, fetch);
    const outcome = place && waypointOf(gateway, gatewayClass, place.network);
    return outcome && { ...outcome, items: outcome.items.map(([name, it]) => [name + suffix, it] as const) };
  });
  const podsByGateway = engine.index(sources.Pod, "pods by Gateway", ({ meta, phase }) => {
    const name = meta.labels.get(GATEWAY_NAME) ?? "";
    const over = phase === "Failed" || phase === "Succeeded";
    return name === "" || over ? [] : [waypointKey(meta.namespace, name)];
  });
  const accounts = engine.group(
    "waypoint accounts",
    podsByGateway,
    (pods): readonly string[] => [...new Set(pods.map((pod) => pod.serviceAccountName))].sort(),
  );
  const byName = engine.index(items, "waypoints by name", ({ key }) => [key]);
  const allowing = engine.group("waypoint policies", byName, (_, fetch, key) => {
    const named = options.autoAllowWaypoints ? fetch.one(accounts, key) : undefined;
    return named && allowWaypointPolicy(key, named, fetch.value(mesh.trustDomain));
  });
  return { usable: items, accounts, allowing, problems };
}

/** How a transform finds waypoints: what it asked for is remembered, so that it runs again when that comes or goes. */
export function finderOf(waypoints: WaypointCollections, suffix: ClusterSuffix, fetch: Fetch): FindWaypoint {
  return (key) => fetch.one(waypoints.usable, key + suffix);
}

/** A namespace, if there is one. */
export function namespaceMeta(
  sources: Sources,
  name: string,
  suffix: ClusterSuffix,
  fetch: Fetch,
): ObjectMeta | undefined {
  return fetch.one(sources.Namespace, objectKey("Namespace", "", name) + suffix)?.meta;
}

/** The waypoints that a workload is reached through: its own, and those of services in front of it. */
export function waypointsOf(
  binding: WorkloadBinding,
  candidates: readonly ServiceCandidate[],
): readonly (string | undefined)[] {
  return [binding.waypoint?.key, ...candidates.flatMap((it) => [it.binding.waypoint, it.binding.canary])];
}

/** The policies that let these waypoints through, as workloads name them. */
export function policiesOfWaypoints(
  { allowing }: WaypointCollections,
  keys: readonly (string | undefined)[],
  fetch: Fetch,
): readonly string[] {
  return allowWaypointReferences(keys, (key) => fetch.one(allowing, key) !== undefined);
}
