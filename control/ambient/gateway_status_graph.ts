/** From Gateways, their classes, Services and endpoints to the status of each Gateway of ours. */
import type { Engine } from "../collect/engine.ts";
import type { Collection } from "../collect/store.ts";
import { objectKey } from "../objects.ts";
import { suffixOf } from "./clusters.ts";
import { gatewayStatusOf, type WantedGatewayStatus } from "./gateway_status.ts";
import type { Sources } from "./sources.ts";

const SERVICE_NAME_LABEL = "kubernetes.io/service-name";

/** Builds the part of the graph that yields what is said of Gateways, by object key. */
export function buildGatewayStatuses(
  engine: Engine,
  sources: Sources,
  { clusterDomain }: { readonly clusterDomain: string },
): Collection<WantedGatewayStatus> {
  const slices = engine.index(sources.EndpointSlice, "slices by Service", ({ meta }, key) => {
    const name = meta.labels.get(SERVICE_NAME_LABEL);
    return name === undefined || suffixOf(key) !== "" ? [] : [`${meta.namespace}/${name}`];
  });
  return engine.derive("Gateway statuses", sources.Gateway, (gateway, fetch, key) => {
    if (suffixOf(key) !== "") return undefined; // Its own cluster's istiod says it.
    const { namespace } = gateway.meta;
    return gatewayStatusOf(gateway, {
      controller: fetch.one(sources.GatewayClass, objectKey("GatewayClass", "", gateway.className))?.controllerName,
      clusterDomain,
      serviceOf: (name) => fetch.one(sources.Service, objectKey("Service", namespace, name)),
      slicesOf: (name) => fetch.by(slices, `${namespace}/${name}`),
    });
  });
}
