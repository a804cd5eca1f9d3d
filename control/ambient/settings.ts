/** The settings of what is derived from objects, as rows of istiod's table. */
import { toggle } from "../../base/config.ts";
import type { AmbientOptions } from "./options.ts";

export const AMBIENT_SETTINGS = {
  autoAllowWaypoints: {
    kind: toggle(),
    flag: "auto-allow-waypoint-policy",
    env: "PILOT_AUTO_ALLOW_WAYPOINT_POLICY",
    default: false,
    help: "let waypoints reach what is behind them without a policy of the user's that says so",
  },
  serviceEntriesSelectPods: {
    kind: toggle(),
    flag: "serviceentry-select-pods",
    env: "PILOT_ENABLE_SERVICEENTRY_SELECT_PODS",
    default: true,
    help: "pods are endpoints of ServiceEntries whose workloadSelector matches them",
  },
  servicesSelectWorkloadEntries: {
    kind: toggle(),
    flag: "service-select-workload-entries",
    env: "PILOT_ENABLE_K8S_SELECT_WORKLOAD_ENTRIES",
    default: true,
    help: "WorkloadEntries are endpoints of Kubernetes Services whose selector matches them",
  },
  dryRunPolicies: {
    kind: toggle(),
    flag: "dry-run-policies",
    env: "AMBIENT_ENABLE_DRY_RUN_AUTHORIZATION_POLICY",
    default: false,
    help: "send AuthorizationPolicies annotated with istio.io/dry-run, which log and decide nothing",
  },
  expandTrustDomains: {
    kind: toggle(),
    flag: "expand-trust-domains",
    env: "AMBIT_EXPAND_TRUST_DOMAINS",
    default: false,
    help: "principals of cluster.local, or of one of the mesh's trust domains, hold for all of them at ztunnel too",
  },
  conditionsOfMatchingPoliciesOnly: {
    kind: toggle(),
    flag: "conditions-of-matching-policies-only",
    env: "AMBIT_CONDITIONS_OF_MATCHING_POLICIES_ONLY",
    default: false,
    help: "say ZtunnelAccepted only of AuthorizationPolicies that a workload of the mesh comes under",
  },
} as const;

type AmbientSettings = { readonly [K in keyof typeof AMBIENT_SETTINGS]: AmbientOptions[K] };

/** The options that these settings are. */
export function ambientOptions(config: AmbientSettings): AmbientSettings {
  const { autoAllowWaypoints, serviceEntriesSelectPods, servicesSelectWorkloadEntries } = config;
  const { dryRunPolicies, expandTrustDomains, conditionsOfMatchingPoliciesOnly } = config;
  return {
    autoAllowWaypoints,
    serviceEntriesSelectPods,
    servicesSelectWorkloadEntries,
    dryRunPolicies,
    expandTrustDomains,
    conditionsOfMatchingPoliciesOnly,
  };
}
