/** What the whole mesh has in common, and the outcome every transform shares. */
import type { GatewayAddress } from "../../mesh/workload.ts";
import type { Outcome as EngineOutcome } from "../collect/engine.ts";
import type { ObjectKey } from "../objects.ts";

export interface AmbientOptions {
  readonly clusterId: string;
  /** Of every address of this cluster, where its system namespace has no label that says it; may be empty (CP-123). */
  readonly network: string;
  /** Where the mesh's own settings name none. */
  readonly trustDomain: string;
  /** Policies here hold for the mesh (CP-334). Where the mesh's own settings name none. */
  readonly rootNamespace: string;
  /** Where istiod runs: its label names the network (CP-123). */
  readonly systemNamespace: string;
  /** Whether other clusters' objects enter, and services span networks (CP-280). */
  readonly multiNetwork: boolean;
  /** The suffix of service hostnames, `cluster.local`. */
  readonly clusterDomain: string;
  /** Istio kinds labelled with another revision are left out; empty takes them all (CP-107). */
  readonly revision: string;
  /** Whether dry-run policies are sent, marked as such (CP-332). */
  readonly dryRunPolicies: boolean;
  /** Whether a principal of one of the mesh's trust domains holds for all of them (CP-344). */
  readonly expandTrustDomains: boolean;
  /** Whether waypoints may reach what is behind them without a policy that says so (CP-361). */
  readonly autoAllowWaypoints: boolean;
  /** Whether ServiceEntries select pods (CP-208). */
  readonly serviceEntriesSelectPods: boolean;
  /** Whether Kubernetes Services select WorkloadEntries (CP-212). */
  readonly servicesSelectWorkloadEntries: boolean;
  /** Whether ZtunnelAccepted is said of those policies alone that a workload of the mesh comes under (CP-346). */
  readonly conditionsOfMatchingPoliciesOnly: boolean;
}

export const AMBIENT_DEFAULTS: AmbientOptions = {
  clusterId: "Kubernetes",
  network: "",
  trustDomain: "cluster.local",
  rootNamespace: "istio-system",
  systemNamespace: "istio-system",
  multiNetwork: false,
  clusterDomain: "cluster.local",
  revision: "",
  dryRunPolicies: false,
  expandTrustDomains: false,
  autoAllowWaypoints: false,
  serviceEntriesSelectPods: true,
  servicesSelectWorkloadEntries: true,
  conditionsOfMatchingPoliciesOnly: false,
};

/** What all objects of one cluster have in common. */
export interface Place extends Pick<AmbientOptions, "clusterId" | "network" | "trustDomain"> {
  /** By which others reach the network, if it is known (CP-207). */
  readonly gateway?: GatewayAddress;
}

/** Why an object, or a part of it, is not in the mesh as its author asked. */
export interface Problem {
  readonly object: ObjectKey;
  readonly reason: string;
  readonly message: string;
}

/** What one object yields: items by key, and what stood in the way of others. */
export type Outcome<T> = EngineOutcome<T, Problem>;
