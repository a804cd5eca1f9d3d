/** Where objects enter the graph: one source per kind; and what comes of outcomes. */
import type { Engine } from "../collect/engine.ts";
import type { Cell, Collection, Store } from "../collect/store.ts";
import type { KubernetesObject, MeshConfigObject, ObjectChange, ObjectKind } from "../objects.ts";
import type { AmbientOptions, Outcome, Place, Problem } from "./options.ts";

export type ObjectOf<K extends ObjectKind> = Extract<KubernetesObject, { kind: K }>;

/** One source per kind, keyed by object key. The mesh's settings are no collection: see {@link MeshCells}. */
export type Sources = { readonly [K in Exclude<ObjectKind, "MeshConfig">]: Store<ObjectOf<K>> };

/** The mesh's settings as transforms fetch them, each by itself, so that a change of one reruns just what uses it. */
export interface MeshCells {
  readonly place: Cell<Place>;
  readonly rootNamespace: Cell<string>;
}

/** The settings as long as there is no MeshConfig. */
export function makeMeshCells(engine: Engine, options: AmbientOptions): MeshCells {
  const { clusterId, network, trustDomain } = options;
  return {
    place: engine.cell<Place>("place", { clusterId, network, trustDomain }),
    rootNamespace: engine.cell("root namespace", options.rootNamespace),
  };
}

/** Writes the settings, or what istiod was started with where they are silent or gone. */
function writeMeshConfig(cells: MeshCells, config: MeshConfigObject | undefined, options: AmbientOptions): void {
  const { clusterId, network } = options;
  cells.place.write({ clusterId, network, trustDomain: config?.trustDomain || options.trustDomain });
  cells.rootNamespace.write(config?.rootNamespace || options.rootNamespace);
}

/** Empty sources. */
export function makeSources(engine: Engine): Sources {
  return {
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
  };
}

/** Writes one object, or its absence, to where transforms find it; {@link Engine.settle} comes after the last of a batch. */
export function writeObject(
  { sources, mesh }: { readonly sources: Sources; readonly mesh: MeshCells },
  { kind, key, object }: ObjectChange,
  options: AmbientOptions,
): void {
  if (kind === "MeshConfig") writeMeshConfig(mesh, object?.kind === kind ? object : undefined, options);
  else (sources[kind] as Store<KubernetesObject>).write(key, object);
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
