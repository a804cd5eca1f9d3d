/** Writes what analysis finds into the status of Istio's own objects, while this istiod leads (CP-699, PILOT_ENABLE_ANALYSIS). */
import { isFields } from "../../base/plain.ts";
import type { Logger } from "../../base/log.ts";
import type { KubeApi, ResourceType } from "../../kube/api.ts";
import { AUTHORIZATION_POLICIES, SERVICE_ENTRIES, WORKLOAD_ENTRIES } from "../../kube/resource_types.ts";
import type { AmbientGraph } from "../ambient/graph.ts";
import { suffixOf } from "../ambient/clusters.ts";
import { equal } from "../collect/equal.ts";
import type { ObjectKey } from "../objects.ts";
import { type Clock, SYSTEM_CLOCK } from "../status/clock.ts";
import type { ControllerMetrics } from "../status/controller_metrics.ts";
import type { StatusMirror } from "../status/status_mirror.ts";
import { WorkQueue } from "../status/work_queue.ts";
import { analyse } from "./analyse.ts";
import { type Finding, KINDS_OF_FINDINGS, levelOf } from "./findings.ts";

export interface AnalysisWriterOptions {
  readonly api: KubeApi;
  readonly graph: AmbientGraph;
  readonly mirror: StatusMirror;
  /** From one look to the next; none is made while nothing has changed. */
  readonly intervalMs: number;
  readonly metrics: ControllerMetrics;
  readonly log: Logger;
  readonly clock?: Clock;
}

/** As the schema of a status has it: no place for our own words. */
interface ValidationMessage {
  readonly type: { readonly code: string; readonly name: string };
  readonly level: string;
  readonly documentationUrl: string;
}

const NAME = "analysis";
/** Kinds whose status holds such messages, and that we may write. */
const KINDS = ["AuthorizationPolicy", "ServiceEntry", "WorkloadEntry"] as const;
const TYPES: Readonly<Record<typeof KINDS[number], ResourceType>> = {
  AuthorizationPolicy: AUTHORIZATION_POLICIES,
  ServiceEntry: SERVICE_ENTRIES,
  WorkloadEntry: WORKLOAD_ENTRIES,
};
const PAGES = "https://istio.io/latest/docs/reference/config/analysis";

export class AnalysisWriter {
  readonly #options: AnalysisWriterOptions;
  readonly #clock: Clock;
  #changed = true;
  #wanted: ReadonlyMap<ObjectKey, readonly ValidationMessage[]> = new Map();

  constructor(options: AnalysisWriterOptions) {
    this.#options = options;
    this.#clock = options.clock ?? SYSTEM_CLOCK;
  }

  /** To be called with every batch of changes. */
  changed(): void {
    this.#changed = true;
  }

  /** The leader's work: a look at once, and then after each change, as often as it may. */
  async lead(signal: AbortSignal): Promise<void> {
    const { metrics, log, intervalMs } = this.#options, reconcile = (key: string) => this.#reconcile(key);
    const queue = new WorkQueue({ name: NAME, reconcile, metrics, log, clock: this.#clock });
    const working = queue.run(signal);
    for (this.#changed = true; !signal.aborted; await this.#clock.wait(intervalMs, signal)) {
      if (!this.#changed) continue;
      this.#changed = false;
      this.#look(queue);
    }
    await working;
  }

  /** What an istiod before us has left is taken away as well: it stands in the objects. */
  #look(queue: WorkQueue): void {
    const { graph } = this.#options;
    this.#wanted = messagesOf(analyse(graph));
    for (const kind of KINDS) {
      for (const [key] of graph.sources[kind].entries()) {
        if (suffixOf(key) === "" && this.#difference(key) !== undefined) queue.add(key);
      }
    }
  }

  /** What an object should say, if it says something else. */
  #difference(
    key: ObjectKey,
  ): { readonly messages: readonly ValidationMessage[]; readonly version: string } | undefined {
    const there = this.#options.mirror.get(key), messages = this.#wanted.get(key) ?? [];
    if (there === undefined) return undefined; // Gone.
    const said = isFields(there.status) ? there.status["validationMessages"] : undefined;
    return equal(said ?? [], messages) ? undefined : { messages, version: there.resourceVersion };
  }

  async #reconcile(key: ObjectKey): Promise<void> {
    const difference = this.#difference(key), [kind, namespace = "", name = ""] = key.split("/");
    if (difference === undefined) return;
    const { messages, version: resourceVersion } = difference;
    // Guarded by the version: what another wrote in between is on its way to us, and the queue tries again.
    const patch = {
      metadata: { resourceVersion },
      status: { validationMessages: messages.length === 0 ? null : messages },
    };
    const place = { namespace, name, subresource: "status" };
    await this.#options.api.patch(TYPES[kind as typeof KINDS[number]], place, patch);
    this.#options.metrics.wrote(NAME, "written");
  }
}

/** By object, each code once. */
function messagesOf(findings: readonly Finding[]): ReadonlyMap<ObjectKey, readonly ValidationMessage[]> {
  const byObject = new Map<ObjectKey, Map<string, ValidationMessage>>();
  for (const finding of findings) {
    const { code, object } = finding, messages = byObject.get(object) ?? new Map<string, ValidationMessage>();
    messages.set(code, {
      type: { code, name: KINDS_OF_FINDINGS[code].name },
      level: levelOf(finding).toUpperCase(),
      documentationUrl: `${PAGES}/${code.toLowerCase()}/`,
    });
    byObject.set(object, messages);
  }
  return new Map([...byObject].map(([object, messages]) => [object, [...messages.values()]]));
}
