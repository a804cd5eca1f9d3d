/** Settings of Istio's ztunnel that this one does not have: those that merely add, which are told of. */
import type { Logger } from "../../base/log.ts";

const TOLD: readonly (readonly [name: string, instead: string])[] = [
  ["TLS12_ENABLED", "the control plane may be of TLS 1.2; HBONE is spoken over TLS 1.3 alone"],
  ["FAKE_CA", "certificates come from CA_ADDRESS"],
];

/** Tells of each that is asked for. */
export function checkMissingSettings(environment: (name: string) => string | undefined, log: Logger): void {
  for (const [name, instead] of TOLD) {
    const value = environment(name)?.toLowerCase() ?? "";
    if (value === "true" || value === "1") log.warn("a setting that is not there yet", { name, instead });
  }
}
