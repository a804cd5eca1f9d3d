/**
 * From an object as the API server writes it to the one we hold: only what is used of it is kept (CP-103). What cannot be
 * read is a function of the object alone, never of what it was before: two istiods, and one after its restart, must agree.
 */
import type { Plain } from "../../base/plain.ts";
import type { KubeObject } from "../../kube/api.ts";
import { Field, FieldRefusal, formatPath } from "../decode/field.ts";
import { decodeObject } from "../decode/kinds.ts";
import type { KubernetesObject, ObjectKind } from "../objects.ts";
import { standIn } from "./stand_in.ts";

/** What came of one object. */
export interface Decoded {
  /** Undefined: it cannot be read, and counts as absent. */
  readonly object: KubernetesObject | undefined;
  /** Why the object is not in force as written; undefined if it is. */
  readonly refusal: ObjectRefusal | undefined;
}

export interface ObjectRefusal {
  /** `spec.rules[0].from`. */
  readonly field: string;
  readonly reason: string;
  /** What holds in its place; empty if nothing does. */
  readonly instead: string;
}

type Map = { readonly [key: string]: Plain };

/** Reads an object of a kind, with what is read of its metadata alone. Never throws for what is in it. */
export function decodeKubeObject(kind: ObjectKind, given: KubeObject): Decoded {
  const { name, namespace = "" } = given.metadata;
  const root = { ...given, metadata: trimmedMetadata(kind, given.metadata as Map) } as Map;
  try {
    return { object: decodeObject(new Field(root), { kind, namespace, name }), refusal: undefined };
  } catch (error) {
    if (!(error instanceof FieldRefusal)) throw error;
    const { object, instead } = standIn({ kind, namespace, name }, root);
    return { object, refusal: { field: formatPath(error.path), reason: error.message, instead } };
  }
}

/** Annotations are read of these domains alone; others, such as kubectl's copy of the whole object, are not kept. */
const ANNOTATION_DOMAINS = ["istio.io", "gateway.networking.k8s.io"];
/** Of a node only where it is. */
const NODE_LABELS = ["topology.kubernetes.io/region", "topology.kubernetes.io/zone", "topology.istio.io/subzone"];

function trimmedMetadata(kind: ObjectKind, metadata: Map): Map {
  const { annotations, labels, managedFields: _, ...rest } = metadata;
  const isNode = kind === "Node";
  return {
    ...rest,
    annotations: isNode ? null : filtered(annotations, hasOurDomain),
    labels: isNode ? filtered(labels, (key) => NODE_LABELS.includes(key)) : labels ?? null,
  };
}

function filtered(value: Plain | undefined, keep: (key: string) => boolean): Plain {
  // Anything else than a map is left to the decoder, which refuses it by its path.
  if (typeof value !== "object" || value === null || Array.isArray(value)) return value ?? null;
  const kept: Record<string, Plain> = {};
  for (const key of Object.keys(value)) if (keep(key)) kept[key] = (value as Map)[key]!;
  return kept;
}

/** Whether an annotation is one that is read. */
export function hasOurDomain(key: string): boolean {
  const domain = key.slice(0, Math.max(key.indexOf("/"), 0));
  return ANNOTATION_DOMAINS.some((ours) => domain === ours || domain.endsWith(`.${ours}`));
}
