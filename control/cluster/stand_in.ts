/**
 * What holds in place of an object that cannot be read. A policy is replaced by one that allows no more than any reading
 * of it would: as it stands in the cluster its author believes it to be in force. Everything else counts as absent.
 */
import type { Plain } from "../../base/plain.ts";
import { Field, FieldRefusal } from "../decode/field.ts";
import { decodeObject, type Identification } from "../decode/kinds.ts";
import type { AuthorizationPolicyObject, KubernetesObject, PeerAuthenticationObject } from "../objects.ts";

type Map = { readonly [key: string]: Plain };

export interface StandIn {
  readonly object: KubernetesObject | undefined;
  /** In a few words, for the log; empty if nothing stands in. */
  readonly instead: string;
}

/** @param root the object, which {@link decodeObject} refused. Never throws. */
export function standIn(who: Identification, root: Map): StandIn {
  if (who.kind === "AuthorizationPolicy") return standInPolicy(who, root);
  if (who.kind === "PeerAuthentication") return standInPeerAuthentication(who, root);
  return { object: undefined, instead: "" };
}

/** A rule without conditions: it matches every connection (CP-341). */
const MATCH_ALL = { from: [], to: [], when: [] };

function standInPolicy(who: Identification, root: Map): StandIn {
  const spec = mapOf(root.spec), { rules: written, ...head } = spec, rules = written ?? [];
  const metadata = plainMetadata(who, root);
  const policy = read<AuthorizationPolicyObject>(who, { metadata, spec: head });
  if (policy === undefined || !Array.isArray(rules)) {
    // Not even whom it is for, or what it does: whoever its selector names, else all of its namespace, is closed.
    const selector = read<AuthorizationPolicyObject>(who, { metadata, spec: { selector: spec.selector ?? null } });
    const closed = selector ?? read<AuthorizationPolicyObject>(who, { metadata, spec: {} });
    const instead = selector?.selector === undefined
      ? "all traffic of its namespace is denied"
      : "all traffic is denied";
    return { object: closed && { ...closed, action: "DENY", rules: [MATCH_ALL] }, instead };
  }
  const readable = rules.map((rule) =>
    read<AuthorizationPolicyObject>(who, { metadata, spec: { rules: [rule] } })?.rules[0]
  );
  if (policy.action === "DENY") {
    return {
      object: { ...policy, rules: readable.map((rule) => rule ?? MATCH_ALL) },
      instead: "a rule that denies everything",
    };
  }
  // Rules of ALLOW are alternatives: one less allows less, and none allows nothing.
  return {
    object: { ...policy, rules: readable.filter((rule) => rule !== undefined) },
    instead: "the rule is left out",
  };
}

function standInPeerAuthentication(who: Identification, root: Map): StandIn {
  const metadata = plainMetadata(who, root), { selector } = mapOf(root.spec);
  const policy = read<PeerAuthenticationObject>(who, { metadata, spec: { selector: selector ?? null } }) ??
    read<PeerAuthenticationObject>(who, { metadata, spec: {} });
  return { object: policy && { ...policy, mode: "STRICT" }, instead: "mode STRICT, for all ports" };
}

/** @returns undefined if it cannot be read. */
function read<T extends KubernetesObject>(who: Identification, root: Map): T | undefined {
  try {
    return decodeObject(new Field(withoutNulls(root)), who) as T; // The kind in `who` is T's.
  } catch (error) {
    if (error instanceof FieldRefusal) return undefined;
    throw error;
  }
}

/** The metadata if it can be read, else its name alone: labels and annotations must not be what keeps a policy out. */
function plainMetadata(who: Identification, root: Map): Plain {
  const metadata = root.metadata ?? null;
  return read({ ...who, kind: "Namespace" }, { metadata }) === undefined ? { name: who.name } : metadata;
}

/** Fields of our own making that have no value; a policy's decoder refuses those. */
function withoutNulls(root: Map): Map {
  const spec = Object.entries(mapOf(root.spec)).filter(([, value]) => value !== null);
  return { ...root, spec: Object.fromEntries(spec) };
}

function mapOf(value: Plain | undefined): Map {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? value as Map : {};
}
