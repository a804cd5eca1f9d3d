/** Settings of Istio's ztunnel that this one does not have: what protects is refused, what merely adds is told. */
import { MeshError } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";

/** Without these a ztunnel would be less strict than its operator believes. */
const REFUSED: readonly (readonly [name: string, what: string])[] = [
  ["COMPLIANCE_POLICY", "compliance policies, such as post-quantum key exchange alone"],
];

const TOLD: readonly (readonly [name: string, instead: string])[] = [
  ["TLS12_ENABLED", "TLS 1.3 alone is spoken"],
  ["FAKE_CA", "certificates come from CA_ADDRESS"],
];

/** @throws MeshError AMB2406 if a setting asks for protection that is not there. */
export function checkMissingSettings(environment: (name: string) => string | undefined, log: Logger): void {
  for (const [name, what] of REFUSED) {
    if ((environment(name) ?? "") === "") continue;
    throw new MeshError("AMB2406", `${name} is set, and ${what} are not there yet`, {
      remedy: `unset ${name} if you can do without`,
    });
  }
  for (const [name, instead] of TOLD) {
    const value = environment(name)?.toLowerCase() ?? "";
    if (value === "true" || value === "1") log.warn("a setting that is not there yet", { name, instead });
  }
}
