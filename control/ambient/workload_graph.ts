/** From pods, entries and slices to the workloads of the mesh: what each of them fetches beside itself. */
import { serviceKey } from "../../mesh/service.ts";
import type { Workload } from "../../mesh/workload.ts";
import type { Engine } from "../collect/engine.ts";
import type { Collection, Index } from "../collect/store.ts";
import type { Fetch } from "../collect/tracker.ts";
import { type EndpointSliceObject, type Labels, objectKey, type PodObject } from "../objects.ts";
import type { AmbientOptions, Outcome } from "./options.ts";
import { type PolicyCollections, policyReferences } from "./policy_graph.ts";
import { portsOnEntry, portsOnPod, portsOnSlice } from "./port_mappings.ts";
import { claimedKey, entryCandidateKey, hostnameOf, type ServiceCandidate } from "./service_candidates.ts";
import { selectingServices, type ServiceCollections } from "./service_graph.ts";
import type { MeshCells, ObjectOf, Sources } from "./sources.ts";
import { bindWorkload } from "./waypoint_binding.ts";
import { finderOf, namespaceMeta, type WaypointCollections } from "./waypoint_graph.ts";
import { workloadOfEntry, workloadsOfServiceEntry, workloadsOfSlice } from "./workload_entry.ts";
import { hasWorkload, mergedLabels, workloadOfPod } from "./workload_pod.ts";

const NO_LABELS: Labels = new Map();
const SERVICE_NAME_LABEL = "kubernetes.io/service-name";

/** What workloads are made from. */
interface WorkloadInputs {
  readonly sources: Sources;
  readonly mesh: MeshCells;
  readonly serviceEntries: Collection<ObjectOf<"ServiceEntry">>;
  readonly workloadEntries: Collection<ObjectOf<"WorkloadEntry">>;
  readonly waypoints: WaypointCollections;
  readonly services: ServiceCollections;
  readonly policies: PolicyCollections;
}

type Workloads = Collection<Outcome<Workload>>;

/** Builds the part of the graph that yields workloads, a collection for each kind that has some. */
export function buildWorkloads(engine: Engine, inputs: WorkloadInputs, options: AmbientOptions): readonly Workloads[] {
  const references = (namespace: string, labels: Labels, fetch: Fetch) =>
    policyReferences(inputs.policies, namespace, labels, fetch, inputs.mesh);
  const binder = (namespace: string, fetch: Fetch) => {
    const meta = namespaceMeta(inputs.sources, namespace, fetch), find = finderOf(inputs.waypoints, fetch);
    return (labels: Labels) => bindWorkload({ namespace, labels, annotations: NO_LABELS }, meta, find);
  };
  const slicesByPod = engine.index(inputs.sources.EndpointSlice, "slices by pod", podsOfSlice);

  const ofPods = engine.derive("workloads of pods", inputs.sources.Pod, (pod, fetch) => {
    if (!hasWorkload(pod)) return undefined;
    const { namespace, labels } = pod.meta;
    const node = pod.nodeName === "" ? undefined : fetch.one(inputs.sources.Node, objectKey("Node", "", pod.nodeName));
    const services = servicesOfPod(pod, inputs.services, slicesByPod, fetch, options);
    const policies = references(namespace, labels, fetch), binding = binder(namespace, fetch)(labels);
    return workloadOfPod(pod, node, { services, policies, binding }, fetch.value(inputs.mesh.place));
  });

  const ofEntries = engine.derive("workloads of WorkloadEntries", inputs.workloadEntries, (entry, fetch) => {
    const labels = mergedLabels(entry.spec.labels, entry.meta.labels), { namespace } = entry.meta;
    const selecting = selectingServices(inputs.services, namespace, labels, fetch);
    const services = new Map(selecting.map((it) => [claimedKey(it), portsOnEntry(it, entry.spec)] as const));
    const policies = references(namespace, labels, fetch), binding = binder(namespace, fetch)(labels);
    return workloadOfEntry(entry, labels, { services, policies, binding }, fetch.value(inputs.mesh.place));
  });

  const ofServiceEntries = engine.derive("workloads of ServiceEntries", inputs.serviceEntries, (entry, fetch) => {
    const { namespace, labels } = entry.meta, won = new Map<string, ServiceCandidate>();
    for (const host of entry.hosts) {
      const winner = fetch.one(inputs.services.winners, serviceKey(namespace, host));
      if (winner?.key === entryCandidateKey(entry, host)) won.set(host, winner);
    }
    const policies = references(namespace, labels, fetch), bind = binder(namespace, fetch);
    return workloadsOfServiceEntry(entry, won, { policies, bind }, fetch.value(inputs.mesh.place));
  });

  const ofSlices = engine.derive("workloads of EndpointSlices", inputs.sources.EndpointSlice, (slice, fetch) => {
    const candidate = slice.addressType === "FQDN" ? undefined : serviceOfSlice(slice, inputs.services, fetch, options);
    if (candidate === undefined) return undefined;
    const ports = new Map([[claimedKey(candidate), portsOnSlice(candidate, slice.ports)]]);
    return workloadsOfSlice(slice, ports, fetch.value(inputs.mesh.place));
  });

  return [ofPods, ofEntries, ofServiceEntries, ofSlices];
}

function podsOfSlice(slice: EndpointSliceObject): string[] {
  return slice.endpoints.flatMap(({ target }) =>
    target?.kind === "Pod" ? [`${target.namespace || slice.meta.namespace}/${target.name}`] : []
  );
}

/** The Kubernetes Service that a slice belongs to, if there is one (CP-214). */
function serviceOfSlice(
  slice: EndpointSliceObject,
  services: ServiceCollections,
  fetch: Fetch,
  options: AmbientOptions,
): ServiceCandidate | undefined {
  const name = slice.meta.labels.get(SERVICE_NAME_LABEL), { namespace } = slice.meta;
  if (name === undefined) return undefined;
  const winner = fetch.one(services.winners, serviceKey(namespace, hostnameOf(name, namespace, options)));
  return winner?.fromKubernetes === true ? winner : undefined;
}

/** The services of a pod and its ports in each: by selector, or by a slice that names the pod (CP-208). */
function servicesOfPod(
  pod: PodObject,
  services: ServiceCollections,
  slicesByPod: Index<EndpointSliceObject>,
  fetch: Fetch,
  options: AmbientOptions,
): Workload["services"] {
  const { namespace, name, labels, uid } = pod.meta;
  const found = selectingServices(services, namespace, labels, fetch);
  for (const slice of fetch.by(slicesByPod, `${namespace}/${name}`)) {
    const named = slice.endpoints.some(({ target }) =>
      target?.kind === "Pod" && target.name === name && target.uid === uid
    );
    if (!named || slice.meta.namespace !== namespace) continue;
    const candidate = serviceOfSlice(slice, services, fetch, options);
    // A Service with a selector has chosen its pods already.
    if (candidate !== undefined && candidate.selector === undefined) found.push(candidate);
  }
  return new Map(found.map((candidate) => [claimedKey(candidate), portsOnPod(candidate, pod)]));
}
