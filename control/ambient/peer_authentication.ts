/**
 * PeerAuthentication to policies, and to the references workloads carry (CP-350 to CP-356). Inheritance is resolved in
 * one place for both, so that no reference ever dangles (CP-355). Pure.
 */
import { type Policy, PolicyAction, type PolicyMatch, type PolicyRule, PolicyScope } from "../../mesh/policy.ts";
import type { Labels, MtlsMode, PeerAuthenticationObject } from "../objects.ts";
import { policyMatch } from "./authorization_policy.ts";
import { selects } from "./labels.ts";

export const STATIC_STRICT_NAME = "istio_converted_static_strict";

const WITHOUT_IDENTITY: PolicyMatch = policyMatch({ notPrincipals: [{ kind: "presence", value: "" }] });

function denyPolicy(namespace: string, name: string, rules: readonly PolicyRule[]): Policy {
  return {
    key: `${namespace}/${name}`,
    name,
    namespace,
    scope: PolicyScope.WORKLOAD_SELECTOR,
    action: PolicyAction.DENY,
    rules,
    dryRun: false,
  };
}

/** Denies whoever has no identity; sent as soon as there is any PeerAuthentication (CP-350). */
export function staticStrictPolicy(rootNamespace: string): Policy {
  return denyPolicy(rootNamespace, STATIC_STRICT_NAME, [{ clauses: [[WITHOUT_IDENTITY]] }]);
}

/** The one that counts among several: the oldest; of the same age the first by name. */
function oldest(objects: readonly PeerAuthenticationObject[]): PeerAuthenticationObject | undefined {
  let best: PeerAuthenticationObject | undefined;
  for (const object of objects) {
    if (
      best === undefined || object.meta.createdAtMs < best.meta.createdAtMs ||
      (object.meta.createdAtMs === best.meta.createdAtMs && object.meta.name < best.meta.name)
    ) best = object;
  }
  return best;
}

/** What is in force where no selector matches: the namespace's mode, else the mesh's, else permissive (CP-351). */
export function inheritedStrict(
  ofNamespace: readonly PeerAuthenticationObject[],
  ofRoot: readonly PeerAuthenticationObject[],
): boolean {
  const modeOf = (objects: readonly PeerAuthenticationObject[]): MtlsMode =>
    oldest(objects.filter((object) => object.selector.size === 0))?.mode ?? "UNSET";
  const mode = modeOf(ofNamespace);
  return (mode === "UNSET" ? modeOf(ofRoot) : mode) === "STRICT";
}

function portsOf(object: PeerAuthenticationObject, ...modes: readonly MtlsMode[]): number[] {
  return [...object.portModes].filter(([, mode]) => modes.includes(mode)).map(([port]) => port).sort((a, b) => a - b);
}

/**
 * The policy of its own that a PeerAuthentication needs, because some port differs from its workload (table of CP-352);
 * undefined where the static policy, or none, says it all. DISABLE is PERMISSIVE throughout (CP-354).
 */
export function convertPeerAuthentication(
  object: PeerAuthenticationObject,
  parentStrict: boolean,
  rootNamespace: string,
): Policy | undefined {
  const { namespace, name } = object.meta;
  if (namespace === rootNamespace || object.selector.size === 0) return undefined;
  const strict = object.mode === "UNSET" ? parentStrict : object.mode === "STRICT";
  const rules: PolicyRule[] = [];
  if (strict) {
    const exempt = portsOf(object, "PERMISSIVE", "DISABLE").map((
      port,
    ) => [policyMatch({ notDestinationPorts: [port] })]);
    if (exempt.length === 0) return undefined;
    rules.push({
      clauses: object.mode === "UNSET" ? [...exempt, [WITHOUT_IDENTITY]] : [[WITHOUT_IDENTITY], ...exempt],
    });
  } else {
    for (const port of portsOf(object, "STRICT")) {
      rules.push({ clauses: [[policyMatch({ ...WITHOUT_IDENTITY, destinationPorts: [port] })]] });
    }
    if (rules.length === 0) return undefined;
  }
  return denyPolicy(namespace, `converted_peer_authentication_${name}`, rules);
}

/** The keys of PeerAuthentication-derived policies that a workload must name (CP-215 b). */
export function peerAuthenticationReferences(
  labels: Labels,
  ofNamespace: readonly PeerAuthenticationObject[],
  ofRoot: readonly PeerAuthenticationObject[],
  rootNamespace: string,
): readonly string[] {
  const parentStrict = inheritedStrict(ofNamespace, ofRoot);
  const own = oldest(
    ofNamespace.filter((object) =>
      object.meta.namespace !== rootNamespace && object.selector.size > 0 && selects(object.selector, labels)
    ),
  );
  const converted = own && convertPeerAuthentication(own, parentStrict, rootNamespace);
  if (converted !== undefined) return [converted.key];
  const strict = own === undefined || own.mode === "UNSET" ? parentStrict : own.mode === "STRICT";
  return strict ? [`${rootNamespace}/${STATIC_STRICT_NAME}`] : [];
}
