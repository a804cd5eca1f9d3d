/** A service: a name and addresses with workloads behind them (proto istio.workload.Service, ZT section 7.4). */
import type { IpWords } from "../base/address.ts";
import type { GatewayAddress } from "./workload.ts";

export const LoadBalancingMode = { UNSPECIFIED: 0, STRICT: 1, FAILOVER: 2, PASSTHROUGH: 3 } as const;
export type LoadBalancingMode = (typeof LoadBalancingMode)[keyof typeof LoadBalancingMode];

export const LoadBalancingScope = { REGION: 1, ZONE: 2, SUBZONE: 3, NODE: 4, CLUSTER: 5, NETWORK: 6 } as const;
export type LoadBalancingScope = (typeof LoadBalancingScope)[keyof typeof LoadBalancingScope];

export const IpFamilies = { AUTOMATIC: 0, IPV4_ONLY: 1, IPV6_ONLY: 2, DUAL: 3 } as const;
export type IpFamilies = (typeof IpFamilies)[keyof typeof IpFamilies];

/** An address of a service; `prefixLength` only for a CIDR shorter than the family's full length. */
export interface ServiceAddress {
  readonly network: string;
  readonly ip: IpWords;
  readonly prefixLength?: number;
}

/** What a port's traffic speaks (CP-226); for waypoints and gateways, which route by it. */
export const AppProtocol = { UNKNOWN: 0, HTTP11: 1, HTTP2: 2, GRPC: 3, TCP: 4, TLS: 5 } as const;
export type AppProtocol = (typeof AppProtocol)[keyof typeof AppProtocol];

export interface ServicePort {
  readonly servicePort: number;
  /** 0: named, resolved by each endpoint (ZT-027). */
  readonly targetPort: number;
  /** Absent: unknown. */
  readonly appProtocol?: AppProtocol;
}

export interface LoadBalancing {
  readonly routingPreference: readonly LoadBalancingScope[];
  readonly mode: LoadBalancingMode;
  /** Health policy ALLOW_ALL: unhealthy endpoints count too (ZT-137). */
  readonly allowUnhealthy: boolean;
}

export interface Service {
  readonly name: string;
  readonly namespace: string;
  readonly hostname: string;
  readonly addresses: readonly ServiceAddress[];
  readonly ports: readonly ServicePort[];
  readonly subjectAltNames: readonly string[];
  readonly waypoint?: GatewayAddress;
  readonly weightedWaypoints: readonly { readonly destination: GatewayAddress; readonly weight: number }[];
  readonly loadBalancing?: LoadBalancing;
  readonly ipFamilies: IpFamilies;
  readonly canonical: boolean;
  /** Whether gateways at the mesh's edge go through the waypoint too (CP-230). */
  readonly ingressUseWaypoint: boolean;
  /** Visibility NAMESPACE: only clients of its own namespace see it (ZT-141). */
  readonly namespaceOnly: boolean;
}

/** The key of a service: `namespace/hostname` (ZT-140). */
export function serviceKey(namespace: string, hostname: string): string {
  return `${namespace}/${hostname}`;
}
