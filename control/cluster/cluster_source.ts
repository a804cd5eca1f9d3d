/** The objects of one cluster: a watch for each kind that is there, through one gate. */
import type { StatusMirror } from "../status/status_mirror.ts";
import { assert } from "../../base/assert.ts";
import type { Logger } from "../../base/log.ts";
import type { KubeApi } from "../../kube/api.ts";
import type { InformerLimits } from "../../kube/informer.ts";
import { CUSTOM_RESOURCE_DEFINITIONS } from "../../kube/resource_types.ts";
import type { LabelSelector } from "../../kube/label_selector.ts";
import type { ObjectChange } from "../objects.ts";
import { Definitions, isRefusal } from "./definitions.ts";
import { NamespaceGate } from "./gate.ts";
import { type KindStatus, KindWatch } from "./kind_watch.ts";
import type { WatchedKind } from "./kinds.ts";
import { TroubleLog, type WatchHealth } from "./trouble_log.ts";

export interface ClusterSourceOptions {
  readonly api: KubeApi;
  readonly kinds: readonly WatchedKind[];
  /** Told nothing before {@link ClusterSource.open}; never called with no change. */
  readonly onChange: (changes: readonly ObjectChange[]) => void;
  /** Called for every object that cannot be read. */
  readonly onRefused: (kind: string) => void;
  /** Called when a watch gets into trouble. */
  readonly onTrouble: () => void;
  readonly log: Logger;
  /** Is told of the status of objects, before they are told of. */
  readonly statuses?: StatusMirror;
  /** Watches beside these kinds whose trouble is to be said with theirs. */
  readonly others?: () => readonly WatchHealth[];
  /** What it means that a kind which is needed cannot be had. */
  readonly unserved?: string;
  /** For tests: how patient the watches are. */
  readonly limits?: Partial<InformerLimits>;
  /** How often it is looked whether a watch is in trouble. */
  readonly lookMs?: number;
}

const LOOK_MS = 500;

/** Construct, {@link start}, wait for {@link settled}, then {@link open}. */
export class ClusterSource {
  readonly #options: ClusterSourceOptions;
  readonly #gate = new NamespaceGate();
  readonly #watches = new Map<string, KindWatch>();
  readonly #definitions: Definitions;
  readonly #troubles: TroubleLog;
  readonly #settled = Promise.withResolvers<void>();
  /** Watches that were stopped, and may still be ending. */
  readonly #ending = new Set<Promise<void>>();
  #signal: AbortSignal | undefined;
  #stopped: Promise<void> = Promise.resolve();
  #gateIsOpen = false;

  constructor(options: ClusterSourceOptions) {
    this.#options = options;
    this.#troubles = new TroubleLog(options.log, options.onTrouble);
    const types = options.kinds.filter(({ optional }) => optional).map(({ type }) => type);
    this.#definitions = new Definitions({
      api: options.api,
      types,
      onChange: () => this.#look(),
      log: options.log,
      limits: options.limits,
    });
  }

  /** Begins to watch, until the signal. Call it once. */
  start(signal: AbortSignal): void {
    assert(this.#signal === undefined, "a cluster is watched once");
    this.#signal = signal;
    const definitions = this.#definitions.start(signal);
    const timer = setInterval(() => this.#look(), this.#options.lookMs ?? LOOK_MS);
    const over = Promise.withResolvers<void>();
    const onAbort = () => {
      clearInterval(timer);
      this.#settled.reject(signal.reason);
      over.resolve();
    };
    if (signal.aborted) onAbort();
    else signal.addEventListener("abort", onAbort, { once: true });
    this.#settled.promise.catch(() => {}); // Who waits for it sees the rejection; nobody has to.
    this.#stopped = over.promise.then(async () => {
      await Promise.all([definitions, ...this.#ending, ...[...this.#watches.values()].map((it) => it.stopped)]);
    });
    this.#look();
  }

  /** Resolves once everything is there that the mesh needs (CP-102), rejects with the signal's reason. */
  get settled(): Promise<void> {
    return this.#settled.promise;
  }

  get stopped(): Promise<void> {
    return this.#stopped;
  }

  /** Tells all there is, in batches with a turn of the event loop between them, and every change from here on. */
  async open(): Promise<void> {
    this.#gateIsOpen = true;
    for (const batch of this.#gate.open()) {
      if (this.#signal?.aborted !== false) return;
      this.#tell(batch);
      await new Promise((resolve) => setTimeout(resolve, 0));
    }
  }

  /** Everything that counts now, whether it was told or not. */
  objects(): ObjectChange[] {
    return this.#gate.objects();
  }

  /** Takes new discovery selectors. @returns What they bring and take: the caller's to pass on. */
  select(selectors: readonly LabelSelector[]): ObjectChange[] {
    return this.#gate.select(selectors);
  }

  /** Whether a namespace counts. */
  admits(namespace: string): boolean {
    return this.#gate.admits(namespace);
  }

  /** How every kind fares, in the table's order. */
  status(): KindStatus[] {
    return this.#options.kinds.map((row) => {
      const presence = row.optional ? this.#definitions.presenceOf(row.type) : "present";
      const watch = this.#watches.get(row.kind);
      if (watch !== undefined) return watch.status(presence === "present");
      const state = presence === "absent" ? "absent" : "waiting";
      return { kind: row.kind, row, state, trouble: undefined, objects: 0, refused: 0, tookMs: undefined };
    });
  }

  /** Starts and stops watches as their kinds come and go, says what is in trouble, and whether all is there. */
  #look(): void {
    const signal = this.#signal;
    if (signal === undefined || signal.aborted) return;
    for (const row of this.#options.kinds) {
      const presence = row.optional ? this.#definitions.presenceOf(row.type) : "present";
      const wanted = presence === "present" || presence === "untold", watch = this.#watches.get(row.kind);
      if (wanted && watch === undefined) this.#watches.set(row.kind, this.#watchKind(row, signal));
      else if (presence === "absent" && watch !== undefined) this.#unwatch(row, watch);
    }
    const statuses = this.status();
    for (
      const health of [
        ...statuses.map((it) => this.#healthOf(it)),
        this.#definitionsHealth(),
        ...this.#options.others?.() ?? [],
      ]
    ) {
      this.#troubles.look(health);
    }
    if (statuses.every(isSettled)) this.#settled.resolve();
  }

  #definitionsHealth(): WatchHealth {
    const trouble = this.#definitions.informer?.status().trouble;
    return { type: CUSTOM_RESOURCE_DEFINITIONS, trouble, consequence: "optional kinds are asked for one by one" };
  }

  #healthOf({ row, state, trouble }: KindStatus): WatchHealth {
    const { unserved = "istiod does not get ready without it" } = this.#options;
    const waiting = row.needed ? unserved : "the mesh is served without it";
    return {
      type: row.type,
      trouble,
      consequence: state === "synced" ? "its last known objects stay in force" : waiting,
    };
  }

  #watchKind(row: WatchedKind, signal: AbortSignal): KindWatch {
    const { api, log, onRefused, statuses, limits } = this.#options;
    if (row.optional) log.debug("kind is there", { kind: row.kind });
    return new KindWatch({
      api,
      row,
      log,
      onChange: (changes) => this.#tell(this.#gate.apply(changes)),
      onRefused: () => onRefused(row.kind),
      onSynced: () => this.#look(),
      statuses,
      limits,
    }, signal);
  }

  /** Its CRD went, and all its objects with it. */
  #unwatch(row: WatchedKind, watch: KindWatch): void {
    this.#options.log.info("kind is gone", { kind: row.kind });
    this.#watches.delete(row.kind);
    const ending = watch.stop().finally(() => this.#ending.delete(ending));
    this.#ending.add(ending);
    this.#tell(this.#gate.forget(row.kind));
  }

  #tell(changes: readonly ObjectChange[]): void {
    if (this.#gateIsOpen && changes.length > 0) this.#options.onChange(changes);
  }
}

/** Whether nothing of a kind has to be waited for: not for one that the mesh can do without and that is refused. */
function isSettled({ row, state, trouble }: KindStatus): boolean {
  return state !== "waiting" || (!row.needed && isRefusal(trouble?.status));
}
