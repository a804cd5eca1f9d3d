/** What an accepted connection was meant for, whichever means turned it to us (ZT-014, CNI-202, CNI-205). */
import { ListenerKind } from "./listener.ts";
import type { Pod } from "./pod.ts";
import type { Shard } from "./shard.ts";

const OUTBOUND_PORT = 15001;

/**
 * Puts it into `addressWords`, where the other end's address stands before. @returns False when nobody can know, as of a
 * connection that a program made to our port by itself.
 */
export function findDestination(shard: Shard, pod: Pod, fd: number, kind: number): boolean {
  const { os, reservedPorts } = shard, words = os.addressWords, map = pod.redirectedMap;
  if (map < 0) {
    if (os.originalDestination(fd) >= 0) return true;
    // Under TPROXY the local address is the real one (ZT-014). If it is our own port, eBPF has turned the connection here
    // and we cannot see its maps: following it would lead to us again, and again.
    return os.localAddress(fd) >= 0 && !(kind === ListenerKind.OUTBOUND && words[4] === OUTBOUND_PORT);
  }
  if (kind !== ListenerKind.OUTBOUND) return os.localAddress(fd) >= 0; // Nothing was translated on the way in.
  if (os.redirectedDestination(map, pod.cookieLow, pod.cookieHigh) >= 0) return true;
  // From a virtual interface, where a rule redirects (CNI-210). Connection tracking also knows who asked for our own port.
  return os.originalDestination(fd) >= 0 && !reservedPorts.includes(words[4]!);
}
