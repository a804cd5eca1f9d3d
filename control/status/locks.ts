/** The locks that Istio's control planes hold by name (CP section 8.1): the same names and objects, so that theirs and ours exclude each other. */

/** One lock in the system namespace. */
export interface Lock {
  readonly name: string;
  /** Which object holds it. Istio keeps its older locks in a ConfigMap's annotation. */
  readonly store: "Lease" | "ConfigMap";
  /** Whether the default revision takes it from others (CP-651). Locks of one revision have nobody to take it from. */
  readonly prioritised: boolean;
}

const shared = (name: string, store: Lock["store"]): Lock => Object.freeze({ name, store, prioritised: true });

/** Root certificates in every namespace, and the cluster's trust bundle. */
export const NAMESPACE_LOCK = shared("istio-namespace-controller-election", "ConfigMap");
/** Taints of nodes (CP-664). */
export const NODE_UNTAINT_LOCK = shared("istio-node-untaint", "ConfigMap");
/** Addresses of ServiceEntries (CP-240). */
export const ADDRESS_LOCK = shared("istio-ip-autoallocate", "ConfigMap");
/** What analysis finds, in the status of objects (CP-699). */
export const ANALYSIS_LOCK = shared("istio-analyze-leader", "ConfigMap");
/** Conditions of the ambient inputs (CP-275). */
export const STATUS_LOCK = shared("istio-status-leader", "Lease");

/** Status of Gateways and routes: one leader per revision. */
export function gatewayStatusLock(revision: string): Lock {
  return Object.freeze({ name: `istio-gateway-status-leader-${revision}`, store: "Lease", prioritised: false });
}
