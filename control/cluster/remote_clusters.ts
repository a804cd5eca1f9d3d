/** All remote clusters: followed as their Secrets, or files, come, change and go (CP-120 to CP-122). */
import type { Logger } from "../../base/log.ts";
import { FieldRefusal, formatPath } from "../decode/field.ts";
import type { Informer, InformerChange, KubeApi } from "../../kube/api.ts";
import { startInformer } from "../../kube/informer.ts";
import { SECRETS } from "../../kube/resource_types.ts";
import type { Counter, Labels as MetricLabels, Metrics } from "../../base/metrics.ts";
import type { LabelSelector } from "../../kube/label_selector.ts";
import type { ReadinessLine } from "../readiness.ts";
import type { Part } from "../role.ts";
import { isRefusal } from "./definitions.ts";
import type { WatchedKind } from "./kinds.ts";
import { RemoteCluster, type RemoteClusterOptions, type RemoteListener, type RemoteState } from "./remote_cluster.ts";
import { RemoteFiles } from "./remote_files.ts";
import { decideClusters, readRemoteSecret, type RemoteSecret } from "./remote_secrets.ts";
import type { WatchHealth } from "./trouble_log.ts";

export interface RemoteClustersOptions {
  /** The API server whose Secrets name the others. */
  readonly api: KubeApi;
  readonly systemNamespace: string;
  readonly ownId: string;
  /** A folder of kubeconfigs, in place of Secrets. */
  readonly folder?: string;
  readonly kinds: readonly WatchedKind[];
  readonly open: RemoteClusterOptions["open"];
  readonly timeoutMs: number;
  readonly listener: RemoteListener;
  readonly metrics: Metrics;
  readonly log: Logger;
  readonly lookMs?: number;
}

/** One remote cluster, by the names of Istio's own page. */
export interface RemoteStatus {
  readonly id: string;
  readonly secretName: string;
  readonly syncStatus: RemoteState;
}

const SELECTOR = "istio/multiCluster=true";
const LOOK_MS = 500;
const STATES: readonly RemoteState[] = ["synced", "syncing", "timeout"];

/** Construct it, then {@link start} it. */
export class RemoteClusters implements Part {
  readonly api: KubeApi;
  /** All kinds, of our own cluster, too. */
  readonly kinds: readonly WatchedKind[];
  /** Watches that got into trouble, of our own cluster, too. */
  readonly syncErrors: Counter;
  readonly #options: RemoteClustersOptions;
  readonly #secrets = new Map<string, RemoteSecret>();
  readonly #clusters = new Map<string, RemoteCluster>();
  readonly #leaving = new Set<Promise<void>>();
  readonly #settled = Promise.withResolvers<void>();
  readonly #told = new Set<string>();
  readonly #events: Counter;
  readonly #timeouts: Counter;
  readonly #refusals: Counter;
  #selectors: readonly LabelSelector[] = [];
  #informer: Informer | undefined;
  /** With a folder: whether it has been read, and its end. */
  #filesAreRead = false;
  #files: Promise<void> | undefined;
  #signal: AbortSignal | undefined;

  constructor(options: RemoteClustersOptions) {
    this.#options = options;
    this.api = options.api;
    this.kinds = options.kinds;
    const { metrics } = options, labelled = { labelled: true };
    this.syncErrors = metrics.counter("controller_sync_errors_total", "Watches that got into trouble.", labelled);
    this.#events = metrics.counter(
      "remote_cluster_secret_events_total",
      "Events of remote clusters' Secrets.",
      labelled,
    );
    this.#timeouts = metrics.counter("remote_cluster_sync_timeouts_total", "Remote clusters that were late.");
    this.#refusals = metrics.counter(
      "ambit_remote_kube_refusals",
      "Objects of remote clusters that could not be read.",
      labelled,
    );
    metrics.gauge("istiod_managed_clusters", "Clusters that are read.", () => [
      [{ cluster_type: "local" }, 1],
      [{ cluster_type: "remote" }, this.#clusters.size],
    ]);
    metrics.gauge(
      "istiod_remote_cluster_sync_status",
      "1 for the state that a remote cluster is in.",
      () =>
        [...this.#clusters.values()].flatMap((cluster) =>
          STATES.map((status): [MetricLabels, number] => [
            { cluster: cluster.id, cluster_type: "remote", status },
            cluster.state === status ? 1 : 0,
          ])
        ),
    );
  }

  /** Follows the Secrets until the signal. */
  start(signal: AbortSignal): void {
    const { folder, lookMs = LOOK_MS } = this.#options;
    this.#signal = signal;
    signal.addEventListener("abort", () => this.#settled.reject(signal.reason), { once: true });
    this.#settled.promise.catch(() => {}); // Who waits for it sees the rejection; nobody has to.
    if (folder === undefined) this.#followSecrets(signal);
    else this.#followFiles(folder, signal);
    const timer = setInterval(() => this.#look(), lookMs); // For the answer that Secrets are not for us.
    signal.addEventListener("abort", () => clearInterval(timer), { once: true });
    if (signal.aborted) clearInterval(timer);
  }

  #followSecrets(signal: AbortSignal): void {
    const { api, systemNamespace: namespace, log } = this.#options;
    const onChange = (changes: readonly InformerChange[]) => this.#take(changes);
    this.#informer = startInformer(api, SECRETS, { namespace, labelSelector: SELECTOR }, { onChange, log }, signal);
    this.#informer.synced.then(() => this.#look(), () => {}); // Rejected only by the signal.
  }

  #followFiles(folder: string, signal: AbortSignal): void {
    const { log, lookMs } = this.#options;
    const onChange = (files: ReadonlyMap<string, RemoteSecret>) => {
      this.#secrets.clear();
      for (const [path, file] of files) this.#secrets.set(path, file);
      this.#filesAreRead = true;
      this.#reconcile();
    };
    this.#files = new RemoteFiles({ folder, onChange, log, lookMs }).run(signal);
  }

  /** Resolves once every cluster that was asked for at the start is read, late or refused; rejects with the signal's reason. */
  get settled(): Promise<void> {
    return this.#settled.promise;
  }

  get stopped(): Promise<void> {
    const all = [...this.#clusters.values()].map((it) => it.stopped);
    return Promise.all([this.#informer?.stopped, this.#files, ...all, ...this.#leaving]).then(() => {});
  }

  /** Takes new discovery selectors; each cluster judges by its own namespaces (CP-104). */
  select(selectors: readonly LabelSelector[]): void {
    this.#selectors = selectors;
    for (const cluster of this.#clusters.values()) cluster.select(selectors);
  }

  /** The clusters asked for, in the order of their ids. */
  clusters(): readonly RemoteCluster[] {
    return [...this.#clusters.values()].sort((one, other) => one.id < other.id ? -1 : 1);
  }

  status(): RemoteStatus[] {
    return this.clusters().map((cluster) => ({
      id: cluster.id,
      secretName: this.#placeOf(cluster.describe().secret),
      syncStatus: cluster.state,
    }));
  }

  #placeOf(secret: string): string {
    return this.#options.folder === undefined ? `${this.#options.systemNamespace}/${secret}` : secret;
  }

  health(): WatchHealth {
    const trouble = this.#informer?.status().trouble;
    const { systemNamespace: namespace } = this.#options;
    return { type: SECRETS, namespace, trouble, consequence: "remote clusters stay as they are" };
  }

  lines(): ReadinessLine[] {
    return this.clusters().map((cluster) => {
      const { problem, kinds } = cluster.describe();
      const troubled = kinds.filter(({ trouble }) => trouble !== undefined).map(({ kind }) => kind);
      const well = cluster.state === "synced" && problem === "" && troubled.length === 0;
      const detail = problem || (troubled.length > 0 ? `cannot watch ${troubled.join(", ")}` : cluster.state);
      return { name: `cluster ${cluster.id}`, well, detail };
    });
  }

  /** Looks whether the start need wait any longer. */
  #look(): void {
    const status = this.#informer?.status();
    const known = this.#filesAreRead || status?.synced === true || isRefusal(status?.trouble?.status);
    if (known && [...this.#clusters.values()].every((it) => it.settled)) this.#settled.resolve();
  }

  #take(changes: readonly InformerChange[]): void {
    for (const { name, object } of changes) {
      const event = object === undefined ? "delete" : this.#secrets.has(name) ? "update" : "add";
      this.#events.increment({ event });
      if (object === undefined) this.#secrets.delete(name);
      else {
        try {
          this.#secrets.set(name, readRemoteSecret(object));
        } catch (error) {
          if (!(error instanceof FieldRefusal)) throw error;
          const facts = { secret: name, field: formatPath(error.path), reason: error.message };
          this.#options.log.error("Secret of remote clusters cannot be read; what it said before stays", facts);
        }
      }
    }
    this.#reconcile();
  }

  #reconcile(): void {
    const signal = this.#signal;
    if (signal === undefined || signal.aborted) return;
    const { wanted, refused } = decideClusters(this.#secrets.values(), this.#options.ownId);
    for (const [id, cluster] of this.#clusters) {
      if (wanted.has(id)) continue;
      this.#options.log.info("remote cluster removed", { cluster: id });
      this.#clusters.delete(id);
      cluster.remove();
      const leaving = cluster.stopped.finally(() => this.#leaving.delete(leaving));
      this.#leaving.add(leaving);
    }
    for (const cluster of wanted.values()) this.#clusterOf(cluster.id, signal).want(cluster);
    const now = new Set<string>();
    for (const { id, secret, reason } of refused) {
      const text = JSON.stringify([id, secret, reason]);
      now.add(text);
      if (!this.#told.has(text)) this.#options.log.error("remote cluster ignored", { cluster: id, secret, reason });
    }
    this.#told.clear();
    for (const text of now) this.#told.add(text);
    this.#look();
  }

  #clusterOf(id: string, signal: AbortSignal): RemoteCluster {
    const found = this.#clusters.get(id);
    if (found !== undefined) return found;
    const { kinds, open, timeoutMs, listener, log, lookMs } = this.#options;
    const cluster = new RemoteCluster(id, {
      kinds: kinds.filter(({ everywhere }) => everywhere),
      open,
      timeoutMs,
      selectors: () => this.#selectors,
      listener,
      onRefused: (kind) => this.#refusals.increment({ cluster: id, kind }),
      onTrouble: () => this.syncErrors.increment({ cluster: id }),
      onTimeout: () => this.#timeouts.increment(),
      onChange: () => this.#look(),
      log: log.child(`cluster ${id}`),
      lookMs,
    }, signal);
    this.#clusters.set(id, cluster);
    return cluster;
  }
}
