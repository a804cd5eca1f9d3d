/** From objects and what became of them to the conditions in their status: who depends on whom. */
import { PolicyScope } from "../../mesh/policy.ts";
import { serviceKey } from "../../mesh/service.ts";
import { TunnelProtocol, type Workload } from "../../mesh/workload.ts";
import type { Engine } from "../collect/engine.ts";
import type { Collection } from "../collect/store.ts";
import type { Fetch } from "../collect/tracker.ts";
import { type AuthorizationPolicyObject, type Labels, objectKey, type ServiceEntryObject } from "../objects.ts";
import type { WantedConditions } from "../status/conditions.ts";
import type { ConvertedPolicy } from "./authorization_policy.ts";
import { suffixOf } from "./clusters.ts";
import {
  conditionsKey,
  type FieldManager,
  leftOutCondition,
  type Said,
  serviceBoundCondition,
  visibilityCondition,
  wantedConditions,
  waypointMissingCondition,
  workloadBoundCondition,
} from "./conditions.ts";
import type { AmbientOptions, Outcome, Problem } from "./options.ts";
import { visibilityOf } from "./mesh_rules.ts";
import { type TargetLookup, waypointAcceptedCondition } from "./policy_targets.ts";
import { entryCandidateKey } from "./service_candidates.ts";
import type { ServiceCollections } from "./service_graph.ts";
import type { MeshCells, ObjectOf, Sources } from "./sources.ts";
import { bindWorkload } from "./waypoint_binding.ts";
import { finderOf, namespaceMeta, type WaypointCollections } from "./waypoint_graph.ts";
import { mergedLabels } from "./workload_pod.ts";

const NO_LABELS: Labels = new Map();

/** What conditions are made of. */
export interface ConditionInputs {
  readonly sources: Sources;
  readonly mesh: MeshCells;
  readonly serviceEntries: Collection<ObjectOf<"ServiceEntry">>;
  readonly workloadEntries: Collection<ObjectOf<"WorkloadEntry">>;
  readonly authorizationPolicies: Collection<ObjectOf<"AuthorizationPolicy">>;
  readonly services: ServiceCollections;
  readonly waypoints: WaypointCollections;
  readonly converted: Collection<ConvertedPolicy>;
  readonly workloads: Collection<Workload>;
}

/** Builds the part of the graph that yields conditions: of each object that may have any, also when it has none now. */
export function buildConditions(
  engine: Engine,
  inputs: ConditionInputs,
  options: AmbientOptions,
): Collection<WantedConditions> {
  const { sources, services } = inputs;
  const concerned = options.conditionsOfMatchingPoliciesOnly ? policedScopes(engine, inputs.workloads) : undefined;
  const collect = <K extends "Service" | "ServiceEntry" | "WorkloadEntry" | "AuthorizationPolicy">(
    fieldManager: FieldManager,
    objects: Collection<ObjectOf<K>>,
    say: (object: ObjectOf<K>, fetch: Fetch) => readonly Said[],
  ) =>
    engine.deriveMany(
      `${fieldManager} conditions of ${objects.name}`,
      objects,
      // Only in the config cluster is anything written.
      (object, fetch, key) =>
        suffixOf(key) !== ""
          ? []
          : [[conditionsKey(fieldManager, object), wantedConditions(fieldManager, object, say(object, fetch))]],
    );
  return engine.join("conditions", [
    collect("istio-ambient-service", sources.Service, (service, fetch) => {
      const outcome = fetch.one(services.ofServices, objectKey("Service", service.meta.namespace, service.meta.name));
      const [candidate] = outcome?.items ?? [];
      return candidate === undefined ? leftOut(outcome) : serviceBoundCondition(candidate[1].binding);
    }),
    collect("istio-ambient-service", inputs.serviceEntries, (entry, fetch) => ofServiceEntry(entry, inputs, fetch)),
    collect("istio-ambient-workloadentry", inputs.workloadEntries, (entry, fetch) => {
      const { namespace } = entry.meta, labels = mergedLabels(entry.spec.labels, entry.meta.labels);
      const bindable = { namespace, labels, annotations: entry.meta.annotations };
      const find = finderOf(inputs.waypoints, "", fetch);
      return workloadBoundCondition(bindWorkload(bindable, namespaceMeta(sources, namespace, "", fetch), find));
    }),
    collect("istio-ambient-ztunnel-policy", inputs.authorizationPolicies, (policy, fetch) => {
      const { namespace, name } = policy.meta;
      const converted = fetch.one(inputs.converted, objectKey("AuthorizationPolicy", namespace, name));
      if (converted?.condition === undefined) return [];
      if (concerned === undefined) return [converted.condition];
      const scope = policedScope(policy, converted, fetch.value(inputs.mesh.rootNamespace));
      return fetch.one(concerned, scope) === undefined ? [] : [converted.condition];
    }),
    collect(
      "istio-ambient-waypoint-policy",
      inputs.authorizationPolicies,
      (policy, fetch) => waypointAcceptedCondition(policy, targetLookup(inputs, fetch)),
    ),
  ]);
}

const WHOLE_MESH = "*"; // the name of no namespace

/** Under which policies there is a workload of the mesh: of all of it, of its namespace, or that it names (CP-346). */
function policedScopes(engine: Engine, workloads: Collection<Workload>): Collection<boolean> {
  const scopes = engine.kinds(
    workloads,
    "workloads by policy",
    ({ tunnelProtocol, namespace, authorizationPolicies }) =>
      tunnelProtocol === TunnelProtocol.HBONE ? [WHOLE_MESH, namespace, ...authorizationPolicies] : [],
  );
  return engine.group("policed scopes", scopes, () => true);
}

/** A policy that is not sent has no workload that names it: its namespace's count. */
function policedScope({ meta }: AuthorizationPolicyObject, { policy }: ConvertedPolicy, rootNamespace: string): string {
  if (policy?.scope === PolicyScope.WORKLOAD_SELECTOR) return policy.key;
  return meta.namespace === rootNamespace ? WHOLE_MESH : meta.namespace;
}

/** What kept an object out; its waypoint's refusal is another condition. */
function leftOut(outcome: Outcome<unknown> | undefined): Said[] {
  return leftOutCondition(outcome?.problems ?? []);
}

/** A ServiceEntry that has none of its hosts says why, and who sees it: nothing else of it is in force. */
function ofServiceEntry(entry: ServiceEntryObject, { sources, mesh, services }: ConditionInputs, fetch: Fetch): Said[] {
  const { namespace, name } = entry.meta, taken: Pick<Problem, "reason" | "message">[] = [];
  const setting = fetch.value(mesh.visibility);
  const labels = setting && namespaceMeta(sources, namespace, "", fetch)?.labels;
  const visible = visibilityCondition(setting && visibilityOf(setting, labels ?? NO_LABELS));
  const outcome = fetch.one(services.ofEntries, objectKey("ServiceEntry", namespace, name));
  const [candidate] = outcome?.items ?? [];
  if (candidate === undefined) return [...visible, ...leftOut(outcome)];
  const hosts = new Set(entry.hosts);
  for (const host of hosts) {
    const winner = fetch.one(services.winners, serviceKey(namespace, host));
    if (winner === undefined || winner.key === entryCandidateKey(entry, host)) continue;
    const kind = winner.fromKubernetes ? "Service" : "ServiceEntry";
    const message = `${kind} ${winner.objectName} has host ${host}, before this one`;
    taken.push({ reason: "HostnameTaken", message });
  }
  if (taken.length === hosts.size) return [...visible, ...leftOutCondition(taken)];
  const { binding } = candidate[1], missing = waypointMissingCondition(entry, binding);
  return [...serviceBoundCondition(binding), ...missing, ...visible, ...leftOutCondition(taken)];
}

function targetLookup({ sources, mesh, services, waypoints }: ConditionInputs, fetch: Fetch): TargetLookup {
  return {
    rootNamespace: fetch.value(mesh.rootNamespace),
    controllerOf: (name) => fetch.one(sources.GatewayClass, objectKey("GatewayClass", "", name))?.controllerName,
    isWaypoint: (key) => fetch.one(waypoints.usable, key) !== undefined,
    bindingOf: (kind, key) => {
      const outcomes = kind === "Service" ? services.ofServices : services.ofEntries;
      const outcome = fetch.one(outcomes, `${kind}/${key}`);
      return outcome && { waypoint: outcome.items[0]?.[1].binding.waypoint };
    },
  };
}
