/** The node agent in a cluster: follows the node's pods and their namespaces, and has each in the mesh that belongs there (CNI-017, CNI-072 to CNI-098). */
import { chain } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import { pause } from "../../base/waiting.ts";
import type { InformerChange, KubeApi } from "../../kube/api.ts";
import { startInformer } from "../../kube/informer.ts";
import { NAMESPACES, PODS } from "../../kube/resource_types.ts";
import type { Enablement } from "../enablement.ts";
import { EVENT_SOCKET } from "../plugin_event.ts";
import { LOG_SOCKET } from "../plugin_log_lines.ts";
import type { Netns } from "../../os/netns.ts";
import { BranchEniProbes } from "../redirection/branch_eni.ts";
import type { Redirection } from "../redirection/redirection.ts";
import { ZdsServer } from "../zds_server.ts";
import { annotate } from "./annotation.ts";
import { serveEvents } from "./event_server.ts";
import { ensureHostRules, HostAudit } from "./host_audit.ts";
import { MeshPods } from "./mesh_pods.ts";
import type { NodeMetrics } from "./node_metrics.ts";
import { actionFor, type NodePod, type PodDefaults, podName, redirectionOf } from "./node_pod.ts";
import { NodeState } from "./node_state.ts";
import { type NodeView, ProcNode } from "./node_view.ts";
import { PodEvents } from "./pod_events.ts";
import { toAll } from "./pod_news.ts";
import type { PodTable } from "./pod_table.ts";
import { servePluginLog } from "./plugin_log.ts";
import { RetryQueue } from "./retry_queue.ts";
import { JournalFolder, NamespacesFile, noteBoot } from "./run_files.ts";

export interface AgentConfig {
  readonly nodeName: string;
  readonly systemNamespace: string;
  readonly enablement: Enablement;
  readonly rules: PodDefaults;
  /** The host's network namespace, open as long as the agent runs; absent: the one that this process is in (CNI-186). */
  readonly hostNetns?: Netns;
  /** Whether pods with network interfaces of their own are looked for (CNI-187). */
  readonly branchEniProbe?: boolean;
  /** What redirects, in the pods and on the node. */
  readonly redirection: Redirection;
  /** Why pods cannot be given to a ztunnel with these features, of that process; undefined: they can. */
  readonly refusesZtunnel?: (features: number, processId: number | undefined) => string | undefined;
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
  readonly metrics: NodeMetrics;
  readonly signal: AbortSignal;
  readonly log: Logger;
  /** The real one unless a test has another. */
  readonly node?: NodeView;
}

export interface RunningAgent {
  /** How each pod fares. */
  readonly pods: PodTable;
  /** Connected ztunnels (CNI-254). */
  ztunnels(): number;
  /** Resolves when everything is closed after the signal; rules stay. */
  readonly done: Promise<void>;
}

/** Starts, and returns once the plugin and ztunnel are served. Throws MeshError if the node cannot be served (CNI-018). */
export async function startAgent(config: AgentConfig, options: AgentOptions): Promise<RunningAgent> {
  const { api, metrics, signal, log } = options;
  await using cleanup = new AsyncDisposableStack();
  cleanup.adopt(
    await servePluginLog(`${config.runDir}/${LOG_SOCKET}`, log.child("cni-plugin")),
    (it) => it.shutdown(),
  );
  const host = config.hostNetns, own = config.redirection.openNode(host);
  const probes = cleanup.use(
    config.branchEniProbe === true ? new BranchEniProbes(own, { log: log.child("probes"), host }) : own,
  );
  await ensureHostRules(probes, { signal, log });
  const node = options.node ?? cleanup.use(new ProcNode(config.procDir, log.child("netns")));
  const state = new NodeState(config.enablement, config.systemNamespace);
  const queue = new RetryQueue({ reconcile: (key) => reconcile(key), log: log.child("pods") });
  const events = new PodEvents({ api, nodeName: config.nodeName, log: log.child("events") });
  const journal = new JournalFolder(config.runDir);
  const announcing: { zds?: ZdsServer } = {}; // There before the first pod is worked on.
  const pods = cleanup.use(
    new MeshPods({
      zds: () => announcing.zds!,
      rules: config.redirection,
      probes,
      annotate: (pod, redirection) => annotate(api, pod, redirection),
      node,
      onChange: (pod) => queue.add(podName(pod)),
      defaults: config.rules,
      news: toAll([metrics, events]),
      journal,
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
    const enrolled = pods.has(pod.uid), begun = journal.has(pod.uid);
    switch (actionFor(pod, { namespaceLabels, enablement: config.enablement, enrolled, begun })) {
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
  /** A pod that is no more, by what was known of it (CNI-077); what fails is tried again by the audit. */
  const remove = (pod: NodePod) => {
    pods.table.forgetFailure(pod.uid);
    const touched = pods.table.get(pod.uid) !== undefined || journal.has(pod.uid);
    if (!touched && redirectionOf(pod) === "none") return;
    pods.remove(pod, { lives: false }).catch((error) => {
      log.warn("pod not removed", { pod: podName(pod), error: chain(error) });
    });
  };
  const namespacesFile = new NamespacesFile(config.runDir, log);
  let started = false;
  const look = (keys: Iterable<string>) => {
    if (!started) return; // The first pass looks at all.
    for (const key of keys) queue.add(key);
    namespacesFile.write(state.ambientNamespaces());
  };
  const namespaces = startInformer(api, NAMESPACES, { metadataOnly: true }, {
    onChange: (changes) => look(state.applyNamespaces(changes)),
    log: log.child("kube"),
  }, signal);
  const nodePods = startInformer(api, PODS, { fieldSelector: `spec.nodeName=${config.nodeName}` }, {
    onChange: (changes) => {
      count(changes, state, metrics);
      const { changed, gone } = state.applyPods(changes);
      if (started) gone.forEach(remove);
      look(changed);
    },
    log: log.child("kube"),
  }, signal);
  await Promise.all([namespaces.synced, nodePods.synced]);

  if (noteBoot(config.runDir)) log.info("first start since this node was booted: all pods are looked for anew");
  journal.keepOnly(new Set([...state.pods()].map(([, { uid }]) => uid)));
  const { restored, complete } = await restore(node, { state, pods, log });
  pods.table.pods().forEach((pod) => events.known(pod));
  const addressesOf = (list: readonly NodePod[]) => list.flatMap(({ uid, ips }) => ips.map((ip) => ({ ip, uid })));
  await probes.sync(addressesOf(pods.table.pods()), { complete });
  const zds = cleanup.adopt(
    ZdsServer.listen({
      path: config.zdsSocket,
      log: log.child("zds"),
      refuses: config.refusesZtunnel,
      // It has no listeners: looked at, that is found and made right.
      onRefused: (uid) => pods.table.get(uid) && queue.add(podName(pods.table.get(uid)!.pod)),
    }, restored),
    (it) => it.close(),
  );
  announcing.zds = zds;
  cleanup.adopt(
    await serveEvents({
      path: `${config.runDir}/${EVENT_SOCKET}`,
      hostRoot: config.hostRoot,
      isHost: (netns) => host === undefined ? node.isHost(netns) : netns.equals(host),
      state,
      pods,
      onAnswer: (status) => metrics.pluginAnswered(status),
      log: log.child("events"),
    }),
    (it) => it.shutdown(),
  );
  const hostAudit = new HostAudit(probes, {
    wanted: () => addressesOf(pods.table.complete()), // One that is under way puts its own in.
    isPod: (uid) => pods.table.get(uid) !== undefined,
    repaired: (what) => metrics.repairedHost(what),
    log: log.child("host"),
  });
  cleanup.use(node.watch(host, () => void hostAudit.look(), ["firewall"]));
  await config.redirection.clearNode?.(host);
  started = true;
  look([...state.pods()].map(([key]) => key));
  log.info("node agent serves", { node: config.nodeName, restored: restored.length });
  const kept = cleanup.move();
  const audit = async () => {
    // Not all nodes' agents at one moment, nor one of them always together with another's timer.
    while (await pause(config.auditIntervalMs * (0.8 + 0.4 * Math.random()), signal)) {
      await hostAudit.look();
      await pods.auditNamespaces();
      for (const [key] of state.pods()) queue.add(key);
      for (const pod of pods.table.pods()) if (state.pod(podName(pod))?.uid !== pod.uid) remove(pod);
    }
  };
  const serving = async () => {
    await using _ = kept;
    await Promise.all([queue.run(signal), audit(), namespaces.stopped, nodePods.stopped]);
    await events.written;
  };
  return { pods: pods.table, ztunnels: () => zds.connectionCount, done: serving() };
}

/** Before they are taken into the state, which tells new from known. */
function count(changes: readonly InformerChange[], state: NodeState, metrics: NodeMetrics): void {
  for (const { namespace, name, object } of changes) {
    const known = state.pod(`${namespace}/${name}`) !== undefined;
    metrics.reconciled(object === undefined ? "delete" : known ? "update" : "add");
  }
}

/** The pods that say they are enrolled, with their namespaces; one that is not found is taken up like a new one (CNI-090, CNI-093). */
async function restore(
  node: NodeView,
  { state, pods, log }: { state: NodeState; pods: MeshPods; log: Logger },
): Promise<{ restored: Awaited<ReturnType<MeshPods["restore"]>>; complete: boolean }> {
  const enrolled = [...state.pods()].map(([, pod]) => pod)
    .filter((pod) => redirectionOf(pod) === "enabled" && !pod.ended && !state.isZtunnel(pod));
  const found = node.find(enrolled);
  const byPod = new Map(enrolled.flatMap((pod) => found.has(pod.uid) ? [[pod, found.get(pod.uid)!] as const] : []));
  for (const pod of enrolled) {
    if (!byPod.has(pod)) log.warn("enrolled pod has no network namespace", { pod: podName(pod) });
  }
  return { restored: await pods.restore(byPod), complete: enrolled.every(({ ips }) => ips.length > 0) };
}
