/** What labels and annotations say: selectors, canonical names, booleans, waypoints asked for (CP section 2.2). */
import type { Labels, ObjectMeta } from "../objects.ts";

/** Whether every label of the selector is there with that value. An empty selector matches; callers rule it out where it must not. */
export function selects(selector: Labels, labels: Labels): boolean {
  for (const [key, value] of selector) if (labels.get(key) !== value) return false;
  return true;
}

/**
 * Where an index keeps a selector: under one of its labels. Whoever has that label finds it there, and nobody else has
 * to look; an empty selector is found by all of the namespace.
 */
export function selectorIndexKey(namespace: string, selector: Labels): string {
  let first: string | undefined;
  for (const key of selector.keys()) if (first === undefined || key < first) first = key;
  return labelIndexKey(namespace, first, selector);
}

/** Every {@link selectorIndexKey} under which a selector may stand that matches these labels. */
export function labelIndexKeys(namespace: string, labels: Labels): string[] {
  return [
    labelIndexKey(namespace, undefined, labels),
    ...[...labels.keys()].map((it) => labelIndexKey(namespace, it, labels)),
  ];
}

function labelIndexKey(namespace: string, key: string | undefined, labels: Labels): string {
  return key === undefined ? namespace : `${namespace}/${key}=${labels.get(key)}`;
}

/** A boolean as Istio's labels and annotations write it; undefined if it is none. */
export function parseBoolean(text: string | undefined): boolean | undefined {
  if (text === undefined) return undefined;
  if (["1", "t", "T", "true", "True", "TRUE"].includes(text)) return true;
  return ["0", "f", "F", "false", "False", "FALSE"].includes(text) ? false : undefined;
}

function firstOf(labels: Labels, ...keys: readonly string[]): string | undefined {
  for (const key of keys) if ((labels.get(key) ?? "") !== "") return labels.get(key);
  return undefined;
}

/** Names for telemetry (CP-205). */
export function canonicalNameOf(labels: Labels, workloadName: string): string {
  return firstOf(labels, "service.istio.io/canonical-name", "app.kubernetes.io/name", "app") ?? workloadName;
}

export function canonicalRevisionOf(labels: Labels): string {
  return firstOf(labels, "service.istio.io/canonical-revision", "app.kubernetes.io/version", "version") ?? "latest";
}

/** Whether an Istio object is ours by its revision label (CP-107). */
export function isOfRevision(meta: ObjectMeta, revision: string): boolean {
  const label = meta.labels.get("istio.io/rev");
  return label === undefined || revision === "" || label === revision;
}

/** How a workload may be reached: `hbone`, and whether it terminates HBONE itself (CP-206). */
export function tunnelOf(labels: Labels, annotations: Labels): { hbone: boolean; native: boolean } {
  const native = (labels.get("networking.istio.io/tunnel") ?? "").split(",").includes("http");
  return { hbone: native || annotations.get("ambient.istio.io/redirection") === "enabled", native };
}
