/** Where each cluster's addresses are: its network, and the gateways by which networks reach each other. */
import type { Workload } from "../../mesh/workload.ts";
import type { Engine } from "../collect/engine.ts";
import type { Cell, Collection, Index } from "../collect/store.ts";
import type { Fetch } from "../collect/tracker.ts";
import { objectKey } from "../objects.ts";
import { clusterOf, type ClusterSuffix, suffixOf } from "./clusters.ts";
import {
  gatewayOfWorkloads,
  gatewayUid,
  type NetworkGateway,
  networkGatewaysOf,
  networkLabel,
  workloadOfGateway,
} from "./network_gateways.ts";
import type { AmbientOptions, Place } from "./options.ts";
import type { Inputs } from "./sources.ts";

export interface NetworkCollections {
  /** Of the config cluster. */
  readonly place: Cell<Place>;
  /** Of every other cluster, by its suffix. */
  readonly otherPlaces: Collection<Place>;
  /** In stable order. */
  readonly gatewaysByNetwork: Index<NetworkGateway>;
  /** What stands for the gateways themselves (CP-216, CP-283). */
  readonly workloads: Collection<Workload>;
}

/** Builds the part of the graph that knows networks. */
export function buildNetworks(
  engine: Engine,
  { sources, mesh, clusters }: Inputs,
  options: AmbientOptions,
): NetworkCollections {
  const named = engine.deriveMany("named gateways", sources.Gateway, (gateway, _fetch, key) => {
    const suffix = suffixOf(key), clusterId = clusterOf(suffix) ?? options.clusterId;
    const gateways = networkGatewaysOf(gateway, { clusterId, remote: suffix !== "" });
    return gateways.map((it) => [`${it.identity}${suffix}`, it] as const);
  });
  const byIdentity = engine.index(named, "gateways by identity", ({ identity }) => [identity]);
  // In the order of their keys the config cluster's comes first, whose suffix is empty.
  const gateways = engine.group("network gateways", byIdentity, ([first]) => first);
  const gatewaysByNetwork = engine.index(gateways, "gateways by network", ({ network }) => [network]);
  const byUid = engine.index(gateways, "gateways by uid", (gateway) => [gatewayUid(gateway)]);
  const workloads = engine.group(
    "workloads of gateways",
    byUid,
    ([first], fetch) => first && workloadOfGateway(first, fetch.value(mesh.trustDomain)),
  );

  const placeOf = (clusterId: string, suffix: ClusterSuffix, fallback: string, fetch: Fetch): Place => {
    const system = fetch.one(sources.Namespace, objectKey("Namespace", "", options.systemNamespace) + suffix);
    const network = (system && networkLabel(system.meta.labels)) ?? fallback;
    const gateway = gatewayOfWorkloads(fetch.by(gatewaysByNetwork, network));
    return { clusterId, network, trustDomain: fetch.value(mesh.trustDomain), ...(gateway && { gateway }) };
  };
  return {
    // CP-123: the label says it; the setting is for a cluster without one.
    place: engine.single("place", (fetch) => placeOf(options.clusterId, "", options.network, fetch)),
    otherPlaces: engine.derive(
      "places of other clusters",
      clusters,
      (suffix, fetch) => placeOf(clusterOf(suffix) ?? "", suffix, "", fetch),
    ),
    gatewaysByNetwork,
    workloads,
  };
}

/** The place of a cluster; undefined for one that is gone. */
export function placeOfCluster(networks: NetworkCollections, suffix: ClusterSuffix, fetch: Fetch): Place | undefined {
  return suffix === "" ? fetch.value(networks.place) : fetch.one(networks.otherPlaces, suffix);
}
