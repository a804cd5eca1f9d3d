/** PeerAuthentication on its way in (CP-695). */
import { decodePeerAuthentication } from "../decode/security.ts";
import type { Field } from "../decode/field.ts";
import { NO_META } from "../decode/no_meta.ts";
import type { Findings } from "./findings.ts";
import { checkSelector } from "./selectors.ts";

export function checkPeerAuthentication(root: Field, findings: Findings): void {
  findings.attempt(() => decodePeerAuthentication(root, NO_META)); // Modes, ports, and ports without a selector.
  const spec = root.get("spec"), ports = spec.get("portLevelMtls");
  checkSelector(spec.get("selector"), findings);
  const entries = findings.attempt(() => ports.entries()) ?? [];
  findings.refuseIf(ports.present && entries.length === 0, ports, "must hold at least one port, or be absent");
}
