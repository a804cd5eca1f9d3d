/** The plugin's own keys in the network configuration (CNI-006). Pure. */
import { CniCode, CniFailure } from "./call.ts";
import { type Enablement, parseEnablement } from "../enablement.ts";
import type { Json } from "./result.ts";

export interface PluginConfig {
  /** Folder of the agent's socket, and of the kubeconfig for when it does not answer. */
  readonly runDir: string;
  readonly ambient: boolean;
  readonly enablement: Enablement;
  /** The agent's own namespace. */
  readonly agentNamespace: string;
  readonly logLevel: string;
}

const RUN_DIR = "/var/run/istio-cni";

/** The agent's run folder, as far as a configuration that may be wrong in other ways says. */
export function runDirOf({ cni_agent_run_dir: folder }: Json): string {
  return typeof folder === "string" && folder !== "" ? folder : RUN_DIR;
}

/** @throws CniFailure INVALID_CONFIG for a key of the wrong kind. */
export function parsePluginConfig(config: Json): PluginConfig {
  const wrong = (key: string, what: string): never => {
    throw new CniFailure(CniCode.INVALID_CONFIG, `${key} of the network configuration must be ${what}`);
  };
  const text = (key: string, fallback: string): string => {
    const value = config[key] ?? fallback;
    return typeof value === "string" ? value : wrong(key, "a string");
  };
  const toggle = (key: string): boolean => {
    const value = config[key] ?? false;
    return typeof value === "boolean" ? value : wrong(key, "true or false");
  };
  const excluded = config.exclude_namespaces ?? [];
  if (!Array.isArray(excluded) || excluded.some((it) => typeof it !== "string")) {
    return wrong("exclude_namespaces", "a list of strings");
  }
  const enablement = parseEnablement(config.enablement_selectors, excluded as string[]);
  if ("wrong" in enablement) return wrong("enablement_selectors", enablement.wrong);
  return {
    runDir: text("cni_agent_run_dir", RUN_DIR) || RUN_DIR,
    ambient: toggle("ambient_enabled"),
    enablement,
    agentNamespace: text("pod_namespace", ""),
    logLevel: text("plugin_log_level", "warn"),
  };
}
