/** What the agent knows of its node: pods and namespaces, as the API server told it last. */
import { type InformerChange } from "../../kube/api.ts";
import { type Enablement, isEnabledNamespace, type Texts, wantsMesh } from "../enablement.ts";
import { factsOf, type NodePod, nodePodOf } from "./node_pod.ts";

const ZTUNNEL_LABEL = "app", ZTUNNEL = "ztunnel";

export class NodeState {
  readonly #enablement: Enablement;
  readonly #systemNamespace: string;
  /** By `namespace/name`. */
  readonly #pods = new Map<string, NodePod>();
  readonly #namespaces = new Map<string, Texts>();

  constructor(enablement: Enablement, systemNamespace: string) {
    this.#enablement = enablement;
    this.#systemNamespace = systemNamespace;
  }

  /** Takes changes of pods. @returns Those to look at: what was there before, where a pod is gone or another of its name came. */
  applyPods(changes: readonly InformerChange[]): { readonly changed: string[]; readonly gone: NodePod[] } {
    const changed: string[] = [], gone: NodePod[] = [];
    for (const { namespace, name, object } of changes) {
      const key = `${namespace}/${name}`, before = this.#pods.get(key);
      const pod = object === undefined ? undefined : nodePodOf(object);
      if (before !== undefined && before.uid !== pod?.uid) gone.push(before);
      if (pod === undefined) this.#pods.delete(key);
      else {
        this.#pods.set(key, pod);
        changed.push(key);
      }
    }
    return { changed, gone };
  }

  /** Takes changes of namespaces. @returns The pods to look at: those of a namespace that turned (CNI-075). */
  applyNamespaces(changes: readonly InformerChange[]): string[] {
    const turned = new Set<string>();
    for (const { name, object } of changes) {
      const before = this.#namespaces.get(name), labels = (object?.metadata.labels ?? {}) as Texts;
      if (object === undefined) this.#namespaces.delete(name);
      else this.#namespaces.set(name, labels);
      const was = before !== undefined && isEnabledNamespace(before, this.#enablement);
      if (was !== isEnabledNamespace(labels, this.#enablement)) turned.add(name);
    }
    return [...this.#pods].filter(([, pod]) => turned.has(pod.namespace)).map(([key]) => key);
  }

  pod(key: string): NodePod | undefined {
    return this.#pods.get(key);
  }

  pods(): IterableIterator<[string, NodePod]> {
    return this.#pods.entries();
  }

  /** undefined: the namespace is not known (CNI-078). */
  namespaceLabels(namespace: string): Texts | undefined {
    return this.#namespaces.get(namespace);
  }

  /** ztunnel carries the pods' traffic and is itself in no mesh. */
  isZtunnel({ namespace, labels }: NodePod): boolean {
    return namespace === this.#systemNamespace && labels[ZTUNNEL_LABEL] === ZTUNNEL;
  }

  /** Namespaces that are in the mesh by their labels, and those of a pod of this node that is by its own (CNI-021). */
  ambientNamespaces(): string[] {
    const { excludedNamespaces } = this.#enablement;
    const byLabel = [...this.#namespaces].filter(([name, labels]) =>
      !excludedNamespaces.includes(name) && isEnabledNamespace(labels, this.#enablement)
    ).map(([name]) => name);
    const byPod = [...this.#pods].filter(([key]) => this.wants(key) === true).map(([, { namespace }]) => namespace);
    return [...new Set([...byLabel, ...byPod])].sort();
  }

  /** Whether a pod is to be in the mesh; undefined where that cannot be told. */
  wants(key: string): boolean | undefined {
    const pod = this.#pods.get(key), labels = pod && this.#namespaces.get(pod.namespace);
    if (pod === undefined || labels === undefined) return undefined;
    return !this.isZtunnel(pod) && wantsMesh(factsOf(pod, labels), this.#enablement);
  }
}
