/** Whether an object may enter the cluster: by its group and kind, whatever its version (CP-691, CP-692). Pure. */
import type { Plain } from "../../base/plain.ts";
import { Field } from "../decode/field.ts";
import { checkAuthorizationPolicy } from "./authorization_policy.ts";
import { checkServiceEntry, checkWorkloadEntry } from "./entries.ts";
import { Findings } from "./findings.ts";
import { checkPeerAuthentication } from "./peer_authentication.ts";

/** An object that bears it is refused: how the webhook finds out whether it is asked (CP-693). */
export const ALWAYS_REJECT = "internal.istio.io/webhook-always-reject";

const CHECKS: Readonly<Record<string, (root: Field, findings: Findings) => void>> = {
  "security.istio.io/AuthorizationPolicy": checkAuthorizationPolicy,
  "security.istio.io/PeerAuthentication": checkPeerAuthentication,
  "networking.istio.io/ServiceEntry": checkServiceEntry,
  "networking.istio.io/WorkloadEntry": checkWorkloadEntry,
};

/** Kinds of Istio that are stored for others: refusing them would break what was there before us. */
const UNUSED: ReadonlySet<string> = new Set([
  "security.istio.io/RequestAuthentication",
  "networking.istio.io/VirtualService",
  "networking.istio.io/DestinationRule",
  "networking.istio.io/Gateway",
  "networking.istio.io/Sidecar",
  "networking.istio.io/EnvoyFilter",
  "networking.istio.io/WorkloadGroup",
  "networking.istio.io/ProxyConfig",
  "telemetry.istio.io/Telemetry",
  "extensions.istio.io/WasmPlugin",
  "extensions.istio.io/TrafficExtension",
]);

export interface Verdict {
  /** Why it may not enter; empty: it may. */
  readonly problems: readonly string[];
  readonly warnings: readonly string[];
}

export function judgeObject(group: string, kind: string, object: Plain): Verdict {
  const name = `${group}/${kind}`, check = Object.hasOwn(CHECKS, name) ? CHECKS[name] : undefined;
  const root = new Field(object), findings = new Findings();
  if (check === undefined && !UNUSED.has(name)) {
    return { problems: [`kind ${kind} of group "${group}" is not known here`], warnings: [] };
  }
  findings.attempt(() => {
    root.required().only("apiVersion", "kind", "metadata", "spec", "status");
    const annotation = root.get("metadata").get("annotations").get(ALWAYS_REJECT);
    if (annotation.present) annotation.fail("asks for this refusal");
  });
  if (findings.problems.length > 0) return findings;
  if (check === undefined) findings.warnings.push(`${kind} is neither checked nor used by this control plane`);
  else findings.attempt(() => check(root, findings)); // What a check did not foresee is a refusal, too.
  return findings;
}
