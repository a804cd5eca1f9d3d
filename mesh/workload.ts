/** A workload: whatever has an address and an identity (proto istio.workload.Workload, ZT section 7.4). */
import type { IpWords } from "../base/address.ts";

export const TunnelProtocol = { NONE: 0, HBONE: 1 } as const;
export type TunnelProtocol = (typeof TunnelProtocol)[keyof typeof TunnelProtocol];

export const WorkloadType = { DEPLOYMENT: 0, CRONJOB: 1, POD: 2, JOB: 3 } as const;
export type WorkloadType = (typeof WorkloadType)[keyof typeof WorkloadType];

/** How baggage names the workload types, by value (ZT-055). */
export const WORKLOAD_TYPE_NAMES = ["deployment", "cronjob", "pod", "job"] as const;

export const ApplicationTunnelProtocol = { NONE: 0, PROXY: 1 } as const;
export type ApplicationTunnelProtocol = (typeof ApplicationTunnelProtocol)[keyof typeof ApplicationTunnelProtocol];

export interface Locality {
  readonly region: string;
  readonly zone: string;
  readonly subzone: string;
}

/** A reference to a waypoint or network gateway: by address, or by `namespace` and `hostname`. */
export interface GatewayAddress {
  readonly address?: { readonly network: string; readonly ip: IpWords };
  readonly hostname?: { readonly namespace: string; readonly hostname: string };
  readonly hboneMtlsPort: number;
}

export interface PortMapping {
  readonly servicePort: number;
  /** 0: a named port that this workload does not resolve (ZT-027). */
  readonly targetPort: number;
}

export interface Workload {
  readonly uid: string;
  readonly name: string;
  readonly namespace: string;
  readonly addresses: readonly IpWords[];
  readonly hostname: string;
  readonly network: string;
  readonly tunnelProtocol: TunnelProtocol;
  /** Empty on the wire means `cluster.local`; decoded already. */
  readonly trustDomain: string;
  /** Empty on the wire means `default`; decoded already. */
  readonly serviceAccount: string;
  readonly waypoint?: GatewayAddress;
  readonly networkGateway?: GatewayAddress;
  readonly node: string;
  readonly canonicalName: string;
  readonly canonicalRevision: string;
  readonly workloadType: WorkloadType;
  readonly workloadName: string;
  readonly nativeTunnel: boolean;
  readonly applicationTunnel?: { readonly protocol: ApplicationTunnelProtocol; readonly port: number };
  /** Keys `namespace/name` of policies with a selector that matches this workload. */
  readonly authorizationPolicies: readonly string[];
  readonly healthy: boolean;
  /** Empty on the wire means `Kubernetes`; decoded already. */
  readonly clusterId: string;
  readonly locality: Locality;
  /** By `namespace/hostname`. */
  readonly services: ReadonlyMap<string, readonly PortMapping[]>;
  readonly hostNetwork: boolean;
  /** Weight in load balancing; 0 is never chosen (ZT-031). */
  readonly capacity: number;
}
