/** Which remote clusters are asked for, decided: each key of a Secret's data is a cluster's id, its value a kubeconfig; or each file is one (CP-120). */
import type { Plain } from "../../base/plain.ts";
import type { KubeObject } from "../../kube/api.ts";
import { Field, FieldRefusal } from "../decode/field.ts";
import { timestamp } from "../decode/values.ts";

/** What one Secret, or one file, holds. */
export interface RemoteSecret {
  /** The Secret's name; the file's path, which begins with a slash, as no Secret's name does. */
  readonly name: string;
  readonly createdAtMs: number;
  /** By cluster id, the kubeconfig in base64. */
  readonly kubeconfigs: ReadonlyMap<string, string>;
}

/** A cluster that is asked for. */
export interface WantedCluster {
  readonly id: string;
  readonly secret: string;
  /** In base64, as the Secret has it. */
  readonly kubeconfig: string;
}

/** An id that is not taken, and why. */
export interface RefusedCluster {
  readonly id: string;
  readonly secret: string;
  readonly reason: string;
}

const CLUSTERS_MAX = 500; // Each has its own watches; a mesh of more needs another design.
const ID = /^[-._a-zA-Z0-9]{1,253}$/; // What the API server lets a Secret's key be.

/** Throws FieldRefusal. */
export function readRemoteSecret(object: KubeObject): RemoteSecret {
  const root = new Field(object as unknown as { readonly [key: string]: Plain });
  return {
    name: object.metadata.name,
    createdAtMs: timestamp(root.get("metadata").get("creationTimestamp")),
    kubeconfigs: root.get("data").textMap(),
  };
}

/** Decides among all Secrets. Of two that name an id the older one has it, whichever was seen first. */
export function decideClusters(
  secrets: Iterable<RemoteSecret>,
  ownId: string,
): { wanted: ReadonlyMap<string, WantedCluster>; refused: readonly RefusedCluster[] } {
  const wanted = new Map<string, WantedCluster>(), refused: RefusedCluster[] = [];
  const inOrder = [...secrets].sort((one, other) =>
    one.createdAtMs - other.createdAtMs || (one.name < other.name ? -1 : 1)
  );
  for (const { name: secret, kubeconfigs } of inOrder) {
    for (const [id, kubeconfig] of kubeconfigs) {
      const reason = reasonAgainst(id, ownId, wanted);
      if (reason === undefined) wanted.set(id, { id, secret, kubeconfig });
      else refused.push({ id: id.slice(0, 253), secret, reason });
    }
  }
  return { wanted, refused };
}

/** For people: where a kubeconfig stands. */
export function whereIs({ id, secret }: Pick<WantedCluster, "id" | "secret">): string {
  return secret.startsWith("/") ? `file ${secret}` : `Secret ${secret}, key ${id}`;
}

function reasonAgainst(id: string, ownId: string, wanted: ReadonlyMap<string, WantedCluster>): string | undefined {
  if (!ID.test(id)) return "is no name of a cluster";
  if (id === ownId) return "is this cluster's own id";
  const other = wanted.get(id);
  if (other !== undefined) return `is in ${whereIs(other)} already`;
  return wanted.size < CLUSTERS_MAX ? undefined : `there are ${CLUSTERS_MAX} clusters already`;
}

/** The text of a kubeconfig. Throws FieldRefusal if it is not base64 of UTF-8 text. */
export function kubeconfigText({ id, kubeconfig }: WantedCluster): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(Uint8Array.fromBase64(kubeconfig));
  } catch (error) {
    if (error instanceof SyntaxError || error instanceof TypeError) {
      throw new FieldRefusal(["data", id], "must be base64 of UTF-8 text");
    }
    throw error;
  }
}
