/** Where objects enter the graph: one source per kind for all clusters, and the mesh's settings. */
import type { Engine } from "../collect/engine.ts";
import type { Cell, Collection, Store } from "../collect/store.ts";
import type {
  KubernetesObject,
  MeshConfigObject,
  ObjectChange,
  ObjectKind,
  ServiceEntryVisibility,
  ServiceScopeRule,
} from "../objects.ts";
import { type ClusterSuffix, suffixOf, suffixOfCluster } from "./clusters.ts";
import type { AmbientOptions, Outcome, Problem } from "./options.ts";

export type ObjectOf<K extends ObjectKind> = Extract<KubernetesObject, { kind: K }>;

/**
 * One source per kind, keyed by object key and {@link ClusterSuffix}. The mesh's settings are no collection: see
 * {@link MeshCells}.
 */
export type Sources = { readonly [K in Exclude<ObjectKind, "MeshConfig">]: Store<ObjectOf<K>> };

/** The mesh's settings as transforms fetch them, each by itself, so that a change of one reruns just what uses it. */
export interface MeshCells {
  readonly trustDomain: Cell<string>;
  readonly rootNamespace: Cell<string>;
  readonly serviceScopes: Cell<readonly ServiceScopeRule[]>;
  readonly visibility: Cell<ServiceEntryVisibility | undefined>;
  /** The mesh's own and its aliases where policies' principals are expanded to them (CP-344), else none. */
  readonly trustDomains: Cell<readonly string[]>;
}

/** What is written from outside. */
export interface Inputs {
  readonly sources: Sources;
  readonly mesh: MeshCells;
  /** Clusters other than the config cluster that something is known of, by suffix. */
  readonly clusters: Store<ClusterSuffix>;
}

/** Empty sources, and the settings as long as there is no MeshConfig. */
export function makeInputs(engine: Engine, options: AmbientOptions): Inputs {
  return {
    sources: {
      Namespace: engine.source("Namespace"),
      Node: engine.source("Node"),
      ServiceAccount: engine.source("ServiceAccount"),
      Pod: engine.source("Pod"),
      Service: engine.source("Service"),
      EndpointSlice: engine.source("EndpointSlice"),
      WorkloadEntry: engine.source("WorkloadEntry"),
      ServiceEntry: engine.source("ServiceEntry"),
      AuthorizationPolicy: engine.source("AuthorizationPolicy"),
      PeerAuthentication: engine.source("PeerAuthentication"),
      Gateway: engine.source("Gateway"),
      GatewayClass: engine.source("GatewayClass"),
    },
    mesh: {
      trustDomain: engine.cell("trust domain", options.trustDomain),
      rootNamespace: engine.cell("root namespace", options.rootNamespace),
      serviceScopes: engine.cell<readonly ServiceScopeRule[]>("service scopes", []),
      visibility: engine.cell<ServiceEntryVisibility | undefined>("ServiceEntry visibility", undefined),
      trustDomains: engine.cell("trust domains", expanded(undefined, options)),
    },
    clusters: engine.source("other clusters"),
  };
}

function expanded(config: MeshConfigObject | undefined, options: AmbientOptions): readonly string[] {
  if (!options.expandTrustDomains) return [];
  return [...new Set([config?.trustDomain || options.trustDomain, ...config?.trustDomainAliases ?? []])];
}

/** The settings, or what istiod was started with where they are silent or gone. */
function writeMeshConfig(cells: MeshCells, config: MeshConfigObject | undefined, options: AmbientOptions): void {
  cells.trustDomain.write(config?.trustDomain || options.trustDomain);
  cells.rootNamespace.write(config?.rootNamespace || options.rootNamespace);
  cells.serviceScopes.write(config?.serviceScopes ?? []);
  cells.visibility.write(config?.serviceEntryVisibility);
  cells.trustDomains.write(expanded(config, options));
}

/** What is read of other clusters (CP table 2.1); Istio's own kinds are the config cluster's. */
const KINDS_OF_ALL_CLUSTERS: readonly ObjectKind[] = [
  "Namespace",
  "Node",
  "Pod",
  "Service",
  "EndpointSlice",
  "Gateway",
];

/** Writes one object, or its absence, to where transforms find it; {@link Engine.settle} comes after the last of a batch. */
export function writeObject(
  { sources, mesh, clusters }: Inputs,
  { kind, key, object, cluster }: ObjectChange,
  options: AmbientOptions,
): void {
  const suffix = cluster === options.clusterId ? "" : suffixOfCluster(cluster);
  if (suffix !== "") {
    if (!options.multiNetwork || !KINDS_OF_ALL_CLUSTERS.includes(kind)) return; // CP-280
    clusters.write(suffix, suffix);
  }
  if (kind === "MeshConfig") writeMeshConfig(mesh, object?.kind === kind ? object : undefined, options);
  else (sources[kind] as Store<KubernetesObject>).write(key + suffix, object);
}

/** Removes all that is known of a cluster (CP-285). */
export function withdrawCluster({ sources, clusters }: Inputs, cluster: string): void {
  const suffix = suffixOfCluster(cluster);
  for (const source of Object.values(sources) as Store<KubernetesObject>[]) {
    for (const key of [...source.items.keys()]) if (suffixOf(key) === suffix) source.write(key, undefined);
  }
  clusters.write(suffix, undefined);
}

/** What the objects yielded, by its own keys. */
export function itemsOf<T>(engine: Engine, outcomes: Collection<Outcome<T>>): Collection<T> {
  return engine.deriveMany(`items: ${outcomes.name}`, outcomes, (outcome) => outcome.items);
}

/** What stood in the way. */
export function problemsOf<T>(engine: Engine, outcomes: Collection<Outcome<T>>): Collection<Problem> {
  return engine.deriveMany(
    `problems: ${outcomes.name}`,
    outcomes,
    (outcome, _fetch, key) => outcome.problems.map((problem, at) => [`${key}#${at}`, problem] as const),
  );
}
