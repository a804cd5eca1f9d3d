/** What the mesh says of each object in its status (CP section 3.5, CP-365). Pure. */
import type { WantedCondition, WantedConditions } from "../status/conditions.ts";
import { keyOf, type KubernetesObject, type ServiceEntryObject, type Visibility } from "../objects.ts";
import type { Problem } from "./options.ts";
import type { CandidateBinding } from "./service_candidates.ts";
import type { WorkloadBinding } from "./waypoint_binding.ts";

/** One writer's part of the conditions of an object, by its name for server-side apply (CP-275). */
export type FieldManager =
  | "istio-ambient-service"
  | "istio-ambient-workloadentry"
  | "istio-ambient-ztunnel-policy"
  | "istio-ambient-waypoint-policy";

/** A condition but for the generation, which is the object's. */
export type Said = Omit<WantedCondition, "observedGeneration">;

const WAYPOINT_BOUND = "istio.io/WaypointBound";
const WAYPOINT_MISSING = "istio.io/WaypointMissing";
const VISIBILITY_APPLIED = "istio.io/VisibilityApplied";
/** Ours: Istio says nothing of an object that it leaves out. Only ever False. */
export const IN_MESH = "ambit/InMesh";

/** Under this key an object's conditions by one manager are kept; with none of them said, whatever is there is pruned. */
export function conditionsKey(fieldManager: FieldManager, object: KubernetesObject): string {
  return `${fieldManager}|${keyOf(object)}`;
}

export function wantedConditions(
  fieldManager: FieldManager,
  object: KubernetesObject,
  said: readonly Said[],
): WantedConditions {
  const { namespace, name, generation } = object.meta;
  return {
    object: keyOf(object),
    resource: { kind: object.kind, namespace, name },
    fieldManager,
    conditions: said.map((it) => ({ ...it, observedGeneration: generation })),
  };
}

/** Whether a service goes through its waypoint, with a remark on ingress, and on a canary that is not used. */
export function serviceBoundCondition({ waypoint, ingress, refusal }: CandidateBinding): Said[] {
  if (waypoint === undefined) {
    return refusal === undefined ? [] : [{ type: WAYPOINT_BOUND, status: "False", ...refusal }];
  }
  const clauses = [`bound to waypoint ${waypoint}`];
  if (ingress === true) clauses.push("traffic from ingress goes through it too");
  if (ingress === false) {
    clauses.push(
      "traffic from ingress goes past it; set the label istio.io/ingress-use-waypoint to true to change that",
    );
  }
  if (refusal !== undefined) clauses.push(`its canary is not used: ${refusal.message}`);
  return [{ type: WAYPOINT_BOUND, status: "True", reason: "WaypointAccepted", message: clauses.join("; ") }];
}

/** Whether a WorkloadEntry is reached through its waypoint. */
export function workloadBoundCondition({ waypoint, refusal }: WorkloadBinding): Said[] {
  if (waypoint !== undefined) {
    const message = `bound to waypoint ${waypoint.key}`;
    return [{ type: WAYPOINT_BOUND, status: "True", reason: "WaypointAccepted", message }];
  }
  return refusal === undefined ? [] : [{ type: WAYPOINT_BOUND, status: "False", ...refusal }];
}

/** What a ServiceEntry asks for that only a waypoint can do. */
export function waypointMissingCondition(entry: ServiceEntryObject, binding: CandidateBinding): Said[] {
  if (binding.waypoint !== undefined) return [];
  const missing = (reason: string, message: string): Said[] => [
    { type: WAYPOINT_MISSING, status: "True", reason, message },
  ];
  if (entry.meta.annotations.get("istio.io/connect-strategy")?.toUpperCase() === "RACE_FIRST_TCP_CONNECT") {
    const message = "its connect strategy has no effect for ambient clients until it is bound to a waypoint";
    return missing("NoWaypointForRacingConnectStrategy", message);
  }
  if (!entry.hosts.some((host) => host.startsWith("*"))) return [];
  return missing("NoWaypointForWildcardService", "its wildcard hosts do not apply until it is bound to a waypoint");
}

const VISIBILITIES: Readonly<Record<Visibility, Pick<Said, "reason" | "message">>> = {
  PUBLIC: { reason: "Public", message: "the whole mesh sees it (PUBLIC)" },
  NAMESPACE: {
    reason: "Namespace",
    message: "its own namespace alone sees it (NAMESPACE), by the mesh's serviceEntryVisibility",
  },
  NONE: { reason: "None", message: "nobody sees it (NONE), by the mesh's serviceEntryVisibility" },
};

/** Who sees a ServiceEntry. @param visibility undefined as long as the mesh sets no rules (CP-112). */
export function visibilityCondition(visibility: Visibility | undefined): Said[] {
  if (visibility === undefined) return [];
  return [{ type: VISIBILITY_APPLIED, status: "True", ...VISIBILITIES[visibility] }];
}

/** That an object, or a part of it, is left out of the mesh, and for what; nothing where it is all there. */
export function leftOutCondition(problems: readonly Pick<Problem, "reason" | "message">[]): Said[] {
  const [first] = problems;
  if (first === undefined) return [];
  const message = problems.map((it) => it.message).join("; ");
  return [{ type: IN_MESH, status: "False", reason: first.reason, message }];
}
