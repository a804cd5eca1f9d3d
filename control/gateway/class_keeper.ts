/** Makes our GatewayClasses where they are missing (CP-550). Every istiod may: whoever comes second finds it made. */
import { chain } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import { type KubeApi, KubeError, KubeUnreachable } from "../../kube/api.ts";
import { GATEWAY_CLASSES } from "../../kube/resource_types.ts";
import type { Collection } from "../collect/store.ts";
import { type GatewayClassObject, type ObjectChange, objectKey } from "../objects.ts";
import { type Clock, SYSTEM_CLOCK } from "../status/clock.ts";
import type { ControllerMetrics } from "../status/controller_metrics.ts";
import type { BuiltInClass } from "./classes.ts";

export interface ClassKeeperOptions {
  readonly api: KubeApi;
  readonly existing: Collection<GatewayClassObject>;
  readonly classes: readonly BuiltInClass[];
  readonly metrics: ControllerMetrics;
  readonly log: Logger;
  readonly clock?: Clock;
}

const NAME = "gateway-classes";
const LOOK_MS = 60_000; // The kind may come at any time, and a refusal may pass.

export class ClassKeeper {
  readonly #options: ClassKeeperOptions;
  readonly #clock: Clock;
  #awake = new AbortController();
  #trouble = "";

  constructor(options: ClassKeeperOptions) {
    this.#options = options;
    this.#clock = options.clock ?? SYSTEM_CLOCK;
  }

  /** To be called with every batch of changes: a class that was deleted comes back. */
  changed(changes: readonly ObjectChange[]): void {
    const ours = this.#options.classes.map(({ name }) => objectKey("GatewayClass", "", name));
    if (changes.some(({ key, object }) => object === undefined && ours.includes(key))) this.#awake.abort();
  }

  /** Looks at once, after every deletion, and once a minute, until the signal. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      this.#awake = new AbortController();
      for (const it of this.#options.classes) if (!signal.aborted) await this.#make(it);
      await this.#clock.wait(LOOK_MS, AbortSignal.any([signal, this.#awake.signal]));
    }
  }

  async #make({ name, controllerName, description }: BuiltInClass): Promise<void> {
    const { api, existing, metrics, log } = this.#options, { group, version, kind } = GATEWAY_CLASSES;
    if (existing.get(objectKey("GatewayClass", "", name)) !== undefined) return;
    const spec = { controllerName, description };
    try {
      await api.create(GATEWAY_CLASSES, "", { apiVersion: `${group}/${version}`, kind, metadata: { name }, spec });
      metrics.wrote(NAME, "written");
      log.info("GatewayClass made", { name });
      this.#trouble = "";
    } catch (error) {
      if (!(error instanceof KubeError || error instanceof KubeUnreachable)) throw error;
      // It is there, though our own view has it not; or there are no GatewayClasses in this cluster at all.
      if (error instanceof KubeError && (error.status === 409 || error.status === 404)) return;
      metrics.wrote(NAME, "failed");
      const trouble = chain(error);
      if (trouble !== this.#trouble) log.warn("cannot make a GatewayClass", { name, error: trouble });
      this.#trouble = trouble;
    }
  }
}
