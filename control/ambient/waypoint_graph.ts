/** From Gateways, their classes and the pods behind them to the waypoints of the mesh. */
import type { Engine } from "../collect/engine.ts";
import type { Collection } from "../collect/store.ts";
import type { Fetch } from "../collect/tracker.ts";
import { objectKey, type ObjectMeta } from "../objects.ts";
import type { Problem } from "./options.ts";
import { itemsOf, type MeshCells, problemsOf, type Sources } from "./sources.ts";
import { type Waypoint, waypointKey, waypointOf } from "./waypoint.ts";
import { type FindWaypoint, GATEWAY_NAME } from "./waypoint_binding.ts";

export interface WaypointCollections {
  /** Usable ones, by `namespace/name`. */
  readonly usable: Collection<Waypoint>;
  /** By the same keys: the accounts that the pods of a Gateway run as, sorted; of any Gateway that has pods (CP-267). */
  readonly accounts: Collection<readonly string[]>;
  readonly problems: Collection<Problem>;
}

/** Builds the part of the graph that yields waypoints. */
export function buildWaypoints(engine: Engine, sources: Sources, mesh: MeshCells): WaypointCollections {
  const outcomes = engine.derive("waypoints of Gateways", sources.Gateway, (gateway, fetch) => {
    const gatewayClass = fetch.one(sources.GatewayClass, objectKey("GatewayClass", "", gateway.className));
    return waypointOf(gateway, gatewayClass, fetch.value(mesh.place).network);
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
  return { usable: itemsOf(engine, outcomes), accounts, problems: problemsOf(engine, outcomes) };
}

/** How a transform finds waypoints: what it asked for is remembered, so that it runs again when that comes or goes. */
export function finderOf(waypoints: WaypointCollections, fetch: Fetch): FindWaypoint {
  return (key) => fetch.one(waypoints.usable, key);
}

/** A namespace, if there is one. */
export function namespaceMeta(sources: Sources, name: string, fetch: Fetch): ObjectMeta | undefined {
  return fetch.one(sources.Namespace, objectKey("Namespace", "", name))?.meta;
}
