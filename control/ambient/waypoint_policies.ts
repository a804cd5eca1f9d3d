/** Policies that let waypoints reach what is behind them, where nobody has to write those (CP-361). Pure. */
import { type Policy, PolicyAction, PolicyScope } from "../../mesh/policy.ts";
import { policyMatch } from "./authorization_policy.ts";

/** The name has characters that no object's may have, so that nobody's policy is mistaken for it. */
function nameOf(waypointKey: string): string {
  return `istio_allow_waypoint_${waypointKey.replace("/", "_")}`;
}

/** The key of the policy of a waypoint, by `namespace/name`: it is in the waypoint's namespace. */
function policyKey(waypointKey: string): string {
  return `${waypointKey.slice(0, waypointKey.indexOf("/"))}/${nameOf(waypointKey)}`;
}

/** Lets connections of the waypoint's accounts through to whatever names the policy. */
export function allowWaypointPolicy(waypointKey: string, accounts: readonly string[], trustDomain: string): Policy {
  const namespace = waypointKey.slice(0, waypointKey.indexOf("/"));
  const principals = accounts.map((account) => ({
    kind: "exact" as const,
    value: `${trustDomain}/ns/${namespace}/sa/${account}`,
  }));
  return {
    key: policyKey(waypointKey),
    name: nameOf(waypointKey),
    namespace,
    scope: PolicyScope.WORKLOAD_SELECTOR,
    action: PolicyAction.ALLOW,
    rules: [{ clauses: [[policyMatch({ principals })]] }],
    dryRun: false,
  };
}

/** The policies of these waypoints, as workloads name them; only of such as have one, so that a reference never dangles. */
export function allowWaypointReferences(
  waypointKeys: Iterable<string | undefined>,
  hasPolicy: (waypointKey: string) => boolean,
): readonly string[] {
  const named = new Set<string>();
  for (const key of waypointKeys) if (key !== undefined && hasPolicy(key)) named.add(policyKey(key));
  return [...named].sort();
}
