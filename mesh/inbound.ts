/** Whether an HBONE request may be served here, and by which port of the local workload (ZT-090, ZT-091, ZT-095, ZT-096). */
import { formatIp, type IpWords, isIpv4 } from "../base/address.ts";
import { endpointPort } from "./balance.ts";
import { ownsAddress, referenceLeadsTo } from "./gateway_reference.ts";
import { type Service, serviceKey } from "./service.ts";
import type { MeshView } from "./view.ts";
import { ApplicationTunnelProtocol, type GatewayAddress, type Workload } from "./workload.ts";

/** The CONNECT authority, parsed. */
export type InboundAuthority =
  | { readonly kind: "address"; readonly ip: IpWords; readonly port: number }
  | { readonly kind: "hostname"; readonly hostname: string; readonly port: number };

export interface InboundRequest {
  /** The address that the client connected to: one of the local workload's. The application is reached there. */
  readonly connectedIp: IpWords;
  readonly authority: InboundAuthority;
  /** The network of this node. */
  readonly network: string;
  /** Ports of our own listeners, never to be connected to (ZT-006). */
  readonly reservedPorts: readonly number[];
}

export interface InboundAccepted {
  readonly ok: true;
  /** What policy is judged with (ZT-093). */
  readonly port: number;
  /** What is connected to: `port`, or the application tunnel's own. */
  readonly connectPort: number;
  /** Where the PROXY header says the connection went; undefined: no header is sent (ZT-095). */
  readonly proxyDestination: { readonly ip: IpWords; readonly port: number } | undefined;
}

export interface InboundRefused {
  readonly ok: false;
  readonly status: 400 | 503;
  readonly reason: string;
}

/** Decides on one CONNECT request for `local`. It does not judge policy. */
export function resolveInbound(
  view: MeshView,
  local: Workload,
  request: InboundRequest,
): InboundAccepted | InboundRefused {
  const { authority, connectedIp } = request;
  let port = authority.port, service: Service | undefined;
  if (authority.kind === "hostname") {
    service = serviceOfHostname(view, local, authority.hostname);
    if (service === undefined) return refused(503, `unknown service hostname: ${authority.hostname}`);
    port = localPort(service, local, authority.port);
    const requested = `${authority.hostname}:${authority.port}`;
    if (port === 0) return refused(503, `requested service ${requested} found, but cannot resolve port`);
  } else if (!mayAddress(view, local, request, authority.ip)) {
    const connected = formatIp(connectedIp[0], connectedIp[1], connectedIp[2], connectedIp[3]);
    const asked = formatIp(authority.ip[0], authority.ip[1], authority.ip[2], authority.ip[3]);
    return refused(400, `ip mismatch: ${connected} != ${asked}`);
  }
  if (request.reservedPorts.includes(port)) return refused(503, "attempted recursive call to ourselves");
  return accepted(local, request, port, service);
}

function accepted(
  local: Workload,
  request: InboundRequest,
  port: number,
  service: Service | undefined,
): InboundAccepted | InboundRefused {
  const tunnel = local.applicationTunnel, { authority } = request;
  if (tunnel === undefined) return { ok: true, port, connectPort: port, proxyDestination: undefined };
  const connectPort = tunnel.port === 0 ? port : tunnel.port;
  if (tunnel.protocol !== ApplicationTunnelProtocol.PROXY) {
    return { ok: true, port, connectPort, proxyDestination: undefined };
  }
  const ip = authority.kind === "address" ? authority.ip : vipOf(service, request.network);
  if (ip === undefined) {
    const name = authority.kind === "hostname" ? authority.hostname : "";
    return refused(503, `requested service ${name} found, but has no IP addresses`);
  }
  return { ok: true, port, connectPort, proxyDestination: { ip, port: authority.port } };
}

/** ZT-090: our own address; anything, if an application tunnel stands here; what has us as its waypoint. */
function mayAddress(view: MeshView, local: Workload, request: InboundRequest, ip: IpWords): boolean {
  const connected = request.connectedIp;
  if (ip.every((word, at) => word === connected[at])) return true;
  if (local.applicationTunnel !== undefined) return true;
  const isUs = (workload: Workload) =>
    workload.uid === local.uid ||
    workload.network === request.network &&
      ownsAddress(workload, connected[0], connected[1], connected[2], connected[3]);
  const servesAs = (waypoint: GatewayAddress) => referenceLeadsTo(view, waypoint, isUs);
  const workload = view.workloadAt(request.network, ip[0], ip[1], ip[2], ip[3]);
  if (workload !== undefined) return workload.waypoint !== undefined && servesAs(workload.waypoint);
  const service = view.serviceAt(request.network, ip[0], ip[1], ip[2], ip[3], undefined);
  if (service === undefined) return false;
  if (service.waypoint !== undefined && servesAs(service.waypoint)) return true;
  // Clients are also sent to the weighted ones (ZT-035).
  return service.weightedWaypoints.some(({ destination, weight }) => weight > 0 && servesAs(destination));
}

/** The local workload's own port that a hostname and a service's port lead to. @returns 0 where they lead elsewhere. */
export function portOfHostname(view: MeshView, local: Workload, hostname: string, servicePort: number): number {
  const service = serviceOfHostname(view, local, hostname);
  const isOurs = service !== undefined && local.services.has(serviceKey(service.namespace, service.hostname));
  return isOurs ? localPort(service, local, servicePort) : 0;
}

/** In the local namespace first, then the canonical one, then the first that is visible from here (ZT-091). */
function serviceOfHostname(view: MeshView, local: Workload, hostname: string): Service | undefined {
  let canonical: Service | undefined, first: Service | undefined;
  for (const service of view.servicesOfHostname(hostname)) {
    if (service.namespace === local.namespace) return service;
    if (service.namespaceOnly) continue; // ZT-141
    if (service.canonical) canonical ??= service;
    first ??= service;
  }
  return canonical ?? first;
}

/** This endpoint's mapping, else the service's target port. @returns 0 if neither names one. */
function localPort(service: Service, local: Workload, servicePort: number): number {
  const mappings = local.services.get(serviceKey(service.namespace, service.hostname)) ?? [];
  const mapped = mappings.find((mapping) => mapping.servicePort === servicePort)?.targetPort ?? 0;
  return mapped !== 0 ? mapped : endpointPort(service, local, servicePort, false);
}

/** A VIP of our network, IPv4 preferred, else any (ZT-096). A range is no VIP. */
function vipOf(service: Service | undefined, network: string): IpWords | undefined {
  const vips = service?.addresses.filter((address) => address.prefixLength === undefined) ?? [];
  const ours = vips.filter((address) => address.network === network);
  const isV4 = ({ ip }: { ip: IpWords }) => isIpv4(ip[0], ip[1], ip[2]);
  return (ours.find(isV4) ?? ours[0] ?? vips[0])?.ip;
}

function refused(status: 400 | 503, reason: string): InboundRefused {
  return { ok: false, status, reason };
}
