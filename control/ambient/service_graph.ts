/** From Services and ServiceEntries to the services of the mesh: claims, winners, and which of them is canonical. */
import { type Service, serviceKey } from "../../mesh/service.ts";
import type { Engine } from "../collect/engine.ts";
import type { Collection, Index } from "../collect/store.ts";
import type { Fetch } from "../collect/tracker.ts";
import { type EndpointSliceObject, type Labels, objectKey } from "../objects.ts";
import { type ClusterSuffix, suffixOf } from "./clusters.ts";
import { labelIndexKeys, selectorIndexKey, selects } from "./labels.ts";
import { isGlobal, visibilityOf } from "./mesh_rules.ts";
import { type NetworkCollections, placeOfCluster } from "./network_graph.ts";
import type { AmbientOptions, Outcome, Problem } from "./options.ts";
import {
  candidateOfService,
  candidatesOfServiceEntry,
  claimedKey,
  hostnameOf,
  type ServiceCandidate,
  winnerOf,
} from "./service_candidates.ts";
import { type Inputs, itemsOf, type ObjectOf, problemsOf } from "./sources.ts";
import { mergedService, portsDiffer, withIdentities } from "./split_horizon.ts";
import { bindService } from "./waypoint_binding.ts";
import { finderOf, namespaceMeta, type WaypointCollections } from "./waypoint_graph.ts";

export interface ServiceCollections {
  /** Every claim of every cluster, by its key. */
  readonly candidates: Collection<ServiceCandidate>;
  /** The same by `namespace/hostname`. */
  readonly claims: Index<ServiceCandidate>;
  /** Of the config cluster's claims, by `namespace/hostname`. */
  readonly winners: Collection<ServiceCandidate>;
  /** Winners with a selector, and those of other clusters, by {@link selectorIndexKey} with the cluster's suffix. */
  readonly selecting: Index<ServiceCandidate>;
  /** What became of each object, by its key. */
  readonly ofServices: Collection<Outcome<ServiceCandidate>>;
  readonly ofEntries: Collection<Outcome<ServiceCandidate>>;
  readonly problems: readonly Collection<Problem>[];
}

interface ServiceInputs extends Inputs {
  readonly serviceEntries: Collection<ObjectOf<"ServiceEntry">>;
  readonly networks: NetworkCollections;
  readonly waypoints: WaypointCollections;
}

const NO_LABELS: Labels = new Map();
const SERVICE_NAME_LABEL = "kubernetes.io/service-name";

/** Builds the part of the graph that says which object stands for which service, and has which workloads. */
export function buildServices(
  engine: Engine,
  { sources, mesh, serviceEntries, networks, waypoints }: ServiceInputs,
  options: AmbientOptions,
): ServiceCollections {
  const ofServices = engine.derive("candidates of Services", sources.Service, (service, fetch, key) => {
    const suffix = suffixOf(key), place = placeOfCluster(networks, suffix, fetch), { meta } = service;
    const namespace = namespaceMeta(sources, meta.namespace, suffix, fetch), rules = fetch.value(mesh.serviceScopes);
    const global = namespace !== undefined && isGlobal(rules, meta.labels, namespace.labels);
    // Nothing of another cluster's own service is seen here (CP-281).
    if (place === undefined || (suffix !== "" && !global)) return undefined;
    const find = finderOf(waypoints, suffix, fetch);
    const binding = bindService(meta, namespace, { find, namespaceOnly: false });
    const { network } = place, { clusterDomain } = options;
    return candidateOfService(service, { namespace, binding, suffix, global }, { network, clusterDomain });
  });
  const ofEntries = engine.derive("candidates of ServiceEntries", serviceEntries, (entry, fetch) => {
    const namespace = namespaceMeta(sources, entry.meta.namespace, "", fetch), find = finderOf(waypoints, "", fetch);
    const visibility = visibilityOf(fetch.value(mesh.visibility), namespace?.labels ?? NO_LABELS);
    if (visibility === "NONE") return undefined; // CP-112
    const namespaceOnly = visibility === "NAMESPACE";
    const binding = bindService(entry.meta, namespace, { find, namespaceOnly });
    return candidatesOfServiceEntry(entry, { namespace, binding, namespaceOnly }, fetch.value(networks.place));
  });
  const candidates = engine.join("candidates", [itemsOf(engine, ofServices), itemsOf(engine, ofEntries)]);
  const claims = engine.index(candidates, "claims", (candidate) => [claimedKey(candidate)]);
  const winners = engine.group("winners", claims, (items) => winnerOf(items.filter(({ suffix }) => suffix === "")));
  const ofOthers = engine.derive("claims of other clusters", candidates, (it) => it.suffix === "" ? undefined : it);
  const chosen = engine.join("selecting", [winners, ofOthers]);
  const selecting = engine.index(
    chosen,
    "services by selector",
    ({ selector, service, suffix }) =>
      selector === undefined ? [] : [selectorIndexKey(service.namespace + suffix, selector)],
  );
  const problems = [problemsOf(engine, ofServices), problemsOf(engine, ofEntries)];
  return { candidates, claims, winners, selecting, ofServices, ofEntries, problems };
}

/** The services of a namespace and cluster whose selector matches. */
export function selectingServices(
  services: ServiceCollections,
  { namespace, suffix }: { readonly namespace: string; readonly suffix: ClusterSuffix },
  labels: Labels,
  fetch: Fetch,
): ServiceCandidate[] {
  return labelIndexKeys(namespace + suffix, labels)
    .flatMap((indexKey) => fetch.by(services.selecting, indexKey))
    .filter((candidate) => selects(candidate.selector!, labels)); // The index holds those that have one.
}

/** The Kubernetes Service that a slice belongs to, in its own cluster, if there is one (CP-214). */
export function serviceOfSlice(
  slice: EndpointSliceObject,
  suffix: ClusterSuffix,
  { services, fetch, options }: {
    readonly services: ServiceCollections;
    readonly fetch: Fetch;
    readonly options: AmbientOptions;
  },
): ServiceCandidate | undefined {
  const name = slice.meta.labels.get(SERVICE_NAME_LABEL), { namespace } = slice.meta;
  if (name === undefined) return undefined;
  if (suffix !== "") return fetch.one(services.candidates, objectKey("Service", namespace, name) + suffix);
  const winner = fetch.one(services.winners, serviceKey(namespace, hostnameOf(name, namespace, options)));
  return winner?.fromKubernetes === true ? winner : undefined;
}

/**
 * Builds the services as they are sent: one of all clusters' claims, and by hostname which is canonical (CP-235).
 *
 * @param identities by service, of members on other networks (CP-284); undefined where there are no others.
 */
export function buildSentServices(
  engine: Engine,
  { claims }: ServiceCollections,
  identities: Collection<readonly string[]> | undefined,
): { readonly services: Collection<Service>; readonly problems: Collection<Problem> } {
  const partsOf = (items: readonly ServiceCandidate[]) => ({
    own: winnerOf(items.filter(({ suffix }) => suffix === "")),
    others: items.filter(({ suffix }) => suffix !== ""),
  });
  const merged = engine.group("merged services", claims, (items) => {
    const { own, others } = partsOf(items);
    return mergedService(own, others);
  });
  const problems = engine.group("services that differ", claims, (items): Problem | undefined => {
    const { own, others } = partsOf(items), base = own ?? others[0];
    if (base === undefined || !base.global || !portsDiffer(base, others)) return undefined;
    const message = "its ports are not the same in all clusters; those of the config cluster, or the first, are used";
    return { object: base.key, reason: "PortsDiffer", message };
  });
  const byHostname = engine.index(merged, "services by hostname", ({ service }) => [service.hostname]);
  const canonical = engine.group(
    "canonical",
    byHostname,
    (items) => winnerOf(items.filter(({ service }) => !service.namespaceOnly))?.key,
  );
  const services = engine.derive("services", merged, ({ service, fromKubernetes, global, key }, fetch): Service => {
    const chosen = fromKubernetes || fetch.one(canonical, service.hostname) === key;
    const elsewhere = global && identities
      ? fetch.one(identities, serviceKey(service.namespace, service.hostname))
      : undefined;
    return { ...elsewhere ? withIdentities(service, elsewhere) : service, canonical: chosen };
  });
  return { services, problems };
}
