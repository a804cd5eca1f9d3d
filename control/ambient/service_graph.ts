/** From Services and ServiceEntries to the services of the mesh: claims, winners, and which of them is canonical. */
import type { Service } from "../../mesh/service.ts";
import type { Engine } from "../collect/engine.ts";
import type { Collection, Index } from "../collect/store.ts";
import type { Fetch } from "../collect/tracker.ts";
import type { Labels } from "../objects.ts";
import { labelIndexKeys, selectorIndexKey, selects } from "./labels.ts";
import type { AmbientOptions, Outcome, Problem } from "./options.ts";
import {
  candidateOfService,
  candidatesOfServiceEntry,
  claimedKey,
  type ServiceCandidate,
  winnerOf,
} from "./service_candidates.ts";
import { itemsOf, type MeshCells, type ObjectOf, problemsOf, type Sources } from "./sources.ts";
import { bindService } from "./waypoint_binding.ts";
import { finderOf, namespaceMeta, type WaypointCollections } from "./waypoint_graph.ts";

export interface ServiceCollections {
  /** By `namespace/hostname`. */
  readonly winners: Collection<ServiceCandidate>;
  /** Winners with a selector, by {@link selectorIndexKey}. */
  readonly selecting: Index<ServiceCandidate>;
  readonly services: Collection<Service>;
  /** What became of each object, by its key. */
  readonly ofServices: Collection<Outcome<ServiceCandidate>>;
  readonly ofEntries: Collection<Outcome<ServiceCandidate>>;
  readonly problems: readonly Collection<Problem>[];
}

/** Builds the part of the graph that yields services. */
export function buildServices(
  engine: Engine,
  { sources, mesh, serviceEntries, waypoints }: {
    readonly sources: Sources;
    readonly mesh: MeshCells;
    readonly serviceEntries: Collection<ObjectOf<"ServiceEntry">>;
    readonly waypoints: WaypointCollections;
  },
  options: AmbientOptions,
): ServiceCollections {
  const ofServices = engine.derive(
    "candidates of Services",
    sources.Service,
    (service, fetch) => {
      const namespace = namespaceMeta(sources, service.meta.namespace, fetch), find = finderOf(waypoints, fetch);
      const binding = bindService(service.meta, namespace, { find, namespaceOnly: false });
      const { network } = fetch.value(mesh.place);
      return candidateOfService(service, { namespace, binding }, { ...options, network });
    },
  );
  const ofEntries = engine.derive(
    "candidates of ServiceEntries",
    serviceEntries,
    (entry, fetch) => {
      const namespace = namespaceMeta(sources, entry.meta.namespace, fetch), find = finderOf(waypoints, fetch);
      const namespaceOnly = false;
      const binding = bindService(entry.meta, namespace, { find, namespaceOnly });
      return candidatesOfServiceEntry(entry, { namespace, binding, namespaceOnly }, fetch.value(mesh.place));
    },
  );
  const candidates = engine.join("candidates", [itemsOf(engine, ofServices), itemsOf(engine, ofEntries)]);
  const claims = engine.index(candidates, "claims", (candidate) => [claimedKey(candidate)]);
  const winners = engine.group("winners", claims, winnerOf);
  const byHostname = engine.index(winners, "winners by hostname", (winner) => [winner.service.hostname]);
  const selecting = engine.index(
    winners,
    "winners by selector",
    ({ selector, service }) => selector === undefined ? [] : [selectorIndexKey(service.namespace, selector)],
  );
  const canonical = engine.group("canonical", byHostname, (items) => winnerOf(items)?.key);
  const services = engine.derive("services", winners, (winner, fetch): Service => ({
    ...winner.service,
    canonical: winner.fromKubernetes || fetch.one(canonical, winner.service.hostname) === winner.key,
  }));
  const problems = [problemsOf(engine, ofServices), problemsOf(engine, ofEntries)];
  return { winners, selecting, services, ofServices, ofEntries, problems };
}

/** The services of a namespace whose selector matches. */
export function selectingServices(
  services: ServiceCollections,
  namespace: string,
  labels: Labels,
  fetch: Fetch,
): ServiceCandidate[] {
  return labelIndexKeys(namespace, labels)
    .flatMap((indexKey) => fetch.by(services.selecting, indexKey))
    .filter((candidate) => selects(candidate.selector!, labels)); // The index holds those that have one.
}
