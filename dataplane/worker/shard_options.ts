/** What a worker is told at its start. */

import type { KeepaliveTimes } from "../../os/api.ts";

/** It never changes afterwards. */
export interface ShardOptions {
  readonly worker: number;
  readonly network: string;
  readonly packetMark: number;
  readonly keepalive: boolean;
  /** TCP_CONGESTION of HBONE sessions; empty: the kernel's own choice. */
  readonly congestionControl: string;
  /** Of sockets with keepalive; absent: the kernel is asked for what the original asks for (ZT-049). */
  readonly keepaliveTimes?: KeepaliveTimes;
  /** After how long an unused session is closed; absent: five minutes (ZT-074). */
  readonly unusedReleaseMs?: number;
  readonly streamsPerSessionMax: number;
  readonly responseBaggage: boolean;
  readonly reservedPorts: readonly number[];
  /** All that is reached through the listener in the process's own network namespace, which may be the node's (ZT-005). */
  readonly ownPorts: readonly number[];
  /** An application tunnel is reached by loopback (ZT-097). */
  readonly localhostAppTunnel: boolean;
  /** Only what is asked for is known of the mesh (ZT-127). */
  readonly onDemand: boolean;
  readonly recordsPerKey?: number;
}
