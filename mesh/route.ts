/** Where an outbound connection goes: what `resolve` returns and the data path acts on. */
import type { IpWords } from "../base/address.ts";
import type { Service } from "./service.ts";
import type { Workload } from "./workload.ts";

/** Not ours to secure: plain TCP to the original destination (ZT-020, ZT-021). */
export interface PassthroughRoute {
  readonly kind: "passthrough";
  readonly ip: IpWords;
  readonly port: number;
}

/** Plain TCP to a chosen workload that speaks no HBONE (ZT-041). */
export interface TcpRoute {
  readonly kind: "tcp";
  readonly ip: IpWords;
  readonly port: number;
  readonly workload: Workload;
  readonly service: Service | undefined;
}

/** A CONNECT stream to `ip:port` asking for `authority` (ZT-034, ZT-037, ZT-041). */
export interface HboneRoute {
  readonly kind: "hbone";
  readonly ip: IpWords;
  readonly port: number;
  readonly authority: string;
  /** SPIFFE URIs; the upstream must present one of them (ZT-042). Never empty. */
  readonly identities: readonly string[];
  /** The workload that terminates the tunnel: the destination, or its waypoint. */
  readonly workload: Workload;
  /** What the client addressed, if it was a service; also when a waypoint stands before it (ZT-199). */
  readonly service: Service | undefined;
  readonly viaWaypoint: boolean;
}

/**
 * To a workload, or its waypoint, on another network (ZT-044 to ZT-046): a CONNECT stream for `authority` at that network's
 * gateway, and through it a second session whose peer is the real next hop, asked for `authority` again.
 */
export interface DoubleHboneRoute {
  readonly kind: "doubleHbone";
  /** Where the gateway takes tunnels. */
  readonly ip: IpWords;
  readonly port: number;
  /** `<service hostname>:<service port>`, on both levels. */
  readonly authority: string;
  /** SPIFFE URIs that the gateway may present. Never empty. */
  readonly identities: readonly string[];
  /** SPIFFE URIs that the peer behind the gateway may present: those of the service alone. Never empty. */
  readonly innerIdentities: readonly string[];
  /** The gateway. */
  readonly workload: Workload;
  readonly service: Service;
}

/** A way whose address only DNS can tell (ZT-032, ZT-033). */
export interface HostnameRoute {
  readonly kind: "hostname";
  /** Whose hostname it is. */
  readonly workload: Workload;
  /** The family that the address should be of: that of what was dialled. */
  readonly wantsIpv4: boolean;
  /** The way by an address that was found. Pure. */
  onward(ip: IpWords): WorkloadRoute;
}

/** The connection cannot be carried; it never falls back to plaintext. `reason` is the text for the log. */
export interface RefusedRoute {
  readonly kind: "refused";
  readonly reason: string;
}

/** A way to a workload of the mesh. */
export type WorkloadRoute = TcpRoute | HboneRoute | DoubleHboneRoute;
/** A way that can be gone. */
export type AddressedRoute = PassthroughRoute | WorkloadRoute;
export type Route = AddressedRoute | HostnameRoute | RefusedRoute;
