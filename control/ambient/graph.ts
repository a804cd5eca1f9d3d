/** The collections between Kubernetes objects and what the mesh is told: who depends on whom. No I/O, no clock. */
import type { Policy } from "../../mesh/policy.ts";
import type { Service } from "../../mesh/service.ts";
import type { Workload } from "../../mesh/workload.ts";
import type { Engine } from "../collect/engine.ts";
import type { Collection } from "../collect/store.ts";
import type { KubernetesObject } from "../objects.ts";
import type { WantedConditions } from "../status/conditions.ts";
import type { ConvertedPolicy } from "./authorization_policy.ts";
import { buildConditions } from "./condition_graph.ts";
import type { WantedGatewayStatus } from "./gateway_status.ts";
import { buildGatewayStatuses } from "./gateway_status_graph.ts";
import { isOfRevision } from "./labels.ts";
import type { AmbientOptions, Problem } from "./options.ts";
import { buildNetworks } from "./network_graph.ts";
import { buildPolicies } from "./policy_graph.ts";
import type { ServiceCandidate } from "./service_candidates.ts";
import { buildSentServices, buildServices } from "./service_graph.ts";
import { type Inputs, makeInputs } from "./sources.ts";
import { buildSentWorkloads } from "./split_horizon_graph.ts";
import { buildWaypoints, type WaypointCollections } from "./waypoint_graph.ts";
import { buildWorkloads } from "./workload_graph.ts";

/** What comes out at the end. */
export interface AmbientGraph extends Inputs {
  /** By uid. */
  readonly workloads: Collection<Workload>;
  /** By `namespace/hostname`. */
  readonly services: Collection<Service>;
  /** The claim that each service stands on, by the same keys. */
  readonly winners: Collection<ServiceCandidate>;
  readonly waypoints: WaypointCollections;
  /** By `namespace/name`. */
  readonly policies: Collection<Policy>;
  /** Every AuthorizationPolicy of our revision with its condition, by object key. */
  readonly converted: Collection<ConvertedPolicy>;
  readonly problems: Collection<Problem>;
  /** What is wanted in the status of objects, by purpose and object. */
  readonly conditions: Collection<WantedConditions>;
  /** What is said of each Gateway of ours, by object key. */
  readonly gatewayStatuses: Collection<WantedGatewayStatus>;
}

/** Builds the graph on an engine; nothing is in it yet. */
export function buildAmbientGraph(engine: Engine, options: AmbientOptions): AmbientGraph {
  const inputs = makeInputs(engine, options), { sources, mesh } = inputs;
  const ofRevision = <T extends KubernetesObject>(objects: Collection<T>) =>
    engine.derive<T, T>(
      `${objects.name} of our revision`,
      objects,
      (object) => isOfRevision(object.meta, options.revision) ? object : undefined,
    );
  const authorizationPolicies = ofRevision(sources.AuthorizationPolicy);
  const networks = buildNetworks(engine, inputs, options);
  const waypoints = buildWaypoints(engine, { ...inputs, networks }, options);
  const policies = buildPolicies(engine, {
    ofWaypoints: waypoints.allowing,
    authorizationPolicies,
    peerAuthentications: ofRevision(sources.PeerAuthentication),
  }, { mesh, options });
  const serviceEntries = ofRevision(sources.ServiceEntry), workloadEntries = ofRevision(sources.WorkloadEntry);
  const services = buildServices(engine, { ...inputs, serviceEntries, networks, waypoints }, options);
  const outcomes = buildWorkloads(
    engine,
    { ...inputs, serviceEntries, workloadEntries, networks, waypoints, services, policies },
    options,
  );
  const { converted } = policies;
  const kinds = outcomes.map((it) => it.items);
  const { workloads, identities } = buildSentWorkloads(engine, { kinds, networks, services, mesh }, options);
  const sent = buildSentServices(engine, services, identities);
  const conditions = buildConditions(engine, {
    sources,
    mesh,
    serviceEntries,
    workloadEntries,
    authorizationPolicies,
    services,
    waypoints,
    converted,
    workloads,
  }, options);
  return {
    ...inputs,
    workloads,
    services: sent.services,
    winners: services.winners,
    waypoints,
    policies: policies.all,
    converted,
    conditions,
    gatewayStatuses: buildGatewayStatuses(engine, sources, options),
    problems: engine.join("problems", [
      waypoints.problems,
      ...services.problems,
      sent.problems,
      ...outcomes.map((it) => it.problems),
    ]),
  };
}
