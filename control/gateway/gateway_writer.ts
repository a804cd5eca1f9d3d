/** Writes the status of our Gateways and of their classes, while this istiod leads for its revision (CP-570, CP-583). */
import { type Fields, isFields } from "../../base/plain.ts";
import type { Logger } from "../../base/log.ts";
import { type KubeApi, KubeError, type ResourceType } from "../../kube/api.ts";
import { GATEWAY_CLASSES, GATEWAYS } from "../../kube/resource_types.ts";
import { equal } from "../collect/equal.ts";
import { type ObjectChange, type ObjectKey, objectKey } from "../objects.ts";
import { type Clock, SYSTEM_CLOCK } from "../status/clock.ts";
import { conditionsOf, planConditions, type WantedCondition } from "../status/conditions.ts";
import type { ControllerMetrics } from "../status/controller_metrics.ts";
import type { RevisionTags } from "../status/revision_tags.ts";
import type { StatusMirror } from "../status/status_mirror.ts";
import { WorkQueue } from "../status/work_queue.ts";
import type { WantedGatewayStatus } from "../ambient/gateway_status.ts";
import type { Sources } from "../ambient/sources.ts";
import type { Change, Collection } from "../collect/store.ts";
import { isOurController } from "./classes.ts";

export interface GatewayWriterOptions {
  readonly api: KubeApi;
  readonly sources: Sources;
  readonly mirror: StatusMirror;
  readonly tags: RevisionTags;
  /** What is to be said of Gateways of our classes, by object key. */
  readonly wanted: Collection<WantedGatewayStatus>;
  readonly metrics: ControllerMetrics;
  readonly log: Logger;
  readonly clock?: Clock;
}

const NAME = "gateways";
const OWN_CONDITIONS = ["Accepted", "Programmed", "ResolvedRefs"];
const OWN_LISTENER_CONDITIONS = ["Accepted", "Conflicted", "Programmed", "ResolvedRefs"];

export class GatewayWriter {
  readonly #options: GatewayWriterOptions;
  readonly #clock: Clock;
  #queue: WorkQueue | undefined;

  constructor(options: GatewayWriterOptions) {
    this.#options = options;
    this.#clock = options.clock ?? SYSTEM_CLOCK;
    options.metrics.watchQueue(NAME, () => this.#queue?.size ?? 0);
    options.tags.subscribe(() => this.#queueAll());
  }

  /** To be called after each settling that changed what is to be said. */
  wantedChanged(changes: readonly Change<WantedGatewayStatus>[]): void {
    for (const { key } of changes) this.#queue?.add(key);
  }

  /** To be called with every batch of changes: labels decide whose a Gateway is. */
  changed(changes: readonly ObjectChange[]): void {
    if (this.#queue === undefined) return;
    for (const { kind, key } of changes) {
      if (kind === "Gateway" || kind === "GatewayClass") this.#queue.add(key);
      else if (kind === "Namespace") this.#queueNamespace(key.split("/")[2] ?? "");
    }
  }

  /** The leader's work. */
  async lead(signal: AbortSignal): Promise<void> {
    const { metrics, log } = this.#options, reconcile = (key: string) => this.#reconcile(key);
    const queue = new WorkQueue({ name: NAME, reconcile, metrics, log, clock: this.#clock });
    this.#queue = queue;
    this.#queueAll();
    await queue.run(signal);
    if (this.#queue === queue) this.#queue = undefined;
  }

  #queueAll(): void {
    const { sources, wanted } = this.#options;
    for (const [key] of sources.GatewayClass.entries()) this.#queue?.add(key);
    for (const [key] of wanted.entries()) this.#queue?.add(key);
  }

  #queueNamespace(name: string): void {
    for (const [key, { resource }] of this.#options.wanted.entries()) {
      if (resource.namespace === name) this.#queue?.add(key);
    }
  }

  async #reconcile(key: ObjectKey): Promise<void> {
    const { sources, wanted } = this.#options;
    const gatewayClass = sources.GatewayClass.get(key), status = wanted.get(key);
    if (gatewayClass !== undefined && isOurController(gatewayClass.controllerName)) {
      const message = "Gateways of this class are looked after", { generation } = gatewayClass.meta;
      const accepted = { type: "Accepted", status: "True", reason: "Accepted", message } as const;
      const conditions = [{ ...accepted, observedGeneration: generation }];
      await this.#bring(
        GATEWAY_CLASSES,
        key,
        (before) => ({ conditions: this.#merge(conditions, before, ["Accepted"]) }),
      );
    } else if (status !== undefined && this.#isMine(status)) {
      await this.#bring(GATEWAYS, key, (before) => this.#render(status, before));
    }
  }

  #isMine({ object, resource }: WantedGatewayStatus): boolean {
    const { sources, tags } = this.#options;
    const namespace = sources.Namespace.get(objectKey("Namespace", "", resource.namespace));
    return tags.isMine(sources.Gateway.get(object)?.meta.labels ?? new Map(), namespace?.meta.labels);
  }

  /** Writes what `render` makes of the status as it is, unless it is that already. */
  async #bring(type: ResourceType, key: ObjectKey, render: (status: Fields) => Fields): Promise<void> {
    const { api, mirror, metrics } = this.#options, [, namespace = "", name = ""] = key.split("/");
    const seen = mirror.get(key);
    if (seen === undefined) return; // Gone.
    const write = async (status: unknown, resourceVersion: string): Promise<void> => {
      const before = isFields(status) ? status : {}, after = render(before);
      if (Object.entries(after).every(([field, value]) => equal(before[field], value))) return;
      // Guarded by the version: what another wrote in between is looked at before anything is written over it.
      const patch = { metadata: { resourceVersion }, status: after };
      await api.patch(type, { namespace, name, subresource: "status" }, patch);
      metrics.wrote(NAME, "written");
    };
    try {
      await write(seen.status, seen.resourceVersion);
    } catch (error) {
      if (!(error instanceof KubeError && error.status === 409)) throw error;
      metrics.wrote(NAME, "conflict");
      const object = await api.get(type, { namespace, name });
      if (object !== undefined) await write(object["status"], object.metadata.resourceVersion ?? "");
    }
  }

  #render(wanted: WantedGatewayStatus, status: Fields): Fields {
    const listeners = Array.isArray(status["listeners"]) ? status["listeners"].filter(isFields) : [];
    const none = wanted.addresses.length === 0 && status["addresses"] === undefined;
    return {
      conditions: this.#merge(wanted.conditions, status, OWN_CONDITIONS),
      listeners: wanted.listeners.map(({ name, supportedKinds, conditions }) => {
        const before = listeners.find((it) => it["name"] === name) ?? {};
        const merged = this.#merge(conditions, before, OWN_LISTENER_CONDITIONS);
        return { name, supportedKinds, attachedRoutes: attachedRoutes(before), conditions: merged };
      }),
      ...(none ? {} : { addresses: wanted.addresses.map(({ type, value }) => ({ type, value })) }),
    };
  }

  #merge(wanted: readonly WantedCondition[], status: Fields, ownedTypes: readonly string[]): readonly Fields[] {
    const now = new Date(this.#clock.epochMs()).toISOString().replace(/\.\d+Z$/, "Z");
    return planConditions(wanted, conditionsOf(status), { ownedTypes, now }).all;
  }
}

/** Routes are not looked at here: who counted them before us, if anyone, is believed. */
function attachedRoutes(listener: Fields): number {
  const count = listener["attachedRoutes"];
  return typeof count === "number" ? count : 0;
}
