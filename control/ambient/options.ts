/** What the whole mesh has in common, and the outcome every transform shares. */
import type { ObjectKey } from "../objects.ts";

export interface AmbientOptions {
  readonly clusterId: string;
  /** Of every address of this cluster; empty is a valid name (CP-123). */
  readonly network: string;
  /** Where the mesh's own settings name none. */
  readonly trustDomain: string;
  /** Policies here hold for the mesh (CP-334). Where the mesh's own settings name none. */
  readonly rootNamespace: string;
  /** The suffix of service hostnames, `cluster.local`. */
  readonly clusterDomain: string;
  /** Istio kinds labelled with another revision are left out; empty takes them all (CP-107). */
  readonly revision: string;
  /** Whether dry-run policies are sent, marked as such (CP-332). */
  readonly dryRunPolicies: boolean;
}

export const AMBIENT_DEFAULTS: AmbientOptions = {
  clusterId: "Kubernetes",
  network: "",
  trustDomain: "cluster.local",
  rootNamespace: "istio-system",
  clusterDomain: "cluster.local",
  revision: "",
  dryRunPolicies: false,
};

/** What all objects of one cluster have in common. */
export type Place = Pick<AmbientOptions, "clusterId" | "network" | "trustDomain">;

/** Why an object, or a part of it, is not in the mesh as its author asked. */
export interface Problem {
  readonly object: ObjectKey;
  readonly reason: string;
  readonly message: string;
}

/** What one object yields: items by key, and what stood in the way of others. */
export interface Outcome<T> {
  readonly items: readonly (readonly [key: string, item: T])[];
  readonly problems: readonly Problem[];
}
