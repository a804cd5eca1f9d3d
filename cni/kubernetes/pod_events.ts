/** Says to a pod's owner, as Kubernetes events, what becomes of it in the mesh: one for each change, none for a retry (CNI-096). */
import { chain } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import { type KubeApi, KubeError, KubeUnreachable } from "../../kube/api.ts";
import { EVENTS } from "../../kube/resource_types.ts";
import type { NodePod } from "./node_pod.ts";
import type { EnrolPath, PodNews, Repair } from "./pod_news.ts";

const REPORTER = "istio-cni";
const WAITING_MAX = 200; // A node's pods; what comes above it, while the API server is away, is not said.
const MESSAGE_CHARS_MAX = 1_000; // The API takes 1,024.
const REPAIR_PAUSE_MS = 60_000; // Something that is undone again and again is said once a minute.
const REMEMBERED_MAX = 2_000;

type Reason = "AmbientEnrolled" | "AmbientEnrollFailed" | "AmbientUnenrolled" | "AmbientRepaired" | "AmbientAnnotation";

interface Spoken {
  reason: Reason | "";
  message: string;
  repairedMs: number;
  problem: string;
}

export interface PodEventsOptions {
  readonly api: Pick<KubeApi, "create">;
  readonly nodeName: string;
  readonly log: Logger;
  readonly nowMs?: () => number;
}

export class PodEvents implements PodNews {
  readonly #options: PodEventsOptions;
  /** What was last said of a pod, by uid. */
  readonly #spoken = new Map<string, Spoken>();
  #waiting = 0;
  #writing: Promise<void> = Promise.resolve();
  #count = 0;

  constructor(options: PodEventsOptions) {
    this.#options = options;
  }

  /** A pod that was enrolled before we started: that is nothing new. */
  known(pod: NodePod): void {
    this.#of(pod).reason = "AmbientEnrolled";
  }

  enrolled(pod: NodePod): void {
    this.#change(pod, "AmbientEnrolled", "the pod's traffic is captured and ztunnel carries it");
  }

  failed(pod: NodePod, { path, error }: { readonly path: EnrolPath; readonly error: unknown }): void {
    const next = path === "plugin"
      ? "its sandbox is made again"
      : "it is tried again, at first after 5 ms, then up to every 5 s";
    this.#change(pod, "AmbientEnrollFailed", `${chain(error)}; ${next}`);
  }

  /** Of a pod that has ended nobody needs to hear it. */
  unenrolled(pod: NodePod, { lives }: { readonly lives: boolean }): void {
    if (lives) this.#change(pod, "AmbientUnenrolled", "the pod's traffic is captured no more");
    else this.#spoken.delete(pod.uid);
  }

  repaired(pod: NodePod, what: Repair, found: string): void {
    const spoken = this.#of(pod), nowMs = (this.#options.nowMs ?? (() => performance.now()))();
    if (nowMs - spoken.repairedMs < REPAIR_PAUSE_MS) return;
    spoken.repairedMs = nowMs;
    this.#write(pod, "AmbientRepaired", `${what} made right again: ${found}`);
  }

  unreadable(pod: NodePod, problem: string): void {
    const spoken = this.#of(pod);
    if (spoken.problem === problem) return;
    spoken.problem = problem;
    this.#write(pod, "AmbientAnnotation", `an annotation is passed over: ${problem}`);
  }

  /** Resolves when all that was to be said has been, or could not be. */
  get written(): Promise<void> {
    return this.#writing;
  }

  #change(pod: NodePod, reason: Reason, message: string): void {
    const spoken = this.#of(pod);
    if (spoken.reason === reason) return;
    spoken.reason = reason;
    this.#write(pod, reason, message);
  }

  #of({ uid }: NodePod): Spoken {
    let spoken = this.#spoken.get(uid);
    if (spoken === undefined) {
      if (this.#spoken.size === REMEMBERED_MAX) this.#spoken.delete(this.#spoken.keys().next().value!);
      this.#spoken.set(uid, spoken = { reason: "", message: "", repairedMs: -Infinity, problem: "" });
    }
    return spoken;
  }

  #write(pod: NodePod, reason: Reason, message: string): void {
    const { log } = this.#options;
    if (this.#waiting === WAITING_MAX) {
      log.debug("event not written: too many wait", { pod: `${pod.namespace}/${pod.name}`, reason });
      return;
    }
    this.#waiting++;
    const event = eventOf(pod, { reason, message, nodeName: this.#options.nodeName, number: ++this.#count });
    this.#writing = this.#writing.then(() => this.#create(pod, event)).finally(() => this.#waiting--);
  }

  async #create(pod: NodePod, event: object): Promise<void> {
    try {
      await this.#options.api.create(EVENTS, pod.namespace, event);
    } catch (error) {
      if (!(error instanceof KubeError || error instanceof KubeUnreachable)) throw error;
      // It tells people what the log tells too; nothing waits for it.
      this.#options.log.debug("event not written", { pod: `${pod.namespace}/${pod.name}`, error: chain(error) });
    }
  }
}

function eventOf(
  pod: NodePod,
  { reason, message, nodeName, number }: { reason: Reason; message: string; nodeName: string; number: number },
): object {
  const now = new Date(), at = now.toISOString().replace(/\.\d+Z$/, "Z");
  // As Kubernetes' own clients name theirs: the object and the moment; the number keeps two of one moment apart.
  const name = `${pod.name}.${(now.getTime() * 1_000 + number % 1_000).toString(16)}`;
  return {
    metadata: { name, namespace: pod.namespace },
    involvedObject: { apiVersion: "v1", kind: "Pod", namespace: pod.namespace, name: pod.name, uid: pod.uid },
    reason,
    message: message.slice(0, MESSAGE_CHARS_MAX),
    type: reason === "AmbientEnrollFailed" || reason === "AmbientAnnotation" ? "Warning" : "Normal",
    source: { component: REPORTER, host: nodeName },
    reportingComponent: REPORTER,
    reportingInstance: nodeName,
    action: "Redirect",
    firstTimestamp: at,
    lastTimestamp: at,
    count: 1,
  };
}
