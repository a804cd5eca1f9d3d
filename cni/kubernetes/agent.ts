/** The node agent in a cluster: follows the node's pods and their namespaces, and has each in the mesh that belongs there (CNI-017, CNI-072 to CNI-098). */
import { chain, MeshError } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import { type KubeApi, KubeError } from "../../kube/api.ts";
import { startInformer } from "../../kube/informer.ts";
import { NAMESPACES, PODS } from "../../kube/resource_types.ts";
import type { Enablement } from "../enablement.ts";
import type { NodeProbes, PodRuleOptions, Redirection } from "../redirection/redirection.ts";
import { EVENT_SOCKET } from "../plugin_event.ts";
import { ZdsServer } from "../zds_server.ts";
import { serveEvents } from "./event_server.ts";
import { MeshPods } from "./mesh_pods.ts";
import { actionFor, type NodePod, REDIRECTION, type Redirection as Annotated, redirectionOf } from "./node_pod.ts";
import { NodeState } from "./node_state.ts";
import { findPodNetns } from "./pod_netns.ts";
import { RetryQueue } from "./retry_queue.ts";

export interface AgentConfig {
  readonly nodeName: string;
  readonly systemNamespace: string;
  readonly enablement: Enablement;
  readonly rules: PodRuleOptions;
  /** What redirects, in the pods and on the node. */
  readonly redirection: Redirection;
  readonly runDir: string;
  readonly zdsSocket: string;
  /** `/proc` of the host, as this process sees it. */
  readonly procDir: string;
  /** Where the host's root is seen; empty on the host. */
  readonly hostRoot: string;
  readonly auditIntervalMs: number;
}

export interface AgentOptions {
  readonly api: KubeApi;
  readonly signal: AbortSignal;
  readonly log: Logger;
}

export interface RunningAgent {
  /** For the page that shows the node's state. */
  status(): { readonly ztunnels: number; readonly pods: number; readonly waiting: number };
  /** Resolves when everything is closed after the signal; rules stay. */
  readonly done: Promise<void>;
}

const HOST_TRIES = 10, HOST_PAUSE_MS = 2_000; // CNI-185

/** Starts, and returns once the plugin and ztunnel are served. Throws MeshError if the node cannot be served (CNI-018). */
export async function startAgent(config: AgentConfig, { api, signal, log }: AgentOptions): Promise<RunningAgent> {
  await using cleanup = new AsyncDisposableStack();
  const probes = cleanup.use(config.redirection.openNode());
  await ensureHostRules(probes, { signal, log });
  const state = new NodeState(config.enablement, config.systemNamespace);
  const queue = new RetryQueue({ reconcile: (key) => reconcile(key), log: log.child("pods") });
  const announcing: { zds?: ZdsServer } = {}; // There before the first pod is worked on.
  const pods = cleanup.use(
    new MeshPods({
      zds: () => announcing.zds!,
      rules: config.redirection,
      probes,
      annotate: (pod, redirection) => annotate(api, pod, redirection),
      find: (pod) => findPodNetns(config.procDir, [pod], log).get(pod.uid),
      defaults: config.rules,
      log: log.child("pods"),
    }),
  );
  const reconcile = async (key: string) => {
    const pod = state.pod(key), namespaceLabels = pod && state.namespaceLabels(pod.namespace);
    if (pod === undefined || state.isZtunnel(pod)) return;
    if (namespaceLabels === undefined) {
      log.debug("pod of an unknown namespace", { pod: key });
      return;
    }
    const enrolled = pods.has(pod.uid);
    switch (actionFor(pod, { namespaceLabels, enablement: config.enablement, enrolled })) {
      case "add":
        return await pods.add(pod, "find", signal);
      case "removeLive":
        return await pods.remove(pod, { lives: true });
      case "removeEnded":
        return await pods.remove(pod, { lives: false });
      case "reassert":
        return await pods.reassert(pod);
      case "nothing":
    }
  };
  const remove = (pod: NodePod) => {
    if (!pods.has(pod.uid) && redirectionOf(pod) === "none") return;
    pods.remove(pod, { lives: false }).catch((error) => {
      log.warn("pod not removed", { pod: `${pod.namespace}/${pod.name}`, error: chain(error) });
    });
  };
  let started = false;
  const look = (keys: Iterable<string>) => {
    if (started) { for (const key of keys) queue.add(key); // Before that the first pass looks at all.
     }
  };
  const namespaces = startInformer(api, NAMESPACES, {}, {
    onChange: (changes) => look(state.applyNamespaces(changes)),
    log: log.child("kube"),
  }, signal);
  const nodePods = startInformer(api, PODS, { fieldSelector: `spec.nodeName=${config.nodeName}` }, {
    onChange: (changes) => {
      const { changed, gone } = state.applyPods(changes);
      if (started) gone.forEach(remove);
      look(changed);
    },
    log: log.child("kube"),
  }, signal);
  await Promise.all([namespaces.synced, nodePods.synced]);

  const { restored, complete } = await restore(config, { state, pods, log });
  await probes.sync(pods.pods().flatMap(({ uid, ips }) => ips.map((ip) => ({ ip, uid }))), { complete });
  const zds = cleanup.adopt(
    ZdsServer.listen({ path: config.zdsSocket, log: log.child("zds") }, restored),
    (it) => it.close(),
  );
  announcing.zds = zds;
  cleanup.adopt(
    await serveEvents({
      path: `${config.runDir}/${EVENT_SOCKET}`,
      hostRoot: config.hostRoot,
      state,
      pods,
      log: log.child("events"),
    }),
    (it) => it.shutdown(),
  );
  started = true;
  for (const [key] of state.pods()) queue.add(key);
  log.info("node agent serves", { node: config.nodeName, restored: restored.length });
  const kept = cleanup.move();
  const serving = async () => {
    await using _ = kept;
    let auditing = Promise.resolve();
    const audit = () => {
      auditing = auditing.then(() => auditHost(probes, log)); // One after the other, should a program be slow.
      for (const [key] of state.pods()) queue.add(key);
    };
    const timer = setInterval(audit, config.auditIntervalMs);
    await queue.run(signal);
    clearInterval(timer);
    await Promise.all([namespaces.stopped, nodePods.stopped, auditing]);
  };
  return {
    status: () => ({ ztunnels: zds.connectionCount, pods: pods.size, waiting: queue.size }),
    done: serving(),
  };
}

/** The pods that say they are enrolled, with their namespaces; one that is not found is taken up like a new one (CNI-090, CNI-093). */
async function restore(
  config: AgentConfig,
  { state, pods, log }: { state: NodeState; pods: MeshPods; log: Logger },
): Promise<{ restored: Awaited<ReturnType<MeshPods["restore"]>>; complete: boolean }> {
  const enrolled = [...state.pods()].map(([, pod]) => pod)
    .filter((pod) => redirectionOf(pod) === "enabled" && !pod.ended && !state.isZtunnel(pod));
  const found = findPodNetns(config.procDir, enrolled, log);
  const byPod = new Map(enrolled.flatMap((pod) => found.has(pod.uid) ? [[pod, found.get(pod.uid)!] as const] : []));
  for (const pod of enrolled) {
    if (!byPod.has(pod)) log.warn("enrolled pod has no network namespace", { pod: `${pod.namespace}/${pod.name}` });
  }
  return { restored: await pods.restore(byPod), complete: enrolled.every(({ ips }) => ips.length > 0) };
}

async function ensureHostRules(
  probes: NodeProbes,
  { signal, log }: { signal: AbortSignal; log: Logger },
): Promise<void> {
  for (let attempt = 1;; attempt++) {
    try {
      return await probes.ensure();
    } catch (error) {
      if (!(error instanceof MeshError) || attempt === HOST_TRIES) throw error;
      log.warn("host rules not written", { attempt, error: chain(error) });
    }
    await new Promise((resolve) => setTimeout(resolve, HOST_PAUSE_MS));
    signal.throwIfAborted();
  }
}

async function auditHost(probes: NodeProbes, log: Logger): Promise<void> {
  try {
    const differences = await probes.check();
    if (differences.length === 0) return;
    log.warn("host rules repaired", { differences: differences.join("; ") });
    await probes.ensure();
  } catch (error) {
    if (!(error instanceof MeshError)) throw error;
    log.error("host rules not checked", { error: chain(error) });
  }
}

/** Says in the pod's status what its traffic does (CNI-082). A pod that is gone needs no annotation. */
async function annotate(api: KubeApi, pod: NodePod, redirection: Annotated): Promise<void> {
  const value = redirection === "none" ? null : redirection;
  try {
    await api.patch(PODS, { namespace: pod.namespace, name: pod.name, subresource: "status" }, {
      metadata: { uid: pod.uid, annotations: { [REDIRECTION]: value } }, // The uid: never another pod of its name.
    });
  } catch (error) {
    if (error instanceof KubeError && (error.status === 404 || error.status === 409)) return;
    throw error;
  }
}
