/** From Gateways, their classes and the pods behind them to the waypoints of the mesh. */
import type { Engine } from "../collect/engine.ts";
import type { Collection } from "../collect/store.ts";
import type { Fetch } from "../collect/tracker.ts";
import { objectKey, type ObjectMeta } from "../objects.ts";
import { type ClusterSuffix, suffixOf } from "./clusters.ts";
import type { Problem } from "./options.ts";
import { type NetworkCollections, placeOfCluster } from "./network_graph.ts";
import type { Sources } from "./sources.ts";
import { type Waypoint, waypointKey, waypointOf } from "./waypoint.ts";
import { type FindWaypoint, GATEWAY_NAME } from "./waypoint_binding.ts";

export interface WaypointCollections {
  /** Usable ones, by `namespace/name`, and the suffix of its cluster. */
  readonly usable: Collection<Waypoint>;
  /** By the same keys: the accounts that the pods of a Gateway run as, sorted; of any Gateway that has pods (CP-267). */
  readonly accounts: Collection<readonly string[]>;
  readonly problems: Collection<Problem>;
}

/** Builds the part of the graph that yields waypoints. */
export function buildWaypoints(engine: Engine, sources: Sources, networks: NetworkCollections): WaypointCollections {
  const { items, problems } = engine.deriveOutcomes("waypoints of Gateways", sources.Gateway, (gateway, fetch, key) => {
    const gatewayClass = fetch.one(sources.GatewayClass, objectKey("GatewayClass", "", gateway.className));
    const suffix = suffixOf(key), place = placeOfCluster(networks, suffix, fetch);
    const outcome = place && waypointOf(gateway, gatewayClass, place.network);
    return outcome && { ...outcome, items: outcome.items.map(([name, it]) => [name + suffix, it] as const) };
  });
  const podsByGateway = engine.index(sources.Pod, "pods by Gateway", ({ meta, phase }, key) => {
    const name = meta.labels.get(GATEWAY_NAME) ?? "";
    const over = phase === "Failed" || phase === "Succeeded";
    return name === "" || over ? [] : [waypointKey(meta.namespace, name) + suffixOf(key)];
  });
  const accounts = engine.group(
    "waypoint accounts",
    podsByGateway,
    (pods): readonly string[] => [...new Set(pods.map((pod) => pod.serviceAccountName))].sort(),
  );
  return { usable: items, accounts, problems };
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
