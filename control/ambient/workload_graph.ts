/** From entries and slices to the workloads of the mesh, beside those of pods: what each of them fetches beside itself. */
import { serviceKey } from "../../mesh/service.ts";
import type { GatewayAddress, Workload } from "../../mesh/workload.ts";
import type { Engine } from "../collect/engine.ts";
import type { Collection } from "../collect/store.ts";
import type { Fetch } from "../collect/tracker.ts";
import type { Labels } from "../objects.ts";
import { suffixOf } from "./clusters.ts";
import { type NetworkCollections, placeOfCluster } from "./network_graph.ts";
import { gatewayOfWorkloads } from "./network_gateways.ts";
import type { AmbientOptions, Problem } from "./options.ts";
import { buildPods } from "./pod_graph.ts";
import { type PolicyCollections, policyReferences } from "./policy_graph.ts";
import { portsOnEntry, portsOnSlice } from "./port_mappings.ts";
import { claimedKey, entryCandidateKey, type ServiceCandidate } from "./service_candidates.ts";
import { selectingServices, type ServiceCollections, serviceOfSlice } from "./service_graph.ts";
import type { Inputs, ObjectOf } from "./sources.ts";
import { bindWorkload, type WorkloadBinding } from "./waypoint_binding.ts";
import {
  finderOf,
  namespaceMeta,
  policiesOfWaypoints,
  type WaypointCollections,
  waypointsOf,
} from "./waypoint_graph.ts";
import { workloadOfEntry, workloadsOfServiceEntry, workloadsOfSlice } from "./workload_entry.ts";
import { mergedLabels } from "./workload_pod.ts";

const NO_LABELS: Labels = new Map();

/** What workloads are made from. */
export interface WorkloadInputs extends Inputs {
  readonly serviceEntries: Collection<ObjectOf<"ServiceEntry">>;
  readonly workloadEntries: Collection<ObjectOf<"WorkloadEntry">>;
  readonly networks: NetworkCollections;
  readonly waypoints: WaypointCollections;
  readonly services: ServiceCollections;
  readonly policies: PolicyCollections;
}

/** What objects of one kind yielded. */
interface Workloads {
  readonly items: Collection<Workload>;
  readonly problems: Collection<Problem>;
}

/** Builds the part of the graph that yields workloads, of all clusters, a collection for each kind that has some. */
export function buildWorkloads(engine: Engine, inputs: WorkloadInputs, options: AmbientOptions): readonly Workloads[] {
  const references = (namespace: string, labels: Labels, fetch: Fetch) =>
    policyReferences(inputs.policies, namespace, labels, fetch, inputs.mesh);
  const binder = (namespace: string, fetch: Fetch) => {
    const meta = namespaceMeta(inputs.sources, namespace, "", fetch), find = finderOf(inputs.waypoints, "", fetch);
    return (labels: Labels) => bindWorkload({ namespace, labels, annotations: NO_LABELS }, meta, find);
  };
  const allowing = (binding: WorkloadBinding, candidates: readonly ServiceCandidate[], fetch: Fetch) =>
    policiesOfWaypoints(inputs.waypoints, waypointsOf(binding, candidates), fetch);
  const networkGateway = (fetch: Fetch) => (network: string): GatewayAddress | undefined =>
    gatewayOfWorkloads(fetch.by(inputs.networks.gatewaysByNetwork, network));

  const ofEntries = engine.deriveOutcomes("workloads of WorkloadEntries", inputs.workloadEntries, (entry, fetch) => {
    const labels = mergedLabels(entry.spec.labels, entry.meta.labels), { namespace } = entry.meta;
    const selecting = selectingServices(inputs.services, { namespace, suffix: "" }, labels, fetch)
      .filter(({ fromKubernetes }) => !fromKubernetes || options.servicesSelectWorkloadEntries);
    const services = new Map(selecting.map((it) => [claimedKey(it), portsOnEntry(it, entry.spec)] as const));
    const binding = binder(namespace, fetch)(labels);
    const policies = [...references(namespace, labels, fetch), ...allowing(binding, selecting, fetch)];
    const place = fetch.value(inputs.networks.place), surroundings = { services, policies, binding };
    return workloadOfEntry(entry, labels, surroundings, { place, gatewayOf: networkGateway(fetch) });
  });

  const ofServiceEntries = engine.deriveOutcomes(
    "workloads of ServiceEntries",
    inputs.serviceEntries,
    (entry, fetch) => {
      const { namespace, labels } = entry.meta, won = new Map<string, ServiceCandidate>();
      for (const host of entry.hosts) {
        const winner = fetch.one(inputs.services.winners, serviceKey(namespace, host));
        if (winner?.key === entryCandidateKey(entry, host)) won.set(host, winner);
      }
      const selecting = references(namespace, labels, fetch), bind = binder(namespace, fetch);
      const policies = (binding: WorkloadBinding, candidates: readonly ServiceCandidate[]) => [
        ...selecting,
        ...allowing(binding, candidates, fetch),
      ];
      const place = fetch.value(inputs.networks.place), gatewayOf = networkGateway(fetch);
      return workloadsOfServiceEntry(entry, won, { policies, bind }, { place, gatewayOf });
    },
  );

  const ofSlices = engine.deriveOutcomes(
    "workloads of EndpointSlices",
    inputs.sources.EndpointSlice,
    (slice, fetch, key) => {
      const suffix = suffixOf(key), place = placeOfCluster(inputs.networks, suffix, fetch);
      const candidate = slice.addressType === "FQDN"
        ? undefined
        : serviceOfSlice(slice, suffix, { services: inputs.services, fetch, options });
      if (candidate === undefined || place === undefined) return undefined;
      return workloadsOfSlice(slice, new Map([[claimedKey(candidate), portsOnSlice(candidate, slice.ports)]]), place);
    },
  );

  return [buildPods(engine, inputs, options), ofEntries, ofServiceEntries, ofSlices];
}
