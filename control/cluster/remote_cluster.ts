/** One remote cluster: what serves for it now, and what is to take over once it has read everything (CP-121). */
import { chain } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import type { KubeApi } from "../../kube/api.ts";
import type { OpenedApi } from "../api_access.ts";
import type { LabelSelector } from "../../kube/label_selector.ts";
import type { ObjectChange } from "../objects.ts";
import { ClusterSource } from "./cluster_source.ts";
import type { KindStatus } from "./kind_watch.ts";
import type { WatchedKind } from "./kinds.ts";
import { kubeconfigText, type WantedCluster, whereIs } from "./remote_secrets.ts";

export type RemoteState = "synced" | "syncing" | "timeout";

/** Whoever takes what a remote cluster tells. */
export interface RemoteListener {
  /** A cluster serves from here on, in place of what served under its id before: what changed, in one batch. */
  takeOver(cluster: { readonly id: string; readonly api: KubeApi; admits(namespace: string): boolean }): void;
  change(id: string, changes: readonly ObjectChange[]): void;
  /** The cluster is gone, and everything of it with it. */
  gone(id: string): void;
}

export interface RemoteClusterOptions {
  readonly kinds: readonly WatchedKind[];
  /** Opens the API that a kubeconfig names. @throws MeshError if it is not to be used. */
  readonly open: (kubeconfig: string, source: string) => Promise<OpenedApi>;
  readonly timeoutMs: number;
  readonly selectors: () => readonly LabelSelector[];
  readonly listener: RemoteListener;
  readonly onRefused: (kind: string) => void;
  readonly onTrouble: () => void;
  readonly onTimeout: () => void;
  /** Called when {@link RemoteCluster.state} or {@link RemoteCluster.settled} may be another. */
  readonly onChange: () => void;
  readonly log: Logger;
  readonly lookMs?: number;
}

/** One set of credentials in use. */
interface Tenure {
  readonly opened: OpenedApi;
  readonly source: ClusterSource;
  readonly stop: AbortController;
}

export class RemoteCluster {
  readonly id: string;
  readonly #options: RemoteClusterOptions;
  readonly #signal: AbortSignal;
  /** What the Secret says now. */
  #kubeconfig = "";
  #secret = "";
  #current: Tenure | undefined;
  #next: Tenure | undefined;
  /** Why the newest kubeconfig is not used. */
  #problem = "";
  #late = false;
  /** Whether all of it has been told, of these credentials or of those before. */
  #isRead = false;
  #timer: ReturnType<typeof setTimeout> | undefined;
  readonly #ending = new Set<Promise<unknown>>();

  constructor(id: string, options: RemoteClusterOptions, signal: AbortSignal) {
    this.id = id;
    this.#options = options;
    this.#signal = signal;
    signal.addEventListener("abort", () => clearTimeout(this.#timer), { once: true });
  }

  get state(): RemoteState {
    return this.#isRead ? "synced" : this.#late ? "timeout" : "syncing";
  }

  /** Whether the start need not wait for it any more (CP-122). */
  get settled(): boolean {
    return this.#isRead || this.#late || this.#problem !== "";
  }

  /** For people: where its credentials stand, and what is wrong with them or it. */
  describe(): { readonly secret: string; readonly problem: string; readonly kinds: readonly KindStatus[] } {
    const kinds = (this.#current ?? this.#next)?.source.status() ?? [];
    return { secret: this.#secret, problem: this.#problem, kinds };
  }

  /** Takes what the Secret says; the same again is no news. What serves now serves until the new one has read all. */
  want(wanted: WantedCluster): void {
    this.#secret = wanted.secret;
    if (wanted.kubeconfig === this.#kubeconfig) return;
    this.#kubeconfig = wanted.kubeconfig;
    this.#drop(this.#next);
    this.#next = undefined;
    this.#problem = "";
    clearTimeout(this.#timer);
    const opening = this.#open(wanted).finally(() => this.#ending.delete(opening));
    this.#ending.add(opening);
  }

  select(selectors: readonly LabelSelector[]): void {
    this.#next?.source.select(selectors);
    const changes = this.#current?.source.select(selectors) ?? [];
    if (changes.length > 0) this.#options.listener.change(this.id, changes);
  }

  /** Ends it. */
  remove(): void {
    clearTimeout(this.#timer);
    this.#kubeconfig = "";
    this.#drop(this.#current);
    this.#drop(this.#next);
    this.#next = undefined; // It may have read all this very moment, and must not take over any more.
    if (this.#current !== undefined) this.#options.listener.gone(this.id);
    this.#current = undefined;
  }

  /** Resolves once everything has ended that is to end. */
  get stopped(): Promise<void> {
    return Promise.all(this.#ending).then(() => {});
  }

  async #open(wanted: WantedCluster): Promise<void> {
    const { log, open, onChange, timeoutMs } = this.#options;
    let opened: OpenedApi;
    try {
      opened = await open(kubeconfigText(wanted), whereIs(wanted));
    } catch (error) {
      if (!(error instanceof Error)) throw error;
      if (this.#kubeconfig !== wanted.kubeconfig) return;
      this.#problem = chain(error);
      const consequence = this.#current === undefined ? "the cluster is not read" : "the credentials from before stay";
      log.error("remote cluster refused", {
        cluster: this.id,
        secret: wanted.secret,
        error: this.#problem,
        consequence,
      });
      return onChange();
    }
    if (this.#signal.aborted || this.#kubeconfig !== wanted.kubeconfig) return opened.close(); // Another was asked for.
    const next = this.#begin(opened);
    if (this.#current === undefined) this.#timer = setTimeout(() => this.#isLate(), timeoutMs);
    try {
      await next.source.settled;
    } catch (error) {
      if (next.stop.signal.aborted || this.#signal.aborted) return;
      throw error;
    }
    if (this.#next === next) await this.#takeOver(next);
  }

  #begin(opened: OpenedApi): Tenure {
    const { kinds, selectors, onRefused, onTrouble, log, lookMs } = this.#options;
    const stop = new AbortController();
    const source = new ClusterSource({
      api: opened.api,
      kinds,
      onChange: (changes) => this.#tell(changes),
      onRefused,
      onTrouble,
      unserved: `the cluster ${this.id} is not read without it`,
      log,
      lookMs,
    });
    source.select(selectors());
    const tenure = this.#next = { opened, source, stop };
    source.start(AbortSignal.any([this.#signal, stop.signal]));
    // However it ends, its connections go with it.
    const closed = source.stopped.then(() => opened.close()).finally(() => this.#ending.delete(closed));
    this.#ending.add(closed);
    return tenure;
  }

  /** What the old one had and the new one has not goes, the rest is as it was: nothing of the cluster flaps (CP-285). */
  async #takeOver(next: Tenure): Promise<void> {
    const { listener, onChange, log } = this.#options, old = this.#current;
    clearTimeout(this.#timer);
    this.#next = undefined;
    this.#current = next;
    const objects = next.source.objects(), keys = new Set(objects.map(({ key }) => key));
    const lost = (old?.source.objects() ?? []).filter(({ key }) => !keys.has(key));
    this.#drop(old);
    listener.takeOver({ id: this.id, api: next.opened.api, admits: (namespace) => next.source.admits(namespace) });
    if (lost.length > 0) listener.change(this.id, lost.map((change) => ({ ...change, object: undefined })));
    await next.source.open();
    if (next.stop.signal.aborted || this.#signal.aborted) return;
    log.info("remote cluster read", {
      cluster: this.id,
      secret: this.#secret,
      objects: objects.length,
      late: this.#late,
    });
    this.#late = false;
    this.#isRead = true;
    onChange();
  }

  #tell(changes: readonly ObjectChange[]): void {
    this.#options.listener.change(this.id, changes);
  }

  #isLate(): void {
    const { log, onTimeout, onChange, timeoutMs } = this.#options;
    this.#late = true;
    onTimeout();
    log.warn("remote cluster is late; it is added once it is read", { cluster: this.id, afterMs: timeoutMs });
    onChange();
  }

  #drop(tenure: Tenure | undefined): void {
    tenure?.stop.abort();
  }
}
