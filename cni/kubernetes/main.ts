/** Role cni in a cluster: the node agent, the plugin's installation, and whether both are ready (CNI-017, CNI-052). */
import { parse } from "@std/yaml";
import { chain, MeshError } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import { requireCapabilities } from "../../os/capabilities.ts";
import { type KubeApi, KubeError } from "../../kube/api.ts";
import type { KubeAccess } from "../../kube/access.ts";
import { openKubeApi } from "../../kube/client.ts";
import { inClusterAccess } from "../../kube/in_cluster.ts";
import { loadKubeconfig } from "../../kube/kubeconfig_access.ts";
import { DAEMON_SETS } from "../../kube/resource_types.ts";
import type { CniConfig } from "../config.ts";
import { type Enablement, parseEnablement } from "../enablement.ts";
import { Installer } from "../install/installer.ts";
import { loadedLibraries, type PluginProgram } from "../install/plugin_program.ts";
import { formatPluginKubeconfig } from "../kubeconfig_file.ts";
import { chooseRedirection } from "../redirection/choose.ts";
import type { Redirection } from "../redirection/redirection.ts";
import { startAgent } from "./agent.ts";
import { PLUGIN_ENTRY, pluginModules } from "./plugin_modules.ts";

export interface RoleOptions {
  readonly signal: AbortSignal;
  readonly log: Logger;
}

const DAEMON_SET = "istio-cni-node";
const ROOT = new URL("../../", import.meta.url).pathname.replace(/\/$/, "");
const CONF_MODE = 0o600;
const TOKEN_LOOK_MS = 60_000; // The kubelet renews a token long before it ends (CNI-045).

/** Runs until the signal; pods stay captured. Throws MeshError if the node cannot be served. */
export async function runKubernetesMode(config: CniConfig, { signal, log }: RoleOptions): Promise<void> {
  requireCapabilities(["CAP_NET_ADMIN", "CAP_SYS_ADMIN"]);
  const enablement = enablementOf(config), health = { watching: false, installed: () => false };
  const access = config.kubeconfig === undefined ? await inClusterAccess() : await loadKubeconfig(config.kubeconfig);
  const http = serveHealth(config, health, signal);
  const api = openKubeApi(access, { log: log.child("kube") });
  try {
    const nodeName = config.nodeName ?? Deno.hostname();
    using redirection = await chooseRedirection(config, { log: log.child("redirection") });
    const agent = await startAgent({
      nodeName,
      systemNamespace: config.systemNamespace,
      enablement,
      rules: { dnsCapture: config.dnsCapture },
      redirection,
      runDir: config.runDir,
      zdsSocket: config.zdsSocket,
      procDir: `${config.hostRoot}/proc`,
      hostRoot: config.hostRoot,
      auditIntervalMs: config.auditIntervalMs,
    }, { api, signal, log });
    health.watching = true;
    const kubeconfig = await Kubeconfig.open(access, signal);
    const installer = new Installer({
      confDir: config.confDir,
      binDir: config.binDir,
      runDir: config.runDir,
      ownFile: config.ownedConf ? config.ownedConfName : undefined,
      confMode: CONF_MODE,
      settings: pluginSettings(config),
    }, { program: await pluginProgram(), kubeconfig: () => kubeconfig.text, log: log.child("install") });
    health.installed = () => installer.ready;
    await Promise.all([installer.run(signal), agent.done, kubeconfig.stopped]);
    if (await isUninstalled(api, config, log)) await uninstall(installer, redirection, log);
    else log.info("stopping; pods stay captured, and new ones wait for the next agent");
  } finally {
    api.close();
    await http.finished;
  }
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
    enablement_selectors: config.enablementSelector === undefined ? undefined : parse(config.enablementSelector),
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

/** The plugin's kubeconfig with the token of now. */
class Kubeconfig {
  text: string;
  readonly stopped: Promise<void>;

  private constructor(text: string, stopped: Promise<void>) {
    this.text = text;
    this.stopped = stopped;
  }

  static async open(access: KubeAccess, signal: AbortSignal): Promise<Kubeconfig> {
    const { promise: stopped, resolve } = Promise.withResolvers<void>();
    const kubeconfig = new Kubeconfig(await textOf(access, signal), stopped);
    const timer = setInterval(async () => {
      try {
        kubeconfig.text = await textOf(access, signal);
      } catch (error) {
        if (!(error instanceof MeshError)) throw error; // Else the one of before stays, until the next look.
      }
    }, TOKEN_LOOK_MS);
    const stop = () => {
      clearInterval(timer);
      resolve();
    };
    signal.addEventListener("abort", stop, { once: true });
    if (signal.aborted) stop();
    return kubeconfig;
  }
}

async function textOf(access: KubeAccess, signal: AbortSignal): Promise<string> {
  const { token = "" } = await access.credentials.current(signal);
  const server = access.server.href.replace(/\/$/, "");
  return formatPluginKubeconfig({ server, ca: access.ca ?? "", token });
}

/** CNI-052: ready when pods are followed and the runtime calls our plugin; alive as long as this answers. */
function serveHealth(
  { healthAddress: { host: hostname, port } }: CniConfig,
  health: { readonly watching: boolean; readonly installed: () => boolean },
  signal: AbortSignal,
): Deno.HttpServer {
  try {
    return Deno.serve({ hostname, port, signal, onListen: () => {} }, (request) => {
      const { pathname } = new URL(request.url);
      if (pathname === "/healthz") return new Response("ok\n");
      if (pathname !== "/readyz") return new Response("not found\n", { status: 404 });
      const missing = [
        ...health.watching ? [] : ["pods are not followed yet"],
        ...health.installed() ? [] : ["the plugin is not installed"],
      ];
      return new Response(`${missing.join("; ") || "ok"}\n`, { status: missing.length === 0 ? 200 : 503 });
    });
  } catch (cause) {
    throw new MeshError("AMB7123", `cannot serve health pages on ${hostname}:${port}`, {
      remedy: "choose another --health-address, or stop what listens there",
      cause,
    });
  }
}

/** Whether the agent goes for good: its DaemonSet is gone, or we may not even look (CNI-046). An upgrade leaves all in place. */
async function isUninstalled(api: KubeApi, { systemNamespace }: CniConfig, log: Logger): Promise<boolean> {
  try {
    const set = await api.get(DAEMON_SETS, { namespace: systemNamespace, name: DAEMON_SET });
    return set === undefined || set.metadata.deletionTimestamp !== undefined;
  } catch (error) {
    if (error instanceof KubeError && (error.status === 401 || error.status === 403)) return true;
    log.warn("cannot tell an upgrade from an uninstallation; leaving the plugin in place", { error: chain(error) });
    return false;
  }
}

async function uninstall(installer: Installer, redirection: Redirection, log: Logger): Promise<void> {
  installer.uninstall();
  using probes = redirection.openNode();
  await probes.uninstall();
  log.info("uninstalled from this node");
}
