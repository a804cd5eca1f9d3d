/** Writes the trust bundle into every namespace of a cluster and keeps it there, while it leads (CP-510, CP-511). */
import type { Logger } from "../../base/log.ts";
import { type InformerChange, type KubeApi, KubeError, type KubeObject } from "../../kube/api.ts";
import { startInformer } from "../../kube/informer.ts";
import { CONFIG_MAPS, NAMESPACES } from "../../kube/resource_types.ts";
import type { Labels } from "../objects.ts";
import type { Clock } from "../status/clock.ts";
import type { ControllerMetrics } from "../status/controller_metrics.ts";
import { WorkQueue } from "../status/work_queue.ts";
import { type BundleMap, isRight, isServed, REVOCATION_MAP, rightMap, ROOT_MAP } from "./bundle_maps.ts";
import type { TrustBundle } from "./trust_bundle.ts";

export interface BundleDistributorOptions {
  readonly api: KubeApi;
  /** The remote cluster that the API server is of; our own if none is said. */
  readonly cluster?: string;
  readonly bundle: TrustBundle;
  /** Whether the discovery selectors let a namespace of these labels in; asked anew after {@link onSelectors}. */
  readonly selects: (labels: Labels) => boolean;
  /** Calls back when the selectors have changed, until the returned function is called. */
  readonly onSelectors: (listener: () => void) => () => void;
  /** Whether revocation lists are handed on, too. */
  readonly revocations: boolean;
  readonly metrics: ControllerMetrics;
  readonly log: Logger;
  readonly clock?: Clock;
}

const NAME = "trust-bundle";

interface Namespace {
  readonly labels: Labels;
  readonly terminating: boolean;
}

export class BundleDistributor {
  readonly #options: BundleDistributorOptions;
  readonly #maps: readonly BundleMap[];
  readonly #namespaces = new Map<string, Namespace>();
  /** By name of the map, the namespaces that have it as it should be. */
  readonly #right = new Map<string, Set<string>>();
  /** Namespaces that we may not write to, said once each. */
  readonly #forbidden = new Set<string>();
  readonly #queue: WorkQueue;

  constructor(options: BundleDistributorOptions) {
    this.#options = options;
    this.#maps = options.revocations ? [ROOT_MAP, REVOCATION_MAP] : [ROOT_MAP];
    for (const { name } of this.#maps) this.#right.set(name, new Set());
    const { metrics, log, clock } = options;
    const reconcile = (namespace: string) => this.#reconcile(namespace);
    this.#queue = new WorkQueue({ name: NAME, reconcile, metrics, log, clock });
    const queue = options.cluster === undefined ? NAME : `${NAME} of ${options.cluster}`;
    metrics.watchQueue(queue, () => this.#queue.size);
  }

  /** Works until the signal. */
  async run(signal: AbortSignal): Promise<void> {
    const { api, bundle, log, onSelectors } = this.#options;
    const follow = (map: BundleMap) => {
      const scope = { fieldSelector: `metadata.name=${map.name}` };
      const onChange = (changes: readonly InformerChange[]) => this.#onMaps(map, changes);
      return startInformer(api, CONFIG_MAPS, scope, { onChange, log }, signal);
    };
    const onChange = (changes: readonly InformerChange[]) => this.#onNamespaces(changes);
    const informers = [
      ...this.#maps.map(follow),
      startInformer(api, NAMESPACES, { metadataOnly: true }, { onChange, log }, signal),
    ];
    const unsubscribe = [
      bundle.subscribe(() => this.#onBundle()),
      onSelectors(() => this.#addAll()),
    ];
    try {
      await Promise.allSettled(informers.map(({ synced }) => synced)); // Rejected: the signal came first.
      await this.#queue.run(signal);
    } finally {
      for (const end of unsubscribe) end();
      await Promise.all(informers.map(({ stopped }) => stopped));
    }
  }

  #onNamespaces(changes: readonly InformerChange[]): void {
    for (const { name, object } of changes) {
      if (object === undefined) {
        this.#namespaces.delete(name);
        this.#forbidden.delete(name);
        continue;
      }
      this.#namespaces.set(name, namespaceOf(object));
      this.#add(name);
    }
  }

  #onMaps(map: BundleMap, changes: readonly InformerChange[]): void {
    const right = this.#right.get(map.name)!, bundle = this.#options.bundle.now;
    for (const { namespace, object } of changes) {
      if (object !== undefined && isRight(map, object, bundle)) {
        right.add(namespace);
        continue;
      }
      right.delete(namespace);
      this.#add(namespace); // Also for one that we never saw: it may have come and gone between two looks.
    }
  }

  /** What was right is right no more; each namespace is looked at again. */
  #onBundle(): void {
    for (const right of this.#right.values()) right.clear();
    this.#addAll();
  }

  #addAll(): void {
    for (const name of this.#namespaces.keys()) this.#add(name);
  }

  #add(namespace: string): void {
    if (isServed(namespace)) this.#queue.add(namespace);
  }

  /** Throws KubeError and KubeUnreachable. */
  async #reconcile(name: string): Promise<void> {
    const namespace = this.#namespaces.get(name);
    if (namespace === undefined || namespace.terminating || !this.#options.selects(namespace.labels)) return;
    for (const map of this.#maps) {
      if (this.#right.get(map.name)!.has(name)) continue;
      try {
        await this.#write(map, name);
      } catch (error) {
        if (!(error instanceof KubeError) || error.status !== 403) throw error;
        // We may not, or the namespace ends: nothing that trying again would change.
        if (this.#forbidden.has(name)) continue;
        this.#forbidden.add(name);
        this.#options.log.info("trust bundle not written", { namespace: name, reason: error.message.slice(0, 300) });
      }
    }
  }

  async #write(map: BundleMap, namespace: string): Promise<void> {
    const { api, metrics } = this.#options, bundle = this.#options.bundle.now;
    const place = { namespace, name: map.name }, found = await api.get(CONFIG_MAPS, place);
    if (isRight(map, found, bundle)) return;
    const object = rightMap(map, found, { namespace, bundle });
    await (found === undefined ? api.create(CONFIG_MAPS, namespace, object) : api.replace(CONFIG_MAPS, place, object));
    metrics.wrote(NAME, "written");
  }
}

/** One that ends has a time of deletion: its phase, which says so too, is not fetched. */
function namespaceOf({ metadata }: KubeObject): Namespace {
  const labels = new Map<string, string>(Object.entries(metadata.labels as Record<string, string> | undefined ?? {}));
  return { labels, terminating: metadata.deletionTimestamp !== undefined };
}
