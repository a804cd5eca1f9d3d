/** What is watched of a cluster, and why: one row a kind (CP section 2.1). A kind with a decoder joins by a row. */
import type { ResourceType, Scope } from "../../kube/api.ts";
import {
  AUTHORIZATION_POLICIES,
  ENDPOINT_SLICES,
  GATEWAY_CLASSES,
  GATEWAYS,
  NAMESPACES,
  NODES,
  PEER_AUTHENTICATIONS,
  PODS,
  SERVICE_ENTRIES,
  SERVICES,
  WORKLOAD_ENTRIES,
} from "../../kube/resource_types.ts";
import type { ProtoFields } from "../../kube/proto_fields.ts";
import type { ObjectKind } from "../objects.ts";
import { ENDPOINT_SLICE_FIELDS, METADATA_FIELDS, POD_FIELDS, SERVICE_FIELDS } from "./read_fields.ts";

/** One kind of a cluster that the mesh is derived from. */
export interface WatchedKind {
  readonly kind: ObjectKind;
  readonly type: ResourceType;
  readonly scope: Scope;
  /** Whether it is there only once its CRD is (CP-100). */
  readonly optional: boolean;
  /** Whether remote clusters have a say in it, or the cluster of the configuration alone. */
  readonly everywhere: boolean;
  /** Whether the mesh must not be served without it: it would let pass what a policy refuses, or know half of its members. */
  readonly needed: boolean;
}

const ALL: Scope = {};

const builtIn = (
  kind: ObjectKind,
  type: ResourceType,
  { scope = ALL, fields, needed = true }: { scope?: Scope; fields: ProtoFields; needed?: boolean },
): WatchedKind => Object.freeze({ kind, type, scope: { ...scope, fields }, optional: false, everywhere: true, needed });
const custom = (kind: ObjectKind, type: ResourceType, more: Partial<WatchedKind> = {}): WatchedKind =>
  Object.freeze({ kind, type, scope: ALL, optional: true, everywhere: false, needed: true, ...more });

/** Every kind, in the order in which they are said at the start. */
export const WATCHED_KINDS: readonly WatchedKind[] = [
  builtIn("Namespace", NAMESPACES, { fields: METADATA_FIELDS, scope: { metadataOnly: true } }),
  // Locality alone is read of nodes: a mesh that does not know it serves, and says so.
  builtIn("Node", NODES, { fields: METADATA_FIELDS, scope: { metadataOnly: true }, needed: false }),
  // A failed pod has no address any more; its last state would only hold one that another pod may have.
  builtIn("Pod", PODS, { fields: POD_FIELDS, scope: { fieldSelector: "status.phase!=Failed" } }),
  builtIn("Service", SERVICES, { fields: SERVICE_FIELDS }),
  builtIn("EndpointSlice", ENDPOINT_SLICES, {
    fields: ENDPOINT_SLICE_FIELDS,
    scope: { labelSelector: "kubernetes.io/service-name" },
  }),
  custom("ServiceEntry", SERVICE_ENTRIES),
  custom("WorkloadEntry", WORKLOAD_ENTRIES),
  custom("AuthorizationPolicy", AUTHORIZATION_POLICIES),
  custom("PeerAuthentication", PEER_AUTHENTICATIONS),
  custom("Gateway", GATEWAYS, { everywhere: true }),
  custom("GatewayClass", GATEWAY_CLASSES),
];

/** A CRD's name, and what a person calls the resource: `gateways.gateway.networking.k8s.io`. */
export function resourceName({ plural, group }: ResourceType): string {
  return group === "" ? plural : `${plural}.${group}`;
}

/** The kinds that these settings leave in: a name, or `*.` and the end of one; what is included is so whatever is ignored (CP-100). */
export function kindsOf(filters: { ignore: readonly string[]; include: readonly string[] }): readonly WatchedKind[] {
  const { ignore, include } = filters;
  return WATCHED_KINDS.filter(({ type, optional }) => {
    const name = resourceName(type);
    return !optional || !matches(name, ignore) || matches(name, include);
  });
}

function matches(name: string, patterns: readonly string[]): boolean {
  return patterns.some((pattern) => pattern.startsWith("*.") ? name.endsWith(pattern.slice(2)) : name === pattern);
}
