/** Takes a taint off each node once the node's agent of ours is ready there (CP-664), while this istiod leads. */
import { isFields } from "../../base/plain.ts";
import type { Logger } from "../../base/log.ts";
import { type InformerChange, type KubeApi, KubeError } from "../../kube/api.ts";
import { startInformer } from "../../kube/informer.ts";
import { NODES, PODS } from "../../kube/resource_types.ts";
import { type Clock, SYSTEM_CLOCK } from "./clock.ts";
import { conditionsOf } from "./conditions.ts";
import type { ControllerMetrics } from "./controller_metrics.ts";
import { WorkQueue } from "./work_queue.ts";

export interface NodeUntainterOptions {
  readonly api: KubeApi;
  /** Where the node agents run. */
  readonly namespace: string;
  /** The taint's key: `cni.istio.io/not-ready`. */
  readonly taint: string;
  readonly metrics: ControllerMetrics;
  readonly log: Logger;
  readonly clock?: Clock;
}

const NAME = "node-untaint";
const AGENT_LABEL = "k8s-app=istio-cni-node";

/** Watches nodes and node agents by itself, and only while it leads: nobody else needs taints, or these pods' readiness. */
export class NodeUntainter {
  readonly #options: NodeUntainterOptions;

  constructor(options: NodeUntainterOptions) {
    this.#options = options;
  }

  async lead(signal: AbortSignal): Promise<void> {
    const { api, namespace, metrics, log, clock = SYSTEM_CLOCK } = this.#options;
    const taints = new Map<string, readonly unknown[]>(), agents = new Map<string, string>();
    const reconcile = (node: string) => this.#reconcile(node, taints.get(node) ?? [], [...agents.values()]);
    const queue = new WorkQueue({ name: NAME, reconcile, metrics, log, clock });
    const nodes = startInformer(api, NODES, {}, {
      log,
      onChange: (changes) => {
        for (const { name, object } of changes) {
          const spec = object?.["spec"], list = isFields(spec) ? spec["taints"] : undefined;
          if (Array.isArray(list) && list.some((it) => this.#isOurs(it))) taints.set(name, list);
          else taints.delete(name);
          queue.add(name);
        }
      },
    }, signal);
    const pods = startInformer(api, PODS, { namespace, labelSelector: AGENT_LABEL }, {
      log,
      onChange: (changes) => {
        for (const change of changes) {
          const node = readyOn(change);
          if (node === undefined) agents.delete(change.name);
          else {
            agents.set(change.name, node);
            queue.add(node);
          }
        }
      },
    }, signal);
    await queue.run(signal);
    await Promise.all([nodes.stopped, pods.stopped]);
  }

  async #reconcile(name: string, taints: readonly unknown[], readyNodes: readonly string[]): Promise<void> {
    const { api, taint, metrics, log } = this.#options, kept = taints.filter((it) => !this.#isOurs(it));
    if (kept.length === taints.length || !readyNodes.includes(name)) return;
    try {
      // Holds only if the taints are what was seen: another's must not be lost.
      await api.patch(NODES, { namespace: "", name }, [
        { op: "test", path: "/spec/taints", value: taints },
        { op: "replace", path: "/spec/taints", value: kept },
      ]);
    } catch (error) {
      // They are others than we saw: the watch is about to tell of them, and the node is looked at again.
      if (error instanceof KubeError && error.status === 422) return metrics.wrote(NAME, "conflict");
      throw error;
    }
    metrics.wrote(NAME, "written");
    log.info("node untainted: its agent is ready", { node: name, taint });
  }

  #isOurs(taint: unknown): boolean {
    return isFields(taint) && taint["key"] === this.#options.taint;
  }
}

/** The node of a pod that is ready. */
function readyOn({ object }: InformerChange): string | undefined {
  const ready = conditionsOf(object?.["status"]).some((it) => it["type"] === "Ready" && it["status"] === "True");
  const spec = object?.["spec"], node = isFields(spec) ? spec["nodeName"] : undefined;
  return ready && typeof node === "string" && node !== "" ? node : undefined;
}
