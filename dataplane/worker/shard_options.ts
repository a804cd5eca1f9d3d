/** What a worker is told at its start. */

/** It never changes afterwards. */
export interface ShardOptions {
  readonly worker: number;
  readonly network: string;
  readonly packetMark: number;
  readonly keepalive: boolean;
  /** TCP_CONGESTION of HBONE sessions; empty: the kernel's own choice. */
  readonly congestionControl: string;
  readonly streamsPerSessionMax: number;
  readonly responseBaggage: boolean;
  readonly reservedPorts: readonly number[];
  /** An application tunnel is reached by loopback (ZT-097). */
  readonly localhostAppTunnel: boolean;
  /** Only what is asked for is known of the mesh (ZT-127). */
  readonly onDemand: boolean;
  readonly recordsPerKey?: number;
}
