/** Where objects enter the graph: one source per kind; and what comes of outcomes. */
import type { Engine } from "../collect/engine.ts";
import type { Collection, Store } from "../collect/store.ts";
import { keyOf, type KubernetesObject, type ObjectKind } from "../objects.ts";
import type { Outcome, Problem } from "./options.ts";

export type ObjectOf<K extends ObjectKind> = Extract<KubernetesObject, { kind: K }>;

/** One source per kind, keyed by object key. */
export type Sources = { readonly [K in ObjectKind]: Store<ObjectOf<K>> };

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

/** Writes one object, or its absence, into its source; {@link Engine.settle} comes after the last of a batch. */
export function writeObject(
  sources: Sources,
  kind: ObjectKind,
  key: string,
  object: KubernetesObject | undefined,
): void {
  if (object === undefined) sources[kind].write(key, undefined);
  else (sources[object.kind] as Store<KubernetesObject>).write(keyOf(object), object);
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
