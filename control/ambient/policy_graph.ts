/** From AuthorizationPolicies and PeerAuthentications to the policies of the mesh, and which of them a workload names. */
import type { Policy } from "../../mesh/policy.ts";
import type { Engine } from "../collect/engine.ts";
import type { Collection, Index } from "../collect/store.ts";
import type { Fetch } from "../collect/tracker.ts";
import type { Labels, PeerAuthenticationObject } from "../objects.ts";
import { convertAuthorizationPolicy, type ConvertedPolicy } from "./authorization_policy.ts";
import { labelIndexKeys, selectorIndexKey, selects } from "./labels.ts";
import type { AmbientOptions } from "./options.ts";
import {
  convertPeerAuthentication,
  inheritedStrict,
  peerAuthenticationReferences,
  staticStrictPolicy,
} from "./peer_authentication.ts";
import type { MeshCells, ObjectOf } from "./sources.ts";

export interface PolicyCollections {
  readonly all: Collection<Policy>;
  readonly converted: Collection<ConvertedPolicy>;
  /** Converted policies with a selector, by {@link selectorIndexKey}. */
  readonly selecting: Index<ConvertedPolicy>;
  readonly peerAuthentications: Index<PeerAuthenticationObject>;
}

const ANY = ""; // the one key of an index whose only question is whether there is anything

/** Builds the part of the graph that yields policies. */
export function buildPolicies(
  engine: Engine,
  inputs: {
    readonly authorizationPolicies: Collection<ObjectOf<"AuthorizationPolicy">>;
    readonly peerAuthentications: Collection<ObjectOf<"PeerAuthentication">>;
    /** By keys of their own. */
    readonly ofWaypoints: Collection<Policy>;
  },
  { mesh, options }: { readonly mesh: MeshCells; readonly options: AmbientOptions },
): PolicyCollections {
  const converted = engine.derive(
    "converted policies",
    inputs.authorizationPolicies,
    (object, fetch) => {
      const { dryRunPolicies } = options, rootNamespace = fetch.value(mesh.rootNamespace);
      const trustDomains = fetch.value(mesh.trustDomains);
      return convertAuthorizationPolicy(object, { dryRunPolicies, rootNamespace, trustDomains });
    },
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
  const any = engine.index(inputs.peerAuthentications, "PeerAuthentications", () => [ANY]);
  const written = engine.deriveMany(
    "written policies",
    converted,
    ({ policy }) => policy === undefined ? [] : [[policy.key, policy]],
  );
  const ofPorts = engine.deriveMany("port policies", inputs.peerAuthentications, (object, fetch) => {
    const root = fetch.value(mesh.rootNamespace);
    const parentStrict = inheritedStrict(fetch.by(byNamespace, object.meta.namespace), fetch.by(byNamespace, root));
    const policy = convertPeerAuthentication(object, parentStrict, root);
    return policy === undefined ? [] : [[policy.key, policy] as const];
  });
  const strict = engine.group("static policy", any, (_, fetch) => staticStrictPolicy(fetch.value(mesh.rootNamespace)));
  const keyed = engine.deriveMany("static policy by key", strict, (policy) => [[policy.key, policy]]);
  const allowing = engine.deriveMany(
    "waypoint policies by key",
    inputs.ofWaypoints,
    (policy) => [[policy.key, policy]],
  );
  return {
    all: engine.join("policies", [written, ofPorts, keyed, allowing]),
    converted,
    selecting,
    peerAuthentications: byNamespace,
  };
}

/** The policies a workload must name, in the order of CP-215. Only such as are sent: a reference never dangles. */
export function policyReferences(
  policies: PolicyCollections,
  namespace: string,
  labels: Labels,
  fetch: Fetch,
  mesh: MeshCells,
): readonly string[] {
  const root = fetch.value(mesh.rootNamespace), written: string[] = [];
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
