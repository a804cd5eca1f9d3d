/** Which endpoint of a service takes a connection, and on which port and address (ZT section 2.3). */
import { type IpWords, isIpv4 } from "../base/address.ts";
import { ownsAddress } from "./gateway_reference.ts";
import {
  IpFamilies,
  type LoadBalancing,
  LoadBalancingMode,
  LoadBalancingScope,
  type Service,
  serviceKey,
  type ServicePort,
} from "./service.ts";
import type { MeshView } from "./view.ts";
import type { Workload } from "./workload.ts";

/** What a connection asks of a service's endpoints. */
export interface EndpointRequest {
  /** Whoever connects: locality, network, node and cluster are compared with its own. */
  readonly source: Workload;
  /** The service's port, as the client or a waypoint reference named it. */
  readonly port: number;
  /** The service is a waypoint: its application tunnels may stand in for a port it does not define (ZT-028). */
  readonly forWaypoint: boolean;
}

const NOT_ALLOWED = -1;

/**
 * Draws one endpoint in proportion to capacity among the candidates of the highest rank (ZT-026 to ZT-031).
 * An endpoint of capacity 0 is no candidate at all, so it never hides one of lower rank.
 * @param random gives a number in [0, 1); asked once, and only if there is a candidate.
 * @returns undefined if there is no candidate.
 */
export function chooseEndpoint(
  view: MeshView,
  service: Service,
  request: EndpointRequest,
  random: () => number,
): Workload | undefined {
  const endpoints = view.endpointsOf(service);
  const key = serviceKey(service.namespace, service.hostname), definition = portDefinition(service, request.port);
  let highest = NOT_ALLOWED, total = 0;
  for (const endpoint of endpoints) {
    const rank = candidateRank(service, definition, key, endpoint, request);
    if (rank === NOT_ALLOWED || rank < highest) continue;
    if (rank > highest) [highest, total] = [rank, 0];
    total += endpoint.capacity;
  }
  if (highest === NOT_ALLOWED) return undefined;
  let left = random() * total, chosen: Workload | undefined;
  for (const endpoint of endpoints) {
    if (candidateRank(service, definition, key, endpoint, request) !== highest) continue;
    chosen = endpoint;
    left -= endpoint.capacity;
    if (left < 0) break;
  }
  return chosen;
}

/** The port on which `endpoint` serves the requested port (ZT-027). @returns 0 if it does not serve it. */
export function endpointPort(service: Service, endpoint: Workload, port: number, forWaypoint: boolean): number {
  const key = serviceKey(service.namespace, service.hostname);
  return resolvedPort(portDefinition(service, port), key, endpoint, port, forWaypoint);
}

/**
 * The address to dial at a workload: the one that the client dialled if the workload owns it, else the first that the
 * service's families allow, of the client's family if there is one (ZT-032). @returns undefined if it has none.
 */
export function endpointIp(service: Service | undefined, endpoint: Workload, dialled: IpWords): IpWords | undefined {
  if (ownsAddress(endpoint, dialled[0], dialled[1], dialled[2], dialled[3])) return dialled;
  const families = service === undefined ? IpFamilies.AUTOMATIC : service.ipFamilies;
  const wantsIpv4 = isIpv4(dialled[0], dialled[1], dialled[2]);
  let first: IpWords | undefined;
  for (const ip of endpoint.addresses) {
    const v4 = isIpv4(ip[0], ip[1], ip[2]);
    if (families === (v4 ? IpFamilies.IPV6_ONLY : IpFamilies.IPV4_ONLY)) continue;
    if (v4 === wantsIpv4) return ip;
    first ??= ip;
  }
  return first;
}

function portDefinition(service: Service, port: number): ServicePort | undefined {
  for (const definition of service.ports) if (definition.servicePort === port) return definition;
  return undefined;
}

function candidateRank(
  service: Service,
  definition: ServicePort | undefined,
  key: string,
  endpoint: Workload,
  request: EndpointRequest,
): number {
  if (endpoint.capacity === 0 || !reachable(endpoint, request.source)) return NOT_ALLOWED;
  if (resolvedPort(definition, key, endpoint, request.port, request.forWaypoint) === 0) return NOT_ALLOWED;
  return rankOf(service.loadBalancing, request.source, endpoint);
}

/** A workload with neither address nor hostname is reached only through the gateway of another network (ZT-026). */
function reachable(endpoint: Workload, source: Workload): boolean {
  if (endpoint.addresses.length > 0 || endpoint.hostname !== "") return true;
  return endpoint.network !== source.network && endpoint.networkGateway !== undefined;
}

function resolvedPort(
  definition: ServicePort | undefined,
  key: string,
  endpoint: Workload,
  port: number,
  forWaypoint: boolean,
): number {
  const tunnel = forWaypoint ? endpoint.applicationTunnel : undefined;
  if (definition === undefined && tunnel === undefined) return 0;
  const mappings = endpoint.services.get(key);
  if (mappings !== undefined) {
    for (const mapping of mappings) {
      if (mapping.servicePort === port && mapping.targetPort !== 0) return mapping.targetPort;
    }
  }
  if (definition !== undefined && definition.targetPort !== 0) return definition.targetPort;
  return tunnel !== undefined && tunnel.port !== 0 ? port : 0;
}

/** Preferences matched from the first on; STRICT wants all. If NETWORK is first, it outweighs the rest (ZT-029, ZT-030). */
function rankOf(loadBalancing: LoadBalancing | undefined, source: Workload, endpoint: Workload): number {
  if (loadBalancing === undefined) return 0;
  const { mode, routingPreference } = loadBalancing;
  if (mode !== LoadBalancingMode.STRICT && mode !== LoadBalancingMode.FAILOVER) return 0;
  const networkFirst = routingPreference[0] === LoadBalancingScope.NETWORK;
  let rank = 0;
  for (let at = 0; at < routingPreference.length; at++) {
    const outweighs = at === 0 && networkFirst;
    if (matchesScope(routingPreference[at]!, source, endpoint)) rank += outweighs ? routingPreference.length : 1;
    else if (mode === LoadBalancingMode.STRICT) return NOT_ALLOWED;
    else if (!outweighs) break;
  }
  return rank;
}

function matchesScope(scope: LoadBalancingScope, source: Workload, endpoint: Workload): boolean {
  switch (scope) {
    case LoadBalancingScope.REGION:
      return source.locality.region === endpoint.locality.region;
    case LoadBalancingScope.ZONE:
      return source.locality.zone === endpoint.locality.zone;
    case LoadBalancingScope.SUBZONE:
      return source.locality.subzone === endpoint.locality.subzone;
    case LoadBalancingScope.NODE:
      return source.node === endpoint.node;
    case LoadBalancingScope.CLUSTER:
      return source.clusterId === endpoint.clusterId;
    case LoadBalancingScope.NETWORK:
      return source.network === endpoint.network;
  }
}
