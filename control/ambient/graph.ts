/** The collections between Kubernetes objects and what the mesh is told: who depends on whom. No I/O, no clock. */
import type { Policy } from "../../mesh/policy.ts";
import { type Service, serviceKey } from "../../mesh/service.ts";
import type { Workload } from "../../mesh/workload.ts";
import type { Collection, Engine, Fetch, Index, Store } from "../collect/engine.ts";
import {
  keyOf,
  type KubernetesObject,
  type Labels,
  objectKey,
  type ObjectKind,
  type ObjectMeta,
  type PeerAuthenticationObject,
  type PodObject,
} from "../objects.ts";
import { convertAuthorizationPolicy, type ConvertedPolicy } from "./authorization_policy.ts";
import { isOfRevision, labelIndexKeys, selectorIndexKey, selects } from "./labels.ts";
import type { AmbientOptions, Outcome, Problem } from "./options.ts";
import {
  convertPeerAuthentication,
  inheritedStrict,
  peerAuthenticationReferences,
  staticStrictPolicy,
} from "./peer_authentication.ts";
import { portsOnEntry, portsOnPod, portsOnSlice } from "./port_mappings.ts";
import {
  candidateOfService,
  candidatesOfServiceEntry,
  claimedKey,
  entryCandidateKey,
  hostnameOf,
  type ServiceCandidate,
  winnerOf,
} from "./service_candidates.ts";
import { workloadOfEntry, workloadsOfServiceEntry, workloadsOfSlice } from "./workload_entry.ts";
import { hasWorkload, mergedLabels, workloadOfPod } from "./workload_pod.ts";

type ObjectOf<K extends ObjectKind> = Extract<KubernetesObject, { kind: K }>;

/** One source per kind, keyed by object key. */
export type Sources = { readonly [K in ObjectKind]: Store<ObjectOf<K>> };

/** What comes out at the end. */
export interface AmbientGraph {
  readonly sources: Sources;
  /** By uid. */
  readonly workloads: Collection<Workload>;
  /** By `namespace/hostname`. */
  readonly services: Collection<Service>;
  /** By `namespace/name`. */
  readonly policies: Collection<Policy>;
  /** Every AuthorizationPolicy of our revision with its condition, by object key. */
  readonly converted: Collection<ConvertedPolicy>;
  readonly problems: Collection<Problem>;
}

const SERVICE_NAME_LABEL = "kubernetes.io/service-name";

/** Builds the graph on an engine; nothing is in it yet. */
export function buildAmbientGraph(engine: Engine, options: AmbientOptions): AmbientGraph {
  const sources = makeSources(engine);
  const ofRevision = <K extends ObjectKind>(kind: K) =>
    engine.derive<ObjectOf<K>, ObjectOf<K>>(
      `${kind} of our revision`,
      sources[kind],
      (object) => isOfRevision(object.meta, options.revision) ? object : undefined,
    );
  const policies = buildPolicies(engine, {
    authorizationPolicies: ofRevision("AuthorizationPolicy"),
    peerAuthentications: ofRevision("PeerAuthentication"),
  }, options);
  const serviceEntries = ofRevision("ServiceEntry"), workloadEntries = ofRevision("WorkloadEntry");
  const services = buildServices(engine, sources, serviceEntries, options);
  const references = (namespace: string, labels: Labels, fetch: Fetch) =>
    policyReferences(policies, namespace, labels, fetch, options);

  const slicesOfPod = engine.index(sources.EndpointSlice, "slices by pod", (slice) =>
    slice.endpoints
      .filter((endpoint) => endpoint.target?.kind === "Pod")
      .map((endpoint) => `${endpoint.target!.namespace || slice.meta.namespace}/${endpoint.target!.name}`));

  const servicesOfPod = (pod: PodObject, fetch: Fetch) => {
    const found = new Map<string, ServiceCandidate>();
    const { namespace, name, labels, uid } = pod.meta;
    for (const candidate of selectingServices(services, namespace, labels, fetch)) {
      found.set(claimedKey(candidate), candidate);
    }
    for (const slice of fetch.by(slicesOfPod, `${namespace}/${name}`)) {
      const service = slice.meta.labels.get(SERVICE_NAME_LABEL);
      const named = slice.endpoints.some((it) =>
        it.target?.kind === "Pod" && it.target.name === name && it.target.uid === uid
      );
      if (service === undefined || !named || slice.meta.namespace !== namespace) continue;
      const candidate = fetch.one(services.winners, serviceKey(namespace, hostnameOf(service, namespace, options)));
      // A Service with a selector has chosen its pods already.
      if (candidate?.fromKubernetes === true && candidate.selector === undefined) {
        found.set(claimedKey(candidate), candidate);
      }
    }
    return new Map([...found].map(([key, candidate]) => [key, portsOnPod(candidate, pod)] as const));
  };

  const ofPods = engine.derive("workloads of pods", sources.Pod, (pod, fetch): Outcome<Workload> | undefined => {
    if (!hasWorkload(pod)) return undefined;
    return workloadOfPod(
      pod,
      pod.nodeName === "" ? undefined : fetch.one(sources.Node, objectKey("Node", "", pod.nodeName)),
      {
        services: servicesOfPod(pod, fetch),
        policies: references(pod.meta.namespace, pod.meta.labels, fetch),
      },
      options,
    );
  });

  const ofEntries = engine.derive("workloads of WorkloadEntries", workloadEntries, (entry, fetch) => {
    const labels = mergedLabels(entry.spec.labels, entry.meta.labels), { namespace } = entry.meta;
    const selecting = selectingServices(services, namespace, labels, fetch);
    return workloadOfEntry(entry, labels, {
      services: new Map(selecting.map((it) => [claimedKey(it), portsOnEntry(it, entry.spec)])),
      policies: references(namespace, labels, fetch),
    }, options);
  });

  const ofServiceEntries = engine.derive("workloads of ServiceEntries", serviceEntries, (entry, fetch) => {
    const won = new Map<string, ServiceCandidate>();
    for (const host of entry.hosts) {
      const winner = fetch.one(services.winners, serviceKey(entry.meta.namespace, host));
      if (winner?.key === entryCandidateKey(entry, host)) won.set(host, winner);
    }
    return workloadsOfServiceEntry(
      entry,
      {
        hosts: [...won.keys()],
        portsOf: (host, endpoint) => {
          const candidate = won.get(host)!; // One of the hosts just handed over.
          return [claimedKey(candidate), portsOnEntry(candidate, endpoint)];
        },
      },
      references(entry.meta.namespace, entry.meta.labels, fetch),
      options,
    );
  });

  const ofSlices = engine.derive("workloads of EndpointSlices", sources.EndpointSlice, (slice, fetch) => {
    const name = slice.meta.labels.get(SERVICE_NAME_LABEL), { namespace } = slice.meta;
    if (name === undefined || slice.addressType === "FQDN") return undefined;
    const candidate = fetch.one(services.winners, serviceKey(namespace, hostnameOf(name, namespace, options)));
    if (candidate?.fromKubernetes !== true) return undefined;
    return workloadsOfSlice(slice, new Map([[claimedKey(candidate), portsOnSlice(candidate, slice.ports)]]), options);
  });

  const outcomes: readonly Collection<Outcome<Workload>>[] = [ofPods, ofEntries, ofServiceEntries, ofSlices];
  return {
    sources,
    workloads: engine.join("workloads", outcomes.map((it) => itemsOf(engine, it))),
    services: services.services,
    policies: policies.all,
    converted: policies.converted,
    problems: engine.join("problems", [...services.problems, ...outcomes.map((it) => problemsOf(engine, it))]),
  };
}

function makeSources(engine: Engine): Sources {
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
  };
}

function itemsOf<T>(engine: Engine, outcomes: Collection<Outcome<T>>): Collection<T> {
  return engine.deriveMany(`items: ${outcomes.name}`, outcomes, (outcome) => outcome.items);
}

function problemsOf<T>(engine: Engine, outcomes: Collection<Outcome<T>>): Collection<Problem> {
  return engine.deriveMany(
    `problems: ${outcomes.name}`,
    outcomes,
    (outcome, _fetch, key) => outcome.problems.map((problem, at) => [`${key}#${at}`, problem] as const),
  );
}

interface ServiceCollections {
  /** By `namespace/hostname`. */
  readonly winners: Collection<ServiceCandidate>;
  /** Winners with a selector, by {@link selectorIndexKey}. */
  readonly selecting: Index<ServiceCandidate>;
  readonly services: Collection<Service>;
  readonly problems: readonly Collection<Problem>[];
}

function buildServices(
  engine: Engine,
  sources: Sources,
  serviceEntries: Collection<ObjectOf<"ServiceEntry">>,
  options: AmbientOptions,
): ServiceCollections {
  const namespaceOf = (name: string, fetch: Fetch): ObjectMeta | undefined =>
    fetch.one(sources.Namespace, objectKey("Namespace", "", name))?.meta;
  const ofServices = engine.derive(
    "candidates of Services",
    sources.Service,
    (service, fetch) => candidateOfService(service, namespaceOf(service.meta.namespace, fetch), options),
  );
  const ofEntries = engine.derive(
    "candidates of ServiceEntries",
    serviceEntries,
    (entry, fetch) => candidatesOfServiceEntry(entry, namespaceOf(entry.meta.namespace, fetch), options),
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
  return { winners, selecting, services, problems: [problemsOf(engine, ofServices), problemsOf(engine, ofEntries)] };
}

/** The services of a namespace whose selector matches. */
function selectingServices(
  services: ServiceCollections,
  namespace: string,
  labels: Labels,
  fetch: Fetch,
): ServiceCandidate[] {
  return labelIndexKeys(namespace, labels)
    .flatMap((indexKey) => fetch.by(services.selecting, indexKey))
    .filter((candidate) => selects(candidate.selector!, labels)); // The index holds those that have one.
}

interface PolicyCollections {
  readonly all: Collection<Policy>;
  readonly converted: Collection<ConvertedPolicy>;
  /** Converted policies with a selector, by {@link selectorIndexKey}. */
  readonly selecting: Index<ConvertedPolicy>;
  readonly peerAuthentications: Index<PeerAuthenticationObject>;
}

function buildPolicies(
  engine: Engine,
  inputs: {
    readonly authorizationPolicies: Collection<ObjectOf<"AuthorizationPolicy">>;
    readonly peerAuthentications: Collection<ObjectOf<"PeerAuthentication">>;
  },
  options: AmbientOptions,
): PolicyCollections {
  const root = options.rootNamespace;
  const converted = engine.derive(
    "converted policies",
    inputs.authorizationPolicies,
    (object) => convertAuthorizationPolicy(object, options),
  );
  const selecting = engine.index(
    converted,
    "policies by selector",
    ({ policy, selector }) =>
      policy === undefined || selector === undefined ? [] : [selectorIndexKey(policy.namespace, selector)],
  );
  const byNamespace = engine.index(
    inputs.peerAuthentications,
    "PeerAuthentications by namespace",
    (it) => [it.meta.namespace],
  );
  const any = engine.index(inputs.peerAuthentications, "PeerAuthentications", () => [root]);
  const written = engine.deriveMany(
    "written policies",
    converted,
    ({ policy }) => policy === undefined ? [] : [[policy.key, policy]],
  );
  const ofPorts = engine.deriveMany("port policies", inputs.peerAuthentications, (object, fetch) => {
    const parentStrict = inheritedStrict(fetch.by(byNamespace, object.meta.namespace), fetch.by(byNamespace, root));
    const policy = convertPeerAuthentication(object, parentStrict, root);
    return policy === undefined ? [] : [[policy.key, policy] as const];
  });
  const strict = engine.group("static policy", any, () => staticStrictPolicy(root));
  const keyed = engine.deriveMany("static policy by key", strict, (policy) => [[policy.key, policy]]);
  return {
    all: engine.join("policies", [written, ofPorts, keyed]),
    converted,
    selecting,
    peerAuthentications: byNamespace,
  };
}

/** The policies a workload must name, in the order of CP-215. Only such as are sent: a reference never dangles. */
function policyReferences(
  policies: PolicyCollections,
  namespace: string,
  labels: Labels,
  fetch: Fetch,
  options: AmbientOptions,
): readonly string[] {
  const root = options.rootNamespace, written: string[] = [];
  for (const from of new Set([namespace, root])) {
    for (const indexKey of labelIndexKeys(from, labels)) {
      for (const { policy, selector } of fetch.by(policies.selecting, indexKey)) {
        if (selects(selector!, labels)) written.push(policy!.key); // The index holds those that have both.
      }
    }
  }
  const derived = peerAuthenticationReferences(
    labels,
    fetch.by(policies.peerAuthentications, namespace),
    fetch.by(policies.peerAuthentications, root),
    root,
  );
  return [...written.sort(), ...derived];
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
