/** One kind of one cluster, followed while it is there: its informer, what cannot be read of it, and how it fares. */
import type { StatusMirror } from "../status/status_mirror.ts";
import type { Logger } from "../../base/log.ts";
import type { Informer, InformerChange, KubeApi } from "../../kube/api.ts";
import { type InformerLimits, startInformer } from "../../kube/informer.ts";
import { type ObjectChange, type ObjectKey, objectKey } from "../objects.ts";
import { SharedValues } from "../shared_values.ts";
import { decodeKubeObject, type ObjectRefusal } from "./decode.ts";
import type { WatchedKind } from "./kinds.ts";

/** How a kind fares, for logs, metrics and pages. */
export interface KindStatus {
  readonly kind: string;
  readonly row: WatchedKind;
  /** `absent`: the cluster does not have the kind. */
  readonly state: "absent" | "waiting" | "synced";
  /** Why it cannot be listed or watched now. */
  readonly trouble: { readonly error: string; readonly status: number; readonly sinceMs: number } | undefined;
  readonly objects: number;
  /** Objects that are not in force as written. */
  readonly refused: number;
  /** From the start of the watch until its first list had been taken; undefined before. */
  readonly tookMs: number | undefined;
}

export interface KindWatchOptions {
  readonly api: KubeApi;
  readonly row: WatchedKind;
  readonly onChange: (changes: readonly ObjectChange[]) => void;
  readonly onRefused: () => void;
  readonly onSynced: () => void;
  readonly log: Logger;
  readonly statuses?: StatusMirror;
  readonly limits?: Partial<InformerLimits>;
}

// Past this many of one kind each further one says nothing new.
const REFUSALS_LOGGED_MAX = 20;

export class KindWatch {
  readonly row: WatchedKind;
  readonly #options: KindWatchOptions;
  readonly #refusals = new Map<ObjectKey, ObjectRefusal>();
  readonly #shared = new SharedValues();
  readonly #stop = new AbortController();
  readonly #startedAtMs = performance.now();
  readonly #informer: Informer;
  #tookMs: number | undefined;
  /** Set once it is stopped: what is still on its way is no news any more. */
  #over = false;

  /** Starts it; it ends with the signal, or by {@link stop}. */
  constructor(options: KindWatchOptions, signal: AbortSignal) {
    const { api, row, log, limits, onSynced } = options;
    this.row = row;
    this.#options = options;
    const until = AbortSignal.any([signal, this.#stop.signal]);
    const onChange = (changes: readonly InformerChange[]) => this.#take(changes);
    this.#informer = startInformer(api, row.type, row.scope, { onChange, log, limits }, until);
    this.#informer.synced.then(() => {
      this.#tookMs = performance.now() - this.#startedAtMs;
      onSynced();
    }, () => {}); // Rejected only when it is stopped.
  }

  get stopped(): Promise<void> {
    return this.#informer.stopped;
  }

  /** Ends it; nothing is told afterwards. */
  stop(): Promise<void> {
    this.#over = true;
    this.#stop.abort();
    return this.stopped;
  }

  /** What is not in force as written, by object. */
  refusals(): ReadonlyMap<ObjectKey, ObjectRefusal> {
    return this.#refusals;
  }

  /** @param known whether the kind is known to be there: then its being not found is trouble. */
  status(known: boolean): KindStatus {
    const { synced, trouble, objects } = this.#informer.status();
    const absent = !known && !synced && trouble?.status === 404;
    return {
      kind: this.row.kind,
      row: this.row,
      state: absent ? "absent" : synced ? "synced" : "waiting",
      trouble: absent ? undefined : trouble,
      objects,
      refused: this.#refusals.size,
      tookMs: this.#tookMs,
    };
  }

  #take(changes: readonly InformerChange[]): void {
    if (this.#over) return;
    const { row, onChange, statuses } = this.#options;
    onChange(changes.map((change) => {
      statuses?.note(row.kind, change, change.object);
      const key = objectKey(row.kind, change.namespace, change.name);
      if (change.object === undefined) {
        this.#refusals.delete(key);
        return { kind: row.kind, key, object: undefined };
      }
      const { object, refusal } = decodeKubeObject(row.kind, change.object);
      if (refusal === undefined) this.#refusals.delete(key);
      else this.#refuse(key, change, refusal);
      return { kind: row.kind, key, object: object && this.#shared.of(object) };
    }));
  }

  #refuse(key: ObjectKey, { namespace, name }: InformerChange, refusal: ObjectRefusal): void {
    const { log, onRefused, row: { kind } } = this.#options;
    this.#refusals.set(key, refusal);
    onRefused();
    if (this.#refusals.size > REFUSALS_LOGGED_MAX) return;
    const { field, reason, instead } = refusal;
    log.error("object cannot be read", { kind, namespace, name, field, reason, instead: instead || "it is left out" });
  }
}
