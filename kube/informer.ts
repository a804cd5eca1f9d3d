/** Follows all objects of a type (CP-101): a streaming list or pages, then a watch, and a list again when the thread is lost. */
import { chain, ignore } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import {
  type Informer,
  type InformerChange,
  type InformerStatus,
  type KubeApi,
  KubeError,
  type KubeObject,
  KubeUnreachable,
  type ResourceType,
  type Scope,
} from "./api.ts";
import { Backoff, type BackoffLimits, sleep } from "./backoff.ts";
import { ChangeBatch } from "./change_batch.ts";
import { KnownObjects } from "./known_objects.ts";

export interface InformerLimits {
  readonly backoff: BackoffLimits;
  /** A streaming list that says nothing for so long comes from a server that took the question for a plain watch. */
  readonly streamingSilenceMs: number;
  /** A watch that ends sooner is no sign of health: the next one waits longer. */
  readonly healthyWatchMs: number;
}

const LIMITS: InformerLimits = {
  backoff: { firstMs: 200, maxMs: 30_000 },
  streamingSilenceMs: 60_000,
  healthyWatchMs: 5_000,
};
const PAGE_OBJECTS = 500; // As the clients of Kubernetes ask: a page of pods is some 3 MB.
/** After so many of these in a row the version itself may be what is wrong: the server was restored to an older state. */
const DOUBTS_UNTIL_LIST = 3;
const DOUBTFUL_STATUS: ReadonlySet<number> = new Set([400, 422, 504]);

export interface InformerOptions {
  /** What has changed since it was last called, each object at most once; never empty. What it throws ends the informer. */
  readonly onChange: (changes: readonly InformerChange[]) => void;
  readonly log: Logger;
  /** Milliseconds that only grow. */
  readonly now?: () => number;
  readonly random?: () => number;
  /** Waits, or rejects with the signal's reason. */
  readonly sleep?: (ms: number, signal: AbortSignal) => Promise<void>;
  readonly limits?: Partial<InformerLimits>;
}

/** Starts to follow a type until the signal is aborted. Failures are retried for ever; its status and one line tell of them (CP-102). */
export function startInformer(
  api: KubeApi,
  type: ResourceType,
  scope: Scope,
  options: InformerOptions,
  signal: AbortSignal,
): Informer {
  return new RunningInformer(api, type, scope, options, signal);
}

class RunningInformer implements Informer {
  readonly type: ResourceType;
  readonly synced: Promise<void>;
  readonly stopped: Promise<void>;
  readonly #api: KubeApi;
  readonly #scope: Scope;
  readonly #options: InformerOptions;
  readonly #limits: InformerLimits;
  readonly #signal: AbortSignal;
  readonly #now: () => number;
  readonly #backoff: Backoff;
  readonly #known = new KnownObjects();
  readonly #batch: ChangeBatch;
  readonly #sync = Promise.withResolvers<void>();
  #isSynced = false;
  /** What to follow on from; empty: a list is due. */
  #version = "";
  /** Whether the server is believed to know streaming lists. */
  #streams = true;
  #lists = 0;
  #watches = 0;
  #failures = 0;
  #doubts = 0;
  #trouble: { readonly error: string; readonly status: number; readonly atMs: number } | undefined;
  #lastEventAtMs = 0;
  /** What `onChange` threw, and what ends a watch because of it. */
  #broken: { readonly error: unknown } | undefined;
  #cut = new AbortController();

  constructor(api: KubeApi, type: ResourceType, scope: Scope, options: InformerOptions, signal: AbortSignal) {
    this.type = type;
    this.#api = api;
    this.#scope = scope;
    this.#options = options;
    this.#limits = { ...LIMITS, ...options.limits };
    this.#signal = signal;
    this.#now = options.now ?? (() => performance.now());
    this.#backoff = new Backoff(this.#limits.backoff, options.random);
    this.#batch = new ChangeBatch((changes) => this.#tell(changes), this.#now);
    this.synced = this.#sync.promise;
    ignore(this.synced.catch((error) => error), "whoever waits for it hears of it; nobody has to wait");
    this.stopped = this.#run();
  }

  status(): InformerStatus {
    const trouble = this.#trouble;
    return {
      synced: this.#isSynced,
      trouble: trouble && { error: trouble.error, status: trouble.status, sinceMs: this.#now() - trouble.atMs },
      objects: this.#known.size,
      lists: this.#lists,
      watches: this.#watches,
      failures: this.#failures,
    };
  }

  async #run(): Promise<void> {
    try {
      while (!this.#signal.aborted) {
        const pauses = await this.#turn();
        if (this.#broken !== undefined) throw this.#broken.error;
        if (pauses && !this.#signal.aborted) await this.#pause();
      }
    } finally {
      this.#batch.drop();
      this.#sync.reject(this.#signal.aborted ? this.#signal.reason : this.#broken?.error);
    }
  }

  async #pause(): Promise<void> {
    try {
      await (this.#options.sleep ?? sleep)(this.#backoff.next(), this.#signal);
    } catch (error) {
      if (!this.#signal.aborted) throw error;
    }
  }

  /** A list if one is due, and a watch. @returns whether to wait before the next. */
  async #turn(): Promise<boolean> {
    const lists = this.#version === "", streams = lists && this.#streams;
    let pauses = true;
    try {
      if (lists && !streams) await this.#listPages();
      const openedAtMs = this.#now();
      await this.#watch(streams);
      pauses = this.#now() - openedAtMs < this.#limits.healthyWatchMs;
    } catch (error) {
      if (this.#signal.aborted || this.#broken !== undefined) return false;
      if (!(error instanceof KubeError) && !(error instanceof KubeUnreachable)) throw error;
      pauses = this.#fail(error, streams && this.#version === "");
    }
    // Even if it broke off: what has arrived holds.
    this.#batch.flush();
    if (!pauses) this.#backoff.reset();
    return pauses;
  }

  /** Takes a failure in. @returns whether to wait before the next try. */
  #fail(error: KubeError | KubeUnreachable, streaming: boolean): boolean {
    const status = error instanceof KubeError ? error.status : 0;
    if (streaming && (status === 400 || status === 422 || status === 500)) {
      // An older server says 400 or 422, one whose storage cannot do it 500. Pages are as good, so it is not asked again.
      this.#streams = false;
      return false;
    }
    this.#failures++;
    this.#doubts = DOUBTFUL_STATUS.has(status) ? this.#doubts + 1 : 0;
    const lost = status === 410 || error instanceof KubeUnreachable && error.undecodable;
    if (lost || this.#doubts >= DOUBTS_UNTIL_LIST) this.#version = "";
    if (status === 410) return true; // The way of things after a long pause: no trouble to report.
    const text = chain(error);
    if (this.#trouble?.status !== status) {
      const facts = { kind: this.type.kind, group: this.type.group, status, error: text };
      this.#options.log.warn("cannot follow a kind; it is tried again", facts);
    }
    this.#trouble = { error: text, status, atMs: this.#trouble?.atMs ?? this.#now() };
    return true;
  }

  /** The server answers as it should. */
  #isWell(): void {
    this.#doubts = 0;
    if (this.#trouble === undefined) return;
    const facts = {
      kind: this.type.kind,
      group: this.type.group,
      afterMs: Math.round(this.#now() - this.#trouble.atMs),
    };
    this.#trouble = undefined;
    this.#options.log.info("following a kind again", facts);
  }

  async #listPages(): Promise<void> {
    this.#lists++;
    this.#known.beginList();
    for (let continueToken = "";;) {
      const page = await this.#api.list(this.type, this.#scope, { limit: PAGE_OBJECTS, continueToken });
      if (this.#signal.aborted) return;
      for (const object of page.items) this.#note(object);
      this.#batch.flush();
      continueToken = page.continueToken;
      if (continueToken !== "") continue;
      this.#isWell();
      return this.#endList(page.resourceVersion);
    }
  }

  #endList(resourceVersion: string): void {
    for (const { namespace, name } of this.#known.endList()) this.#batch.add({ namespace, name, object: undefined });
    this.#batch.flush();
    this.#version = resourceVersion;
    if (this.#isSynced || this.#broken !== undefined) return;
    this.#isSynced = true;
    this.#sync.resolve();
  }

  async #watch(streams: boolean): Promise<void> {
    this.#watches++;
    if (streams) {
      this.#lists++;
      this.#known.beginList();
    }
    this.#cut = new AbortController();
    this.#lastEventAtMs = this.#now();
    const signal = AbortSignal.any([this.#signal, this.#cut.signal]);
    let silence = streams ? this.#watchSilence() : undefined;
    const options = {
      resourceVersion: this.#version,
      signal,
      onOpen: () => streams || this.#isWell(),
      ...(streams ? { initialEvents: true } : {}),
    };
    try {
      for await (const event of this.#api.watch(this.type, this.#scope, options)) {
        if (silence !== undefined) this.#lastEventAtMs = this.#now(); // Nobody else asks, and events are many.
        if (event.type !== "BOOKMARK") {
          this.#take(event.type, event.object);
          continue;
        }
        if (this.#version !== "") this.#version = event.resourceVersion;
        else if (event.initialEventsEnd) {
          clearInterval(silence);
          silence = undefined;
          this.#isWell();
          this.#endList(event.resourceVersion);
        }
      }
    } finally {
      clearInterval(silence);
    }
  }

  /** Gives a streaming list up that says nothing. */
  #watchSilence(): ReturnType<typeof setInterval> {
    const limitMs = this.#limits.streamingSilenceMs;
    return setInterval(() => {
      if (this.#now() - this.#lastEventAtMs < limitMs) return;
      this.#streams = false;
      this.#cut.abort();
    }, limitMs / 4);
  }

  #take(type: "ADDED" | "MODIFIED" | "DELETED", object: KubeObject): void {
    if (type === "DELETED") {
      const { namespace = "", name } = object.metadata;
      if (this.#known.forget(namespace, name)) this.#batch.add({ namespace, name, object: undefined });
    } else this.#note(object);
    // Until a streaming list has ended, its events are of the past, in no order.
    if (this.#version !== "") this.#version = object.metadata.resourceVersion ?? this.#version;
  }

  #note(object: KubeObject): void {
    const { namespace = "", name, resourceVersion = "" } = object.metadata;
    if (this.#known.note(namespace, name, resourceVersion)) this.#batch.add({ namespace, name, object });
  }

  #tell(changes: readonly InformerChange[]): void {
    if (this.#signal.aborted || this.#broken !== undefined) return;
    try {
      this.#options.onChange(changes);
    } catch (error) {
      this.#broken = { error };
      this.#cut.abort();
    }
  }
}
