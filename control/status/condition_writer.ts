/** Writes the conditions that the mesh's derivation wants, while this istiod leads (CP-275, CP-276). */
import type { Logger } from "../../base/log.ts";
import { type KubeApi, KubeError, type KubeObject } from "../../kube/api.ts";
import type { Change, Collection } from "../collect/store.ts";
import { type Clock, SYSTEM_CLOCK } from "./clock.ts";
import { conditionsOf, planConditions, type WantedConditions } from "./conditions.ts";
import type { ControllerMetrics } from "./controller_metrics.ts";
import { ownedTypes, type StatusKind, statusKind } from "./status_kinds.ts";
import type { MirroredStatus, StatusMirror } from "./status_mirror.ts";
import { WorkQueue } from "./work_queue.ts";

export interface ConditionWriterOptions {
  readonly api: KubeApi;
  /** What is wanted, by keys of its own. */
  readonly wanted: Collection<WantedConditions>;
  readonly mirror: StatusMirror;
  readonly metrics: ControllerMetrics;
  readonly log: Logger;
  readonly clock?: Clock;
}

const NAME = "conditions";

/** Leads when it is told to; between that it remembers nothing, since a new leader looks at every object anew. */
export class ConditionWriter {
  readonly #options: ConditionWriterOptions;
  readonly #clock: Clock;
  #term: Term | undefined;

  constructor(options: ConditionWriterOptions) {
    this.#options = options;
    this.#clock = options.clock ?? SYSTEM_CLOCK;
    options.metrics.watchQueue(NAME, () => this.#term?.queue.size ?? 0);
  }

  /** To be called after each settling that changed what is wanted. */
  changed(changes: readonly Change<WantedConditions>[]): void {
    const term = this.#term;
    if (term === undefined) return; // Whoever leads hears of it as we do.
    for (const { key, before, after } of changes) {
      if (after === undefined && before !== undefined) term.unwanted.set(key, { ...before, conditions: [] });
      else term.unwanted.delete(key);
      term.queue.add(key);
    }
  }

  /** The leader's work: every object at first, then what changes. */
  async lead(signal: AbortSignal): Promise<void> {
    const { wanted, metrics, log } = this.#options, clock = this.#clock;
    const queue = new WorkQueue({ name: NAME, reconcile: (key) => this.#reconcile(term, key), metrics, log, clock });
    const term: Term = { queue, unwanted: new Map(), written: new Map() };
    for (const [key] of wanted.entries()) queue.add(key);
    this.#term = term;
    await queue.run(signal);
    if (this.#term === term) this.#term = undefined;
  }

  async #reconcile(term: Term, key: string): Promise<void> {
    const wanted = this.#options.wanted.get(key) ?? term.unwanted.get(key);
    const there = wanted && this.#options.mirror.get(wanted.object);
    const kind = wanted && statusKind(wanted.resource.kind);
    if (there === undefined || kind === undefined || wanted === undefined) {
      term.written.delete(key); // Gone, and its conditions with it.
      term.unwanted.delete(key);
      return;
    }
    const body = this.#plan(term, key, { wanted, there, kind });
    if (body !== undefined) await this.#writeOrLook(term, key, { wanted, kind, body });
    else if (wanted.conditions.length > 0) return;
    const remembered = JSON.stringify(wanted.conditions);
    if (wanted.conditions.length === 0) {
      term.written.delete(key);
      if (term.unwanted.get(key) === wanted) term.unwanted.delete(key);
    } else term.written.set(key, remembered);
  }

  async #writeOrLook(
    term: Term,
    key: string,
    { wanted, kind, body }: { wanted: WantedConditions; kind: StatusKind; body: object },
  ): Promise<void> {
    try {
      await this.#write(kind, wanted, body);
    } catch (error) {
      if (!(error instanceof KubeError && error.status === 409)) throw error;
      this.#options.metrics.wrote(NAME, "conflict");
      await this.#writeOnFresh(term, key, { wanted, kind }); // Our view was older than the object: look at the object.
    }
  }

  async #writeOnFresh(
    term: Term,
    key: string,
    { wanted, kind }: { wanted: WantedConditions; kind: StatusKind },
  ): Promise<void> {
    const { namespace, name } = wanted.resource;
    const object = await this.#options.api.get(kind.type, { namespace, name });
    if (object === undefined) return;
    const there = { resourceVersion: object.metadata.resourceVersion ?? "", status: object["status"] };
    const body = this.#plan(term, key, { wanted, there, kind });
    if (body !== undefined) await this.#write(kind, wanted, body);
  }

  /** @returns undefined when the object says what is wanted. */
  #plan(
    term: Term,
    key: string,
    { wanted, there, kind }: { wanted: WantedConditions; there: MirroredStatus; kind: StatusKind },
  ): object | undefined {
    const now = new Date(this.#clock.epochMs()).toISOString().replace(/\.\d+Z$/, "Z");
    const plan = planConditions(wanted.conditions, conditionsOf(there.status), {
      ownedTypes: ownedTypes(wanted.fieldManager),
      now,
    });
    // What we see may be older than what we wrote last, so a difference to either is one.
    const last = term.written.get(key);
    if (!plan.changed && (last === undefined || last === JSON.stringify(wanted.conditions))) return undefined;
    const { group, version } = kind.type, { namespace, name } = wanted.resource;
    const conditions = kind.conditions === "whole" ? plan.all : plan.ours;
    // With nothing in it: an empty list is a value, and whoever wrote it would own the list with all that others add.
    const nothing = conditions.length === 0 && kind.conditions === "keyed";
    return {
      apiVersion: group === "" ? version : `${group}/${version}`,
      kind: kind.type.kind,
      metadata: {
        name,
        namespace,
        // Where all conditions are one value, what others wrote since we looked must not be lost.
        ...(kind.conditions === "whole" ? { resourceVersion: there.resourceVersion } : {}),
      },
      ...(nothing ? {} : { status: { conditions } }),
    };
  }

  async #write(kind: StatusKind, { resource, fieldManager }: WantedConditions, body: object): Promise<KubeObject> {
    const place = { namespace: resource.namespace, name: resource.name, subresource: "status" };
    const object = await this.#options.api.apply(kind.type, place, body, { fieldManager, force: true });
    this.#options.metrics.wrote(NAME, "written");
    return object;
  }
}

interface Term {
  readonly queue: WorkQueue;
  /** Wanted no more, though their objects may still say it. */
  readonly unwanted: Map<string, WantedConditions>;
  /** What was written last, as JSON. */
  readonly written: Map<string, string>;
}
