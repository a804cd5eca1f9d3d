/** Virtual interfaces have no socket in the pod's namespace: what arrives from them is redirected by a rule, also beside eBPF (CNI-210). */
import type { FirewallRule, FirewallTable, Statement } from "../../os/netlink/nft_model.ts";
import { CAPTURE_PORTS, TABLE_NAMES } from "../nft_rules.ts";

const ENTRY = "prerouting", RULES = "istio-prerouting", SOURCE_PRIORITY = -100;

/** R7 and R8 for each, in the table where they always stand; no table without an interface. */
export function virtualInterfaceTables(names: readonly string[]): FirewallTable[] {
  if (names.length === 0) return [];
  const tcp: Statement = { kind: "transport", transport: "tcp" }, counter: Statement = { kind: "counter" };
  const rules = names.flatMap((name): FirewallRule[] => {
    const from: Statement = { kind: "interface", direction: "in", name };
    return [
      { chain: RULES, statements: [from, tcp, counter, { kind: "redirect", port: CAPTURE_PORTS.outbound }] },
      { chain: RULES, statements: [from, tcp, counter, { kind: "return" }] },
    ];
  });
  return [{
    name: TABLE_NAMES.nat,
    chains: [{ name: ENTRY, base: { type: "nat", hook: ENTRY, priority: SOURCE_PRIORITY } }, { name: RULES }],
    rules: [{ chain: ENTRY, statements: [{ kind: "jump", chain: RULES }] }, ...rules],
  }];
}
