/** Which kinds we write conditions of, how their API takes them, and which types each purpose owns. */
import type { ResourceType } from "../../kube/api.ts";
import {
  AUTHORIZATION_POLICIES,
  GATEWAY_CLASSES,
  GATEWAYS,
  SERVICE_ENTRIES,
  SERVICES,
  WORKLOAD_ENTRIES,
} from "../../kube/resource_types.ts";

export interface StatusKind {
  readonly type: ResourceType;
  /**
   * `keyed`: each condition has its owner, and server-side apply leaves those of others alone. `whole`: Istio's kinds
   * declare their conditions as one value, so whoever writes any writes all; see planConditions().
   */
  readonly conditions: "keyed" | "whole";
}

const KINDS: readonly StatusKind[] = [
  { type: SERVICES, conditions: "keyed" },
  { type: GATEWAYS, conditions: "keyed" },
  { type: GATEWAY_CLASSES, conditions: "keyed" },
  { type: SERVICE_ENTRIES, conditions: "whole" },
  { type: WORKLOAD_ENTRIES, conditions: "whole" },
  { type: AUTHORIZATION_POLICIES, conditions: "whole" },
];

const BY_KIND: ReadonlyMap<string, StatusKind> = new Map(KINDS.map((it) => [it.type.kind, it]));

/** Undefined for kinds whose status is none of ours. */
export function statusKind(kind: string): StatusKind | undefined {
  return BY_KIND.get(kind);
}

/** The types that each purpose may write, by its field manager (CP-275): what it does not want is taken away. */
const OWNED_TYPES: ReadonlyMap<string, readonly string[]> = new Map([
  [
    "istio-ambient-service",
    ["istio.io/WaypointBound", "istio.io/WaypointMissing", "istio.io/VisibilityApplied", "ambit/InMesh"],
  ],
  ["istio-ambient-workloadentry", ["istio.io/WaypointBound"]],
  ["istio-ambient-ztunnel-policy", ["ZtunnelAccepted"]],
  ["istio-ambient-waypoint-policy", ["WaypointAccepted"]],
]);

export function ownedTypes(fieldManager: string): readonly string[] {
  return OWNED_TYPES.get(fieldManager) ?? [];
}
