/** What the node agent counts: Istio's own names, and ours beside them (CNI-254, CNI-290, CNI-293). */
import { Metrics } from "../../base/metrics.ts";
import type { InstallResult } from "../install/installer.ts";
import type { EnrolPath, PodNews, Repair } from "./pod_news.ts";

export type PodState = "enrolled" | "pending" | "failed";
type ReconcileEvent = "add" | "update" | "delete";

/** What is read when somebody asks; what is not there yet counts as nothing. */
export interface NodeGauges {
  ztunnels(): number;
  pods(): Readonly<Record<PodState, number>>;
  installReady(): boolean;
  /** Seconds until the plugin's token ends; undefined for one without an end. */
  kubeconfigExpiresS(): number | undefined;
  backend(): { readonly wanted: string; readonly used: string; readonly reason: string };
}

/** Seconds. An idle node takes a few milliseconds; whoever waits for ztunnel waits five seconds at most. */
const ENROL_BOUNDS_S = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];
const ENROL_LABELS = {
  plugin: { success: { path: "plugin", result: "success" }, failure: { path: "plugin", result: "failure" } },
  informer: { success: { path: "informer", result: "success" }, failure: { path: "informer", result: "failure" } },
} as const;

export class NodeMetrics implements PodNews {
  readonly #metrics = new Metrics();
  readonly #installs;
  readonly #requests;
  readonly #reconciled;
  readonly #repairs;
  readonly #enrolSeconds;

  constructor(gauges: NodeGauges) {
    const metrics = this.#metrics, labelled = { labelled: true };
    this.#installs = metrics.counter("istio_cni_installs_total", "Passes of the plugin's installation.", labelled);
    metrics.gauge(
      "istio_cni_install_ready",
      "Whether the runtime calls our plugin for the next pod.",
      () => gauges.installReady() ? 1 : 0,
    );
    this.#requests = metrics.counter(
      "istio_cni_plugin_requests_total",
      "New pods that the plugin sent, by the answer's status.",
      labelled,
    );
    this.#reconciled = metrics.counter(
      "nodeagent_reconcile_events_total",
      "Changes of this node's pods that were handled.",
      labelled,
    );
    metrics.gauge("ztunnel_connected", "Connected ztunnels.", () => gauges.ztunnels());
    this.#enrolSeconds = metrics.histogram(
      "istio_cni_enrol_seconds",
      "How long enrolling a pod took, by who asked and what came of it.",
      ENROL_BOUNDS_S,
    );
    metrics.gauge(
      "istio_cni_enrolled_pods",
      "Pods of this node that belong into the mesh, by how far they are.",
      () => Object.entries(gauges.pods()).map(([state, count]) => [{ state }, count] as const),
    );
    this.#repairs = metrics.counter("istio_cni_repairs_total", "What was found wrong and made right.", labelled);
    metrics.gauge("istio_cni_backend", "What redirects, and why not what was asked for.", () => {
      const { wanted, used, reason } = gauges.backend();
      return [[{ wanted, used, reason }, 1]];
    });
    metrics.gauge("istio_cni_kubeconfig_expiry_seconds", "Time left to the plugin's token.", () => {
      const seconds = gauges.kubeconfigExpiresS();
      return seconds === undefined ? [] : [[{}, seconds]];
    });
  }

  installed(result: InstallResult): void {
    this.#installs.increment({ result });
  }

  pluginAnswered(status: number): void {
    this.#requests.increment({ response_code: String(status) });
  }

  reconciled(type: ReconcileEvent): void {
    this.#reconciled.increment({ type });
  }

  repairedHost(what: Repair): void {
    this.#repairs.increment({ what });
  }

  enrolled(_pod: unknown, { path, ms }: { path: EnrolPath; ms: number }): void {
    this.#enrolSeconds.observe(ms / 1_000, ENROL_LABELS[path].success);
  }

  failed(_pod: unknown, { path, ms }: { path: EnrolPath; ms: number }): void {
    this.#enrolSeconds.observe(ms / 1_000, ENROL_LABELS[path].failure);
  }

  unenrolled(): void {}

  repaired(_pod: unknown, what: Repair): void {
    this.#repairs.increment({ what });
  }

  unreadable(): void {}

  /** How often something was repaired. */
  repairs(what: Repair): number {
    return this.#repairs.get({ what });
  }

  render(): string {
    return this.#metrics.render();
  }
}
