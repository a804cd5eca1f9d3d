/** Pods by node: what the CA asks before it signs an identity for a node's proxy (CP-481). */
import type { ObjectChange, PodObject } from "../objects.ts";

/** Where pods can be looked up; a snapshot of a node as well as all that is known. */
export interface PodView {
  /** The pod of that name, wherever it runs. */
  named(namespace: string, name: string): PodObject | undefined;
  /** Whether a pod of that account is bound to the node; failed ones do not count, pending and finished ones do. */
  runs(node: string, namespace: string, serviceAccount: string): boolean;
}

export class NodePods implements PodView {
  readonly #pods = new Map<string, PodObject>();
  readonly #byNode = new Map<string, Set<PodObject>>();

  /** Takes one change of the source; other kinds are ignored. */
  apply(change: ObjectChange): void {
    if (change.kind !== "Pod") return;
    const before = this.#pods.get(change.key);
    if (before !== undefined) {
      this.#pods.delete(change.key);
      const onNode = this.#byNode.get(before.nodeName);
      onNode?.delete(before);
      if (onNode?.size === 0) this.#byNode.delete(before.nodeName);
    }
    if (change.object?.kind !== "Pod") return;
    const pod = change.object;
    this.#pods.set(change.key, pod);
    if (pod.nodeName === "") return;
    const onNode = this.#byNode.get(pod.nodeName);
    if (onNode === undefined) this.#byNode.set(pod.nodeName, new Set([pod]));
    else onNode.add(pod);
  }

  named(namespace: string, name: string): PodObject | undefined {
    return this.#pods.get(`Pod/${namespace}/${name}`);
  }

  runs(node: string, namespace: string, serviceAccount: string): boolean {
    return runsAmong(this.#byNode.get(node) ?? [], namespace, serviceAccount);
  }
}

/** Whether one of the pods counts for the account. */
export function runsAmong(pods: Iterable<PodObject>, namespace: string, serviceAccount: string): boolean {
  for (const pod of pods) {
    const matches = pod.meta.namespace === namespace && pod.serviceAccountName === serviceAccount;
    if (matches && pod.phase !== "Failed") return true;
  }
  return false;
}
