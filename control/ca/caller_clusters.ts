/** The clusters whose pods may call: each vouches for its own tokens and its own pods alone (CP-476, CP-482). */
import { MeshError } from "../../base/errors.ts";
import type { KubeApi } from "../../kube/api.ts";
import { NodePods } from "./node_pods.ts";

export interface CallerCluster {
  readonly id: string;
  /** Undefined where no Kubernetes stands behind the pods. */
  readonly api: KubeApi | undefined;
  readonly pods: NodePods;
  /** Whether the namespace is within the discovery selectors; pods elsewhere do not count (CP-481). */
  readonly selects: (namespace: string) => boolean;
}

export class CallerClusters {
  readonly #own: string;
  readonly #aliases: ReadonlyMap<string, string>;
  readonly #clusters = new Map<string, CallerCluster>();
  readonly #listeners = new Set<() => void>();

  /** @param aliases other names that clients may say, with the cluster each means. */
  constructor(own: string, aliases: ReadonlyMap<string, string> = new Map()) {
    this.#own = own;
    this.#aliases = aliases;
  }

  /** Adds a cluster, or replaces the one of that id. @returns Its pods, to be kept up to date by the caller. */
  set(
    id: string,
    api?: KubeApi,
    { selects = () => true }: { selects?: (namespace: string) => boolean } = {},
  ): NodePods {
    const pods = new NodePods();
    this.#clusters.set(id, { id, api, pods, selects });
    this.#tell();
    return pods;
  }

  /** Says which namespaces of a cluster count, whose source is made later than it. */
  restrict(id: string, selects: (namespace: string) => boolean): void {
    const cluster = this.#clusters.get(id);
    if (cluster !== undefined) this.#clusters.set(id, { ...cluster, selects });
  }

  /** A cluster that is gone vouches for nobody. */
  remove(id: string): void {
    this.#clusters.delete(id);
    this.#tell();
  }

  /** All but our own. */
  remotes(): CallerCluster[] {
    return [...this.#clusters.values()].filter(({ id }) => id !== this.#own);
  }

  /** Calls back when a cluster came, went or is reached otherwise, until the returned function is called. */
  subscribe(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  #tell(): void {
    for (const listener of [...this.#listeners]) listener();
  }

  /** The cluster that `clusterid` headers name: none means our own, two that differ mean nothing (CP-476). */
  named(headers: readonly string[]): CallerCluster | undefined {
    if (headers.some((it) => it !== headers[0])) return undefined;
    const id = headers[0] === undefined || headers[0] === "" ? this.#own : headers[0];
    return this.#clusters.get(id) ?? this.#clusters.get(this.#aliases.get(id) ?? "");
  }

  /** For logs and pages. */
  ids(): string[] {
    return [...this.#clusters.keys()];
  }
}

/** Reads `alias=cluster` texts. @throws MeshError AMB0250 */
export function aliasesOf(texts: readonly string[]): ReadonlyMap<string, string> {
  return new Map(texts.map((text) => {
    const [alias, cluster, ...rest] = text.split("=");
    if (alias !== undefined && alias !== "" && cluster !== undefined && cluster !== "" && rest.length === 0) {
      return [alias, cluster];
    }
    throw new MeshError("AMB0250", `${JSON.stringify(text)} names no cluster's alias`, {
      remedy: "give --cluster-aliases pairs like old-name=name",
    });
  }));
}
