/** What ConfigMaps of a namespace are to hold of the trust bundle. Pure (CP-510, CP-511). */
import type { KubeObject } from "../../kube/api.ts";
import type { TrustBundleNow } from "./trust_bundle.ts";

/** One ConfigMap that every namespace has. */
export interface BundleMap {
  readonly name: string;
  /** The part of it that is ours; others are left alone. */
  readonly part: string;
  /** What it is to hold; empty: nothing, and no ConfigMap is made for that. */
  readonly textOf: (bundle: TrustBundleNow) => string;
}

export const ROOT_MAP: BundleMap = Object.freeze({
  name: "istio-ca-root-cert",
  part: "root-cert.pem",
  textOf: ({ rootsPem }: TrustBundleNow) => rootsPem,
});

export const REVOCATION_MAP: BundleMap = Object.freeze({
  name: "istio-ca-crl",
  part: "ca-crl.pem",
  textOf: ({ revocationsPem }: TrustBundleNow) => revocationsPem,
});

/** Namespaces of Kubernetes itself in which no pod of the mesh runs; ztunnel may be in kube-system. */
const LEFT_OUT: ReadonlySet<string> = new Set(["kube-public", "kube-node-lease", "local-path-storage"]);
const LABELS = Object.freeze({ "istio.io/config": "true" });

/** Whether a namespace of that name is served at all. */
export function isServed(namespace: string): boolean {
  return !LEFT_OUT.has(namespace);
}

/** Whether a ConfigMap, or none, is as it should be. */
export function isRight(map: BundleMap, found: KubeObject | undefined, bundle: TrustBundleNow): boolean {
  return (textIn(map, found) ?? "") === map.textOf(bundle);
}

/** The ConfigMap to write: a new one, or the one that was found with our part set right. */
export function rightMap(
  { name, part, textOf }: BundleMap,
  found: KubeObject | undefined,
  { namespace, bundle }: { namespace: string; bundle: TrustBundleNow },
): object {
  const text = textOf(bundle);
  if (found === undefined) {
    const metadata = { name, namespace, labels: LABELS };
    return { apiVersion: "v1", kind: "ConfigMap", metadata, data: { [part]: text } };
  }
  const labels = { ...found.metadata.labels as Record<string, string> | undefined, ...LABELS };
  const data = { ...found.data as Record<string, string> | undefined, [part]: text };
  return { ...found, apiVersion: "v1", kind: "ConfigMap", metadata: { ...found.metadata, labels }, data };
}

function textIn({ part }: BundleMap, found: KubeObject | undefined): string | undefined {
  const data = found?.data;
  if (typeof data !== "object" || data === null || !Object.hasOwn(data, part)) return undefined;
  const text = (data as Record<string, unknown>)[part];
  return typeof text === "string" ? text : undefined;
}
