/** Role cni in a cluster: the node agent, the plugin's installation, and what is shown of both (CNI-017, CNI-052). */
import { removeRunFiles } from "./run_files.ts";
import { parse } from "@std/yaml";
import { MeshError } from "../../base/errors.ts";
import { Logger } from "../../base/log.ts";
import { requireCapabilities } from "../../os/capabilities.ts";
import { raiseOpenFileLimit } from "../../os/limits.ts";
import { fixedCredentials, type KubeAccess } from "../../kube/access.ts";
import { openKubeApi } from "../../kube/client.ts";
import { inClusterAccess } from "../../kube/in_cluster.ts";
import { loadKubeconfig } from "../../kube/kubeconfig_access.ts";
import { NAMESPACES } from "../../kube/resource_types.ts";
import { refusesForeign } from "../bpf/foreign_ztunnel.ts";
import type { CniConfig } from "../config.ts";
import { DEFAULT_SELECTORS_WRITTEN, type Enablement, parseEnablement } from "../enablement.ts";
import { Installer } from "../install/installer.ts";
import { loadedLibraries, type PluginProgram } from "../install/plugin_program.ts";
import { type Netns, openNetns } from "../../os/netns.ts";
import { BranchEniProbes } from "../redirection/branch_eni.ts";
import { probeSourceOf } from "../redirection/probe_source.ts";
import { removeUnusedPins } from "../bpf/unused_pins.ts";
import { chooseRedirection } from "../redirection/choose.ts";
import type { Redirection } from "../redirection/redirection.ts";
import { type RunningAgent, startAgent } from "./agent.ts";
import { whyLeaving } from "./leaving.ts";
import { type NodeGauges, NodeMetrics } from "./node_metrics.ts";
import { healthPages, jsonPage, metricsPage, servePages } from "./pages.ts";
import { PLUGIN_ENTRY, pluginModules } from "./plugin_modules.ts";
import { PluginKubeconfig } from "./plugin_kubeconfig.ts";
import { podRows } from "./pod_table.ts";

export interface RoleOptions {
  readonly signal: AbortSignal;
  readonly log: Logger;
}

const ROOT = new URL("../../", import.meta.url).pathname.replace(/\/$/, "");
const CONF_MODE = 0o600;
const TOKEN_TRY_MS = 10_000;
const SILENT = new Logger("kube", { sink: () => {} }); // Whoever asks says what came of it.

/** Runs until the signal; pods stay captured. Throws MeshError if the node cannot be served (CNI-017, CNI-018). */
export async function runKubernetesMode(config: CniConfig, { signal, log }: RoleOptions): Promise<void> {
  requireCapabilities(["CAP_NET_ADMIN", "CAP_SYS_ADMIN"]);
  const enablement = enablementOf(config), nodeName = config.nodeName ?? Deno.hostname();
  const access = config.kubeconfig === undefined ? await inClusterAccess() : await loadKubeconfig(config.kubeconfig);
  raiseOpenFileLimit(); // Three descriptors a pod, and more with eBPF.
  const parts: Parts = {}; // As they come up; the pages are there before them.
  const metrics = new NodeMetrics(gaugesOf(config, parts));
  const ended = new AbortController(); // By a failure, too.
  const servers = servePagesOf(config, { parts, metrics, signal: AbortSignal.any([signal, ended.signal]) });
  const api = openKubeApi(access, { log: log.child("kube") });
  try {
    using host = config.switchToHost ? openNetns(`${config.hostRoot}/proc/1/ns/net`) : undefined;
    const probe = probeSourceOf(config);
    using redirection = await chooseRedirection(config, { log: log.child("redirection"), host, probe });
    parts.redirection = redirection;
    const agent = parts.agent = await startAgent({
      nodeName,
      systemNamespace: config.systemNamespace,
      enablement,
      rules: { dnsCapture: config.dnsCapture, permitExclusions: config.permitExclusions, ...probe && { probe } },
      redirection,
      refusesZtunnel: refusesForeign({ settings: config, redirection }),
      branchEniProbe: config.branchEniProbe,
      hostNetns: host,
      runDir: config.runDir,
      zdsSocket: config.zdsSocket,
      procDir: `${config.hostRoot}/proc`,
      hostRoot: config.hostRoot,
      auditIntervalMs: config.auditIntervalMs,
    }, { api, metrics, signal, log });
    const kubeconfig = parts.kubeconfig = await PluginKubeconfig.open(
      access,
      { verify: verifyToken, log: log.child("install") },
      signal,
    );
    const installer = parts.installer = new Installer({
      confDir: config.confDir,
      binDir: config.binDir,
      runDir: config.runDir,
      ownFile: config.chained && config.ownedConf ? config.ownedConfName : undefined,
      standaloneFile: config.chained ? undefined : config.standaloneConfName,
      confMode: CONF_MODE,
      settings: pluginSettings(config),
    }, {
      program: await pluginProgram(),
      kubeconfig: () => kubeconfig.text,
      onPass: (result) => metrics.installed(result),
      log: log.child("install"),
    });
    await Promise.all([installer.run(signal), agent.done, kubeconfig.run(signal)]);
    const leaving = config.disableSafeUpgrade ? "uninstalled" : await whyLeaving({
      api,
      namespace: config.systemNamespace,
      nodeName,
      owned: config.chained && config.ownedConf,
      log,
    });
    if (leaving === "uninstalled") {
      await uninstall(installer, { redirection, host, runDir: config.runDir, bpfPins: config.bpfPins, log });
    } else log.info("stopping; pods stay captured, and new ones wait for the next agent");
  } finally {
    api.close();
    ended.abort();
    await Promise.all(servers.map((server) => server.finished));
  }
}

/** What the pages speak of, each from when it is there. */
interface Parts {
  redirection?: Redirection;
  agent?: RunningAgent;
  kubeconfig?: PluginKubeconfig;
  installer?: Installer;
}

function gaugesOf(config: CniConfig, parts: Parts): NodeGauges {
  return {
    ztunnels: () => parts.agent?.ztunnels() ?? 0,
    pods: () => parts.agent?.pods.counts() ?? { enrolled: 0, pending: 0, failed: 0 },
    installReady: () => parts.installer?.ready === true,
    kubeconfigExpiresS: () => parts.kubeconfig?.expiresInS(),
    backend: () => {
      const used = parts.redirection?.name ?? "none", wanted = config.redirect;
      const reason = parts.redirection?.reason ?? (wanted === "auto" ? "the first that works here" : "asked for");
      return { wanted, used, reason };
    },
  };
}

/** Health for the kubelet, metrics for scrapers, and, for this node alone, how each pod fares. */
function servePagesOf(
  config: CniConfig,
  { parts, metrics, signal }: { parts: Parts; metrics: NodeMetrics; signal: AbortSignal },
): Deno.HttpServer[] {
  const missing = () => [
    ...parts.agent === undefined ? ["pods are not followed yet"] : [],
    ...parts.installer?.ready === true ? [] : ["the plugin is not installed"],
  ];
  const { introspectionAddress, monitoringAddress, healthAddress } = config;
  const pods = jsonPage(async () => ({
    ztunnels: parts.agent?.ztunnels() ?? 0,
    backend: parts.redirection?.name ?? null,
    pods: await podRows(parts.agent?.pods.status() ?? []),
  }));
  return [
    servePages(introspectionAddress, { "/debug/pods": pods }, { signal, flag: "--introspection-address" }),
    servePages(monitoringAddress, { "/metrics": metricsPage(() => metrics.render()) }, {
      signal,
      flag: "--monitoring-address",
    }),
    servePages(healthAddress, healthPages(missing), { signal, flag: "--health-address" }),
  ];
}

function enablementOf({ enablementSelector, excludedNamespaces }: CniConfig): Enablement {
  let wanted: unknown;
  try {
    wanted = enablementSelector === undefined ? undefined : parse(enablementSelector);
  } catch (cause) {
    throw badSelector("no YAML", cause);
  }
  const enablement = parseEnablement(wanted, excludedNamespaces);
  if ("wrong" in enablement) throw badSelector(`not ${enablement.wrong}`);
  return enablement;
}

function badSelector(what: string, cause?: unknown): MeshError {
  return new MeshError("AMB7122", `--ambient-enablement-selector is ${what}`, {
    remedy: "give a list of maps with podSelector and namespaceSelector, each a Kubernetes label selector",
    cause,
  });
}

/** What the plugin reads of its configuration (CNI-006). */
function pluginSettings(config: CniConfig): Record<string, unknown> {
  return {
    name: "istio-cni",
    ambient_enabled: true,
    cni_agent_run_dir: config.runDir,
    enablement_selectors: config.enablementSelector === undefined
      ? DEFAULT_SELECTORS_WRITTEN
      : parse(config.enablementSelector),
    exclude_namespaces: config.excludedNamespaces,
    pod_namespace: config.systemNamespace,
    plugin_log_level: "info",
  };
}

async function pluginProgram(): Promise<PluginProgram> {
  return {
    runtime: Deno.execPath(),
    libraries: loadedLibraries(await Deno.readTextFile("/proc/self/maps")),
    modules: { root: ROOT, files: pluginModules(ROOT), entry: PLUGIN_ENTRY },
  };
}

/** Asks as the plugin would: a token that the API server does not take, or that may not look, is no better than the one before. */
async function verifyToken(access: KubeAccess, token: string, signal: AbortSignal): Promise<void> {
  const limits = { callMs: TOKEN_TRY_MS };
  const api = openKubeApi({ ...access, credentials: fixedCredentials({ token }) }, { log: SILENT, limits });
  const close = () => api.close();
  signal.addEventListener("abort", close, { once: true });
  try {
    await api.get(NAMESPACES, { namespace: "", name: "default" });
  } finally {
    signal.removeEventListener("abort", close);
    api.close();
  }
}

async function uninstall(
  installer: Installer,
  { redirection, host, runDir, bpfPins, log }: {
    readonly redirection: Redirection;
    readonly bpfPins: string;
    readonly host: Netns | undefined;
    readonly runDir: string;
    readonly log: Logger;
  },
): Promise<void> {
  installer.uninstall();
  using probes = new BranchEniProbes(redirection.openNode(host), { log, host });
  await probes.uninstall();
  removeUnusedPins(bpfPins);
  removeRunFiles(runDir);
  log.info("uninstalled from this node");
}
