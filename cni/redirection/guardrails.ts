/** Nothing gets through while rules are exchanged: drops of TCP and UDP before everything else in table filter (CNI-136). Pure. */
import type { SavedState } from "./iptables_state.ts";

const CHAINS = ["INPUT", "FORWARD", "OUTPUT"] as const;
/** In the order in which they are put at the first place: the last one stands first. */
const PROTOCOLS = ["tcp", "udp"] as const;

/** The text that puts them in, or takes them out again, each time all six at once. */
export function guardrailCommands(what: "put" | "take"): string {
  const verb = (chain: string) => what === "put" ? `-I ${chain} 1` : `-D ${chain}`;
  const rules = CHAINS.flatMap((chain) => PROTOCOLS.map((protocol) => `${verb(chain)} -p ${protocol} -j DROP`));
  return ["* filter", ...rules, "COMMIT", ""].join("\n");
}

/**
 * Whether they stand, as an exchange that was cut off leaves them. All six, and at their place: a pod's own rule that reads
 * like one of them is not ours to take.
 */
export function isGuarded(state: SavedState): boolean {
  const filter = state.get("filter");
  return CHAINS.every((chain) => {
    const first = filter?.get(chain) ?? [];
    return PROTOCOLS.toReversed().every((protocol, at) => first[at] === `-A ${chain} -p ${protocol} -j DROP`);
  });
}
