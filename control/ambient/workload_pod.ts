/** Pods as workloads (CP-202 to CP-211). Pure. */
import { type Locality, type PortMapping, TunnelProtocol, type Workload, WorkloadType } from "../../mesh/workload.ts";
import { keyOf, type Labels, type NodeObject, type ObjectKey, type PodObject } from "../objects.ts";
import { parseIps } from "./addresses.ts";
import { canonicalNameOf, canonicalRevisionOf, tunnelOf } from "./labels.ts";
import type { Outcome, Place, Problem } from "./options.ts";
import { bindingProblems, type WorkloadBinding } from "./waypoint_binding.ts";

/** What a workload needs beyond its own object. */
export interface WorkloadSurroundings {
  /** By `namespace/hostname`. */
  readonly services: ReadonlyMap<string, readonly PortMapping[]>;
  /** Keys of policies, in the order of CP-215. */
  readonly policies: readonly string[];
  readonly binding: WorkloadBinding;
}

/** The fields of a workload that its binding decides. */
export function boundFields({ waypoint, tunnel }: WorkloadBinding) {
  return { ...(waypoint && { waypoint: waypoint.address }), ...(tunnel && { applicationTunnel: tunnel }) };
}

/** A pod that only lives in a namespace whose waypoint is not ready is no news of its own. */
export function workloadProblems(object: ObjectKey, { refusal, own }: WorkloadBinding): Problem[] {
  return own ? bindingProblems(object, refusal) : [];
}

export const NO_LOCALITY: Locality = { region: "", zone: "", subzone: "" };

/** Where a node stands (CP-203). */
export function localityOfNode(node: NodeObject): Locality {
  const { labels } = node.meta;
  return {
    region: labels.get("topology.kubernetes.io/region") ?? "",
    zone: labels.get("topology.kubernetes.io/zone") ?? "",
    subzone: labels.get("topology.istio.io/subzone") ?? "",
  };
}

function withoutSuffix(name: string, hash: string | undefined): string | undefined {
  return hash !== undefined && hash !== "" && name.endsWith(`-${hash}`) ? name.slice(0, -hash.length - 1) : undefined;
}

/** The name of what made the pod, as dashboards know it (CP-204). */
export function podWorkloadName(pod: PodObject): string {
  const { labels, controller, generateName, name } = pod.meta;
  const stated: string | undefined = labels.get("service.istio.io/workload-name");
  if (stated !== undefined && stated !== "") return stated;
  if (controller === undefined || generateName === "") return name;
  if (controller.kind === "ReplicaSet") {
    return withoutSuffix(controller.name, labels.get("rollouts-pod-template-hash")) ??
      withoutSuffix(controller.name, labels.get("pod-template-hash")) ?? controller.name;
  }
  if (controller.kind === "ReplicationController") return labels.get("deploymentconfig") || controller.name;
  if (controller.kind === "Job") return /^(.+)-\d+$/.exec(controller.name)?.[1] ?? controller.name;
  return controller.name;
}

/**
 * Whether traffic may go to the pod. In a cluster that is its Ready condition. A pod written by hand, into a folder on
 * a node without an API server, has nobody to set conditions: with none at all it counts as healthy. That is our own
 * extension; a pod that has any condition follows the rule.
 */
function isHealthy(pod: PodObject): boolean {
  return !pod.meta.deleting && pod.ready !== "false";
}

/** The uid of a pod's workload (CP table 3.1). */
export function podUid(pod: PodObject, place: Place): string {
  return `${place.clusterId}//Pod/${pod.meta.namespace}/${pod.meta.name}`;
}

/** Whether the pod is part of the mesh at all: alive, and with an address (CP-202). */
export function hasWorkload(pod: PodObject): boolean {
  return pod.phase !== "Failed" && pod.phase !== "Succeeded" && pod.podIps.length > 0;
}

/** A pod as a workload, if {@link hasWorkload}. */
export function workloadOfPod(
  pod: PodObject,
  locality: Locality,
  surroundings: WorkloadSurroundings,
  place: Place,
): Outcome<Workload> {
  const { ips, bad } = parseIps(pod.podIps);
  if (bad !== undefined) {
    const message = `${JSON.stringify(bad)} is not an address; the pod is left out`;
    return { items: [], problems: [{ object: keyOf(pod), reason: "BadAddress", message }] };
  }
  const { labels, annotations, namespace, name } = pod.meta;
  const tunnel = tunnelOf(labels, annotations), workloadName = podWorkloadName(pod), uid = podUid(pod, place);
  const workload: Workload = {
    uid,
    name,
    namespace,
    addresses: ips,
    hostname: "",
    network: place.network,
    tunnelProtocol: tunnel.hbone ? TunnelProtocol.HBONE : TunnelProtocol.NONE,
    trustDomain: place.trustDomain,
    serviceAccount: pod.serviceAccountName,
    ...boundFields(surroundings.binding),
    ...(place.gateway && { networkGateway: place.gateway }),
    node: pod.nodeName,
    canonicalName: canonicalNameOf(labels, workloadName),
    canonicalRevision: canonicalRevisionOf(labels),
    workloadType: WorkloadType.POD,
    workloadName,
    nativeTunnel: tunnel.native,
    authorizationPolicies: surroundings.policies,
    healthy: isHealthy(pod),
    clusterId: place.clusterId,
    locality,
    services: surroundings.services,
    hostNetwork: pod.hostNetwork,
    capacity: 1,
  };
  return { items: [[uid, workload]], problems: workloadProblems(keyOf(pod), surroundings.binding) };
}

/** Metadata labels win over those of a spec (CP-212). */
export function mergedLabels(ofSpec: Labels, ofMeta: Labels): Labels {
  return ofSpec.size === 0 ? ofMeta : new Map([...ofSpec, ...ofMeta]);
}
