/** From pods to workloads. What depends on a pod's namespace and labels alone is found once for all that are alike. */
import type { PortMapping, Workload } from "../../mesh/workload.ts";
import type { Engine } from "../collect/engine.ts";
import type { Collection } from "../collect/store.ts";
import type { Fetch } from "../collect/tracker.ts";
import { type ContainerPort, type EndpointSliceObject, type Labels, objectKey, type PodObject } from "../objects.ts";
import { equal } from "../collect/equal.ts";
import { type ClusterSuffix, suffixOf } from "./clusters.ts";
import { placeOfCluster } from "./network_graph.ts";
import type { AmbientOptions, Problem } from "./options.ts";
import { policyReferences } from "./policy_graph.ts";
import { portsOnPod } from "./port_mappings.ts";
import { claimedKey, type ServiceCandidate } from "./service_candidates.ts";
import { selectingServices, serviceOfSlice } from "./service_graph.ts";
import { bindWorkload, NO_WORKLOAD_BINDING, type WorkloadBinding } from "./waypoint_binding.ts";
import { finderOf, namespaceMeta, policiesOfWaypoints, waypointsOf } from "./waypoint_graph.ts";
import type { WorkloadInputs } from "./workload_graph.ts";
import { hasWorkload, localityOfNode, NO_LOCALITY, workloadOfPod } from "./workload_pod.ts";

/** What all pods of one namespace with the same labels have in common. */
interface Selection {
  readonly services: readonly ServiceCandidate[];
  readonly policies: readonly string[];
  readonly binding: WorkloadBinding;
}

type Services = ReadonlyMap<string, readonly PortMapping[]>;

const NO_LABELS: Labels = new Map();

/** Texts of label sets, as long as the sets live: pods of one template share theirs. */
class LabelTexts {
  readonly #texts = new WeakMap<Labels, string>();

  /** Equal for equal labels alone. */
  of(labels: Labels): string {
    let text = this.#texts.get(labels);
    if (text === undefined) {
      text = [...labels].map(([key, value]) => `${key}=${value}`).sort().join(",");
      this.#texts.set(labels, text);
    }
    return text;
  }
}

/** The last answer for each selection: pods of one template have the same ports, and then share the map. */
class SharedPorts {
  readonly #last = new WeakMap<Selection, { readonly ports: readonly ContainerPort[]; readonly services: Services }>();

  of(selection: Selection, pod: PodObject): Services {
    const last = this.#last.get(selection);
    if (last !== undefined && equal(last.ports, pod.containerPorts)) return last.services;
    const services = servicesOn(selection.services, pod);
    this.#last.set(selection, { ports: pod.containerPorts, services });
    return services;
  }
}

function servicesOn(candidates: readonly ServiceCandidate[], pod: PodObject): Services {
  return new Map(candidates.map((candidate) => [claimedKey(candidate), portsOnPod(candidate, pod)]));
}

/** Builds the part of the graph that yields the workloads of pods. */
export function buildPods(
  engine: Engine,
  inputs: WorkloadInputs,
  options: AmbientOptions,
): { readonly items: Collection<Workload>; readonly problems: Collection<Problem> } {
  const { sources, networks, services, waypoints } = inputs, texts = new LabelTexts(), shared = new SharedPorts();
  const kindOf = ({ meta }: PodObject, suffix: ClusterSuffix) => `${meta.namespace}${suffix}\n${texts.of(meta.labels)}`;
  const kinds = engine.kinds(sources.Pod, "pods by labels", (pod, key) => [kindOf(pod, suffixOf(key))]);
  const selections = engine.group("selections", kinds, ([pod], fetch, kind): Selection | undefined => {
    if (pod === undefined) return undefined;
    const { namespace, labels } = pod.meta, suffix = suffixOf(kind.slice(0, kind.indexOf("\n")));
    const meta = namespaceMeta(sources, namespace, suffix, fetch), find = finderOf(waypoints, suffix, fetch);
    const selecting = selectingServices(services, { namespace, suffix }, labels, fetch)
      .filter(({ fromKubernetes }) => fromKubernetes || options.serviceEntriesSelectPods);
    const binding = bindWorkload({ namespace, labels, annotations: NO_LABELS }, meta, find);
    const references = policyReferences(inputs.policies, namespace, labels, fetch, inputs.mesh);
    const allowing = policiesOfWaypoints(waypoints, waypointsOf(binding, selecting), fetch);
    return { services: selecting, policies: [...references, ...allowing], binding };
  });
  const withAllowing = (policies: readonly string[], named: readonly ServiceCandidate[], fetch: Fetch) => [
    ...new Set([...policies, ...policiesOfWaypoints(waypoints, waypointsOf(NO_WORKLOAD_BINDING, named), fetch)]),
  ];
  const localities = engine.derive("localities", sources.Node, localityOfNode);
  // A Service with a selector has slices, too, which change with each of its pods, and would run all others again.
  const choosing = engine.derive("slices that choose pods", sources.EndpointSlice, (slice, fetch, key) => {
    const candidate = serviceOfSlice(slice, suffixOf(key), { services, fetch, options });
    return candidate !== undefined && candidate.selector === undefined ? slice : undefined;
  });
  const slicesByPod = engine.index(choosing, "slices by pod", podsOfSlice);

  return engine.deriveOutcomes("workloads of pods", sources.Pod, (pod, fetch, key) => {
    const suffix = suffixOf(key), place = hasWorkload(pod) ? placeOfCluster(networks, suffix, fetch) : undefined;
    const selection = place && fetch.one(selections, kindOf(pod, suffix));
    if (place === undefined || selection === undefined) return undefined;
    const locality = pod.nodeName === ""
      ? NO_LOCALITY
      : fetch.one(localities, objectKey("Node", "", pod.nodeName) + suffix) ?? NO_LOCALITY;
    const named = servicesNaming(pod, suffix, { inputs, slices: fetch.own(slicesByPod), fetch, options });
    return workloadOfPod(pod, locality, {
      services: named.length === 0
        ? shared.of(selection, pod)
        : new Map([...shared.of(selection, pod), ...servicesOn(named, pod)]),
      policies: named.length === 0 ? selection.policies : withAllowing(selection.policies, named, fetch),
      binding: selection.binding,
    }, place);
  });
}

function podsOfSlice({ endpoints, meta }: EndpointSliceObject, key: string): string[] {
  return endpoints.flatMap(({ target }) =>
    target?.kind === "Pod" ? [objectKey("Pod", target.namespace || meta.namespace, target.name) + suffixOf(key)] : []
  );
}

/** The services of those slices that name the pod, and not one before it of the same name (CP-208). */
function servicesNaming(
  { meta: { namespace, name, uid } }: PodObject,
  suffix: ClusterSuffix,
  { inputs, slices, fetch, options }: {
    readonly inputs: WorkloadInputs;
    readonly slices: readonly EndpointSliceObject[];
    readonly fetch: Fetch;
    readonly options: AmbientOptions;
  },
): ServiceCandidate[] {
  const found: ServiceCandidate[] = [];
  for (const slice of slices) {
    const named = slice.endpoints.some(({ target }) =>
      target?.kind === "Pod" && target.name === name && target.uid === uid
    );
    if (!named || slice.meta.namespace !== namespace) continue;
    const candidate = serviceOfSlice(slice, suffix, { services: inputs.services, fetch, options });
    if (candidate !== undefined) found.push(candidate);
  }
  return found;
}
