/** When the kernel gives up a connection whose other end is silent. */

import type { KeepaliveTimes } from "./api.ts";

/** Istio's ztunnel's own (KEEPALIVE_*, ZT-049). */
export const KEEPALIVE_DEFAULT: KeepaliveTimes = { idleS: 180, intervalS: 180, retries: 9, userTimeoutMs: 0 };

const SOL_SOCKET = 1, SO_KEEPALIVE = 9;
const SOL_TCP = 6, TCP_KEEPIDLE = 4, TCP_KEEPINTVL = 5, TCP_KEEPCNT = 6, TCP_USER_TIMEOUT = 18;

/** What setsockopt(2) is called with, one after the other. */
export function keepaliveOptions(
  { idleS, intervalS, retries, userTimeoutMs }: KeepaliveTimes,
): readonly (readonly [level: number, name: number, value: number])[] {
  return [
    [SOL_SOCKET, SO_KEEPALIVE, 1],
    [SOL_TCP, TCP_KEEPIDLE, idleS],
    [SOL_TCP, TCP_KEEPINTVL, intervalS],
    [SOL_TCP, TCP_KEEPCNT, retries],
    ...(userTimeoutMs > 0 ? [[SOL_TCP, TCP_USER_TIMEOUT, userTimeoutMs] as const] : []),
  ];
}
