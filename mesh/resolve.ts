/** Where an outbound connection goes (ZT sections 2.2 to 2.5): pure, from a view of the mesh to a Route. */
import { formatSocketAddress, type IpWords, isIpv4 } from "../base/address.ts";
import { chooseEndpoint, endpointIp, endpointPort } from "./balance.ts";
import {
  formatReference,
  referencedService,
  referencedWorkload,
  referenceLeadsTo,
  sharesAddress,
} from "./gateway_reference.ts";
import { formatIdentity, parseIdentity } from "./identity.ts";
import type { RefusedRoute, Route, WorkloadRoute } from "./route.ts";
import { LoadBalancingMode, type Service } from "./service.ts";
import type { MeshView } from "./view.ts";
import { type GatewayAddress, TunnelProtocol, type Workload } from "./workload.ts";

/** The port on which every HBONE workload takes tunnels. */
export const HBONE_PORT = 15008;

/** What a captured connection asked for: its original destination, in the network of this node. */
export interface OutboundRequest {
  readonly network: string;
  readonly word0: number;
  readonly word1: number;
  readonly word2: number;
  readonly word3: number;
  readonly port: number;
}

/**
 * Decides the way of a connection of `source`. Nothing known at the address is passthrough; whatever is known and cannot
 * be reached as the mesh demands is refused, never carried in another way. Deterministic but for `random`, in [0, 1).
 */
export function resolve(view: MeshView, source: Workload, request: OutboundRequest, random: () => number): Route {
  const { network, word0, word1, word2, word3 } = request;
  const dialled: IpWords = [word0, word1, word2, word3];
  const owner = view.workloadAt(network, word0, word1, word2, word3);
  const service = view.serviceAt(network, word0, word1, word2, word3, source.namespace);
  if (owner === undefined && service === undefined) return { kind: "passthrough", ip: dialled, port: request.port };
  // A workload's own address is not service-addressed, even inside a service's range (ZT-017, ZT-019).
  const serviceAddressed = owner === undefined;
  if (serviceAddressed && service !== undefined) {
    const waypoint = drawWaypoint(service, random);
    if (waypoint !== undefined) {
      return toWaypoint(view, source, { dialled, port: request.port, waypoint, service }, random);
    }
  }
  const passes = service?.loadBalancing?.mode === LoadBalancingMode.PASSTHROUGH;
  if (passes && owner === undefined) return { kind: "passthrough", ip: dialled, port: request.port }; // ZT-021
  // Where a range in that mode covers a workload of the mesh, the original destination is the workload, reached as itself:
  // else whoever may write a range takes mTLS, and the waypoint, from all that lie in it.
  const balanced = passes ? undefined : service;
  const endpoint = balanced === undefined
    ? owner
    : chooseEndpoint(view, balanced, { source, port: request.port, forWaypoint: false }, random);
  if (endpoint === undefined) return refused(`no healthy upstream: ${formatSocketAddress(dialled, request.port)}`); // ZT-022
  if (endpoint.network !== source.network) {
    const addressed = serviceAddressed ? service : undefined;
    return acrossNetworks(
      view,
      source,
      { dialled, port: request.port, endpoint, through: balanced, service: addressed },
      random,
    );
  }
  const waypoint = serviceAddressed ? undefined : endpoint.waypoint; // ZT-037, ZT-038
  if (waypoint !== undefined && !isBehind(view, source, waypoint)) {
    return toWaypoint(view, source, { dialled, port: request.port, waypoint, service: undefined }, random);
  }
  return toEndpoint(endpoint, balanced, dialled, request.port);
}

/** The service's waypoint, or one of its weighted ones in proportion to weight (ZT-035). */
function drawWaypoint(service: Service, random: () => number): GatewayAddress | undefined {
  let total = 0;
  for (const weighted of service.weightedWaypoints) total += weighted.weight;
  if (total === 0) return service.waypoint;
  let left = random() * total, chosen = service.waypoint;
  for (const weighted of service.weightedWaypoints) {
    if (weighted.weight === 0) continue;
    chosen = weighted.destination;
    left -= weighted.weight;
    if (left < 0) break;
  }
  return chosen;
}

/** Whether `source` is the waypoint itself, so that its traffic is not sent back to it (ZT-039). */
function isBehind(view: MeshView, source: Workload, waypoint: GatewayAddress): boolean {
  return referenceLeadsTo(
    view,
    waypoint,
    (workload) => sharesAddress(workload, source) && identityOf(workload) === identityOf(source),
  );
}

interface WaypointRequest {
  readonly dialled: IpWords;
  readonly port: number;
  readonly waypoint: GatewayAddress;
  /** What the client addressed, if it was a service. */
  readonly service: Service | undefined;
}

/** To a waypoint, by HBONE whatever its own protocol, asking for the address that was dialled (ZT-034, ZT-036, ZT-037). */
function toWaypoint(view: MeshView, source: Workload, request: WaypointRequest, random: () => number): Route {
  const { dialled, waypoint } = request;
  const through = referencedService(view, waypoint);
  const asked = waypoint.hboneMtlsPort;
  const workload = through === undefined
    ? referencedWorkload(view, waypoint)
    : chooseEndpoint(view, through, { source, port: asked, forWaypoint: true }, random);
  if (workload === undefined) {
    const reason = through === undefined ? "unknown waypoint" : "no healthy upstream";
    return refused(`${reason}: ${formatReference(waypoint)}`);
  }
  if (workload.network !== source.network) {
    const { service, port } = request;
    return acrossNetworks(view, source, { dialled, port, endpoint: workload, through, service }, random);
  }
  const port = through === undefined ? asked : endpointPort(through, workload, asked, true);
  if (port === 0) return refused(`unknown waypoint: ${formatReference(waypoint)} names no port`);
  const wanted = waypoint.address?.ip ?? dialled;
  const by = (ip: IpWords): WorkloadRoute => ({
    kind: "hbone",
    ip,
    port,
    authority: formatSocketAddress(dialled, request.port),
    identities: acceptedIdentities(through, workload),
    workload,
    service: request.service,
    viaWaypoint: true,
  });
  return reach(workload, endpointIp(through, workload, wanted), wanted, by);
}

/** Straight to the chosen workload, by the protocol it speaks (ZT-041). */
function toEndpoint(workload: Workload, service: Service | undefined, dialled: IpWords, dialledPort: number): Route {
  const port = service === undefined ? dialledPort : endpointPort(service, workload, dialledPort, false);
  const by = (ip: IpWords): WorkloadRoute => {
    if (workload.tunnelProtocol === TunnelProtocol.NONE) return { kind: "tcp", ip, port, workload, service };
    return {
      kind: "hbone",
      ip,
      port: HBONE_PORT,
      authority: formatSocketAddress(ip, port),
      identities: acceptedIdentities(service, workload),
      workload,
      service,
      viaWaypoint: false,
    };
  };
  return reach(workload, endpointIp(service, workload, dialled), dialled, by);
}

/**
 * The way to a workload by its address; where it has none that may be used by what DNS says of its hostname (ZT-032, ZT-033).
 * @param wanted an address of the family that is preferred.
 */
function reach(
  workload: Workload,
  ip: IpWords | undefined,
  wanted: IpWords,
  by: (ip: IpWords) => WorkloadRoute,
): Route {
  if (ip !== undefined) return by(ip);
  if (workload.hostname === "") return refused(`no valid routing destination for workload: ${workload.uid}`);
  return { kind: "hostname", workload, wantsIpv4: isIpv4(wanted[0], wanted[1], wanted[2]), onward: by };
}

/** SPIFFE URIs that the upstream may present: the service's own that parse, then the workload's (ZT-042). */
function acceptedIdentities(service: Service | undefined, workload: Workload): readonly string[] {
  return [...serviceIdentities(service), identityOf(workload)];
}

function serviceIdentities(service: Service | undefined): readonly string[] {
  return service === undefined ? [] : service.subjectAltNames.filter((name) => parseIdentity(name) !== undefined);
}

function identityOf(workload: Workload): string {
  return formatIdentity(workload);
}

interface RemoteRequest {
  readonly dialled: IpWords;
  readonly port: number;
  /** What was chosen on the other network: an endpoint, or the waypoint before it. */
  readonly endpoint: Workload;
  /** The service that `endpoint` was chosen from; its names are what the peer behind the gateway presents. */
  readonly through: Service | undefined;
  /** What the client addressed; undefined: no service. */
  readonly service: Service | undefined;
}

/**
 * To another network through its gateway (ZT-044). Only a service can be asked for there, by name: an address means
 * something else on every network. The gateway is found like any destination (ZT-045).
 */
function acrossNetworks(view: MeshView, source: Workload, request: RemoteRequest, random: () => number): Route {
  const { endpoint, service, through } = request, { networkGateway } = endpoint;
  if (networkGateway === undefined || service === undefined) {
    return refused(`no valid routing destination for workload: ${endpoint.uid}`);
  }
  const behind = referencedService(view, networkGateway), asked = networkGateway.hboneMtlsPort;
  const gateway = behind === undefined
    ? referencedWorkload(view, networkGateway)
    : chooseEndpoint(view, behind, { source, port: asked, forWaypoint: false }, random);
  if (gateway === undefined || asked === 0) {
    return refused(`unknown network gateway: ${formatReference(networkGateway)}`);
  }
  const innerIdentities = serviceIdentities(through);
  if (innerIdentities.length === 0) { // ZT-046: nobody could be told from an impostor.
    const whose = through === undefined ? endpoint.uid : `service ${through.namespace}/${through.hostname}`;
    return refused(
      `no valid routing destination for workload: ${endpoint.uid} is on network "${endpoint.network}", and ${whose} names no identity to expect there`,
    );
  }
  const wanted = networkGateway.address?.ip ?? request.dialled;
  const by = (ip: IpWords): WorkloadRoute => ({
    kind: "doubleHbone",
    ip,
    port: behind === undefined ? asked : endpointPort(behind, gateway, asked, false),
    authority: `${service.hostname}:${request.port}`,
    identities: acceptedIdentities(behind, gateway),
    innerIdentities,
    workload: gateway,
    service,
  });
  return reach(gateway, endpointIp(behind, gateway, wanted), wanted, by);
}

function refused(reason: string): RefusedRoute {
  return { kind: "refused", reason };
}
