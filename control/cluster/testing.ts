/** For tests: an API server in memory with a small mesh in it, a cluster source over it, and the index that it feeds. */
import { Logger } from "../../base/log.ts";
import type { KubeObject, ResourceType } from "../../kube/api.ts";
import {
  AUTHORIZATION_POLICIES,
  CONFIG_MAPS,
  CUSTOM_RESOURCE_DEFINITIONS,
  NAMESPACES,
  PODS,
} from "../../kube/resource_types.ts";
import { InMemoryKubeApi } from "../../kube/testing.ts";
import { AUTHORIZATION_TYPE_URL } from "../../mesh/proto/authorization_codec.ts";
import { ADDRESS_TYPE_URL } from "../../mesh/proto/workload_codec.ts";
import { AmbientIndex } from "../ambient/index.ts";
import type { ObjectChange } from "../objects.ts";
import { ClusterSource } from "./cluster_source.ts";
import { resourceName, WATCHED_KINDS } from "./kinds.ts";

const DEADLINE_MS = 60_000;

/** Waits until a claim holds. Throws if it does not within the deadline. */
export async function until(claim: string, holds: () => boolean | Promise<boolean>): Promise<void> {
  for (const endMs = performance.now() + DEADLINE_MS; !(await holds());) {
    if (performance.now() > endMs) throw new Error(`in time: ${claim}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

export function namespace(name: string, labels: Record<string, string> = {}): object {
  return { metadata: { name, labels } };
}

export function pod(namespace: string, name: string, ip: string, labels: Record<string, string> = {}): object {
  return {
    metadata: { name, namespace, uid: `uid-${namespace}-${name}`, labels },
    spec: { serviceAccountName: "default", nodeName: "node-1", containers: [] },
    status: { phase: "Running", podIP: ip, podIPs: [{ ip }], conditions: [{ type: "Ready", status: "True" }] },
  };
}

export function allowNothing(namespace: string, name: string, spec: object = {}): object {
  return { metadata: { name, namespace }, spec };
}

/** Puts a CRD there for a kind that has one. */
export function define(api: InMemoryKubeApi, type: ResourceType, annotations: Record<string, string> = {}): void {
  api.serve(type, true);
  api.put(CUSTOM_RESOURCE_DEFINITIONS, { metadata: { name: resourceName(type), annotations } });
}

/** Takes a CRD away, and its objects with it. */
export function undefine(api: InMemoryKubeApi, type: ResourceType): void {
  api.serve(type, false);
  api.remove(CUSTOM_RESOURCE_DEFINITIONS, "", resourceName(type));
}

/** An API server that has every kind, a namespace, a pod and a policy. */
export function smallMesh(): InMemoryKubeApi {
  const api = new InMemoryKubeApi();
  for (const { type, optional } of WATCHED_KINDS) if (optional) define(api, type);
  api.put(NAMESPACES, namespace("istio-system"));
  api.put(NAMESPACES, namespace("shop"));
  api.put(PODS, pod("shop", "cart", "10.0.0.5"));
  api.put(AUTHORIZATION_POLICIES, allowNothing("shop", "closed"));
  return api;
}

export function meshConfigMap(mesh: string, name = "istio"): object {
  return { metadata: { name, namespace: "istio-system" }, data: { mesh } };
}

export function putMeshConfig(api: InMemoryKubeApi, mesh: string, name = "istio"): KubeObject {
  return api.put(CONFIG_MAPS, meshConfigMap(mesh, name));
}

/** Names and versions of all that an index serves: equal text, equal mesh. */
export function served(index: AmbientIndex): string[] {
  return [ADDRESS_TYPE_URL, AUTHORIZATION_TYPE_URL].flatMap((type) =>
    [...index.all(type)].map(({ name, version }) => `${name} ${version}`)
  ).sort();
}

/** A source over an API server, feeding an index. */
export class SourceRig implements AsyncDisposable {
  readonly api: InMemoryKubeApi;
  readonly index = new AmbientIndex({ clusterId: "c1" });
  readonly source: ClusterSource;
  readonly lines: string[] = [];
  /** How many batches were told. */
  batches = 0;
  /** How often a watch got into trouble. */
  troubles = 0;
  readonly #stop = new AbortController();

  constructor(api: InMemoryKubeApi = smallMesh()) {
    this.api = api;
    this.source = new ClusterSource({
      api,
      kinds: WATCHED_KINDS,
      onChange: (changes) => this.apply(changes),
      onRefused: () => {},
      onTrouble: () => this.troubles++,
      log: new Logger("cluster", { sink: (line) => this.lines.push(line) }),
      lookMs: 10,
      limits: { backoff: { firstMs: 1, maxMs: 20 }, healthyWatchMs: 0 },
    });
  }

  apply(changes: readonly ObjectChange[]): void {
    this.batches++;
    this.index.apply(changes);
  }

  begin(): void {
    this.source.start(this.#stop.signal);
  }

  async open(): Promise<this> {
    this.begin();
    await this.source.settled;
    await this.source.open();
    return this;
  }

  /** The names that the index serves. */
  names(): string[] {
    return served(this.index).map((line) => line.split(" ")[0]!);
  }

  log(): string {
    return this.lines.join("\n");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort(new DOMException("the test is over", "AbortError"));
    await this.source.stopped;
  }
}
