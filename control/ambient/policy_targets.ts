/** Whether the targets of an AuthorizationPolicy have waypoints that enforce it (CP-365). Pure: the caller looks up. */
import type { AuthorizationPolicyObject, TargetReference } from "../objects.ts";
import type { Said } from "./conditions.ts";
import { waypointKey } from "./waypoint.ts";

/** What a policy's targets are looked up in. */
export interface TargetLookup {
  readonly rootNamespace: string;
  /** The controller of a GatewayClass; undefined if there is no such class. */
  readonly controllerOf: (className: string) => string | undefined;
  /** Whether a Gateway is a usable waypoint, by `namespace/name`. */
  readonly isWaypoint: (key: string) => boolean;
  /** The waypoint of a Service or ServiceEntry, by `namespace/name`; undefined if there is no such object. */
  readonly bindingOf: (kind: "Service" | "ServiceEntry", key: string) => { waypoint: string | undefined } | undefined;
}

interface TargetVerdict {
  readonly bound: boolean;
  readonly reason: "Accepted" | "TargetNotFound" | "AncestorNotBound" | "Invalid";
  readonly message: string;
}

const WAYPOINT_CONTROLLER = "istio.io/mesh-controller";
const refused = (reason: TargetVerdict["reason"], message: string): TargetVerdict => ({
  bound: false,
  reason,
  message,
});
const boundTo = (what: string): TargetVerdict => ({ bound: true, reason: "Accepted", message: `bound to ${what}` });

function judgeClass(name: string, namespace: string, lookup: TargetLookup): TargetVerdict {
  if (namespace !== lookup.rootNamespace) {
    const message = `a policy for a GatewayClass must be in the root namespace, ${lookup.rootNamespace}`;
    return refused("Invalid", message);
  }
  const controller = lookup.controllerOf(name);
  if (controller === undefined) return refused("TargetNotFound", `GatewayClass ${name} was not found`);
  if (controller === WAYPOINT_CONTROLLER) return boundTo(name);
  return refused("Invalid", `GatewayClass ${name} is not of waypoints: its controller is not ${WAYPOINT_CONTROLLER}`);
}

function judge({ kind, name }: TargetReference, namespace: string, lookup: TargetLookup): TargetVerdict {
  const key = waypointKey(namespace, name);
  switch (kind) {
    case "GatewayClass":
      return judgeClass(name, namespace, lookup);
    case "Gateway":
      if (lookup.isWaypoint(key)) return boundTo(key);
      return refused("TargetNotFound", `Gateway ${key} was not found, or has no address yet`);
    case "Service":
    case "ServiceEntry": {
      const binding = lookup.bindingOf(kind, key);
      if (binding === undefined) return refused("TargetNotFound", `${kind} ${key} was not found`);
      if (binding.waypoint !== undefined) return boundTo(binding.waypoint);
      return refused("AncestorNotBound", `${kind} ${key} is not bound to a waypoint`);
    }
    default:
      return refused("Invalid", `a policy cannot be attached to a ${kind}`);
  }
}

/** The condition of a policy with targets: of one, its own verdict; of several, which of them are not bound. */
export function waypointAcceptedCondition(policy: AuthorizationPolicyObject, lookup: TargetLookup): Said[] {
  const { namespace } = policy.meta, type = "WaypointAccepted";
  const verdicts = policy.targets.map((target) => judge(target, namespace, lookup));
  const [first] = verdicts;
  if (first === undefined) return [];
  const status = verdicts.some(({ bound }) => bound) ? "True" : "False";
  if (verdicts.length === 1) return [{ type, status, reason: first.reason, message: first.message }];
  const unbound = verdicts.filter(({ bound }) => !bound);
  if (unbound.length === 0) return [{ type, status, reason: "Accepted", message: "bound to all of its targets" }];
  const names = policy.targets.filter((_, at) => !verdicts[at]?.bound).map(({ group, kind, name }) =>
    `${kind}.${group === "" ? "core" : group}:${waypointKey(namespace, name)}`
  );
  const reason = status === "True" ? "PartiallyInvalid" : "Invalid";
  return [{ type, status, reason, message: `invalid targetRefs: ${names.join(", ")}` }];
}
