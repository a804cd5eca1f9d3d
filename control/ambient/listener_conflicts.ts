/** Listeners of one Gateway that cannot both be had (CP-574). Pure. */
import type { GatewayListener } from "../objects.ts";

export type ListenerConflict = "HostnameConflict" | "ProtocolConflict";

/** Protocols that share a port, being told apart by the name that a client asks for. */
const KIN: Readonly<Record<string, string>> = { HTTPS: "TLS", TLS: "TLS" };

/** Those that lose, by their name: who comes first in the Gateway wins, and a loser stands in nobody's way. */
export function listenerConflicts(listeners: readonly GatewayListener[]): ReadonlyMap<string, ListenerConflict> {
  const conflicts = new Map<string, ListenerConflict>(), winners: GatewayListener[] = [];
  for (const listener of listeners) {
    const conflict = winners.map((winner) => conflictOf(winner, listener)).find((it) => it !== undefined);
    if (conflict === undefined) winners.push(listener);
    else conflicts.set(listener.name, conflict);
  }
  return conflicts;
}

function conflictOf(winner: GatewayListener, listener: GatewayListener): ListenerConflict | undefined {
  if (winner.port !== listener.port || (winner.protocol === "UDP") !== (listener.protocol === "UDP")) return undefined;
  const family = ({ protocol }: GatewayListener) => KIN[protocol] ?? protocol;
  if (family(winner) !== family(listener)) return "ProtocolConflict";
  return winner.hostname.toLowerCase() === listener.hostname.toLowerCase() ? "HostnameConflict" : undefined;
}
