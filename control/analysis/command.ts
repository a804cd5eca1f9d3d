/** `ambit analyze`: what is wrong with the objects of a folder or a cluster, as istiod would take them (CP-699). */
import { defineConfig, oneOf, optional, text } from "../../base/config.ts";
import type { Logger } from "../../base/log.ts";
import { AmbientIndex } from "../ambient/index.ts";
import { openOwnApi } from "../api_access.ts";
import { analyse } from "./analyse.ts";
import { type Finding, inOrder, jsonOf, type Level, levelOf, LEVELS, lineOf } from "./findings.ts";
import { checkNetwork } from "./network_checks.ts";
import { loadCluster, type Loaded, loadFolder } from "./loaded.ts";

export const ANALYZE_CONFIG = defineConfig("ambit analyze", {
  configDir: {
    kind: optional(text("DIR")),
    flag: "config-dir",
    env: "AMBIT_CONFIG_DIR",
    default: undefined,
    defaultText: "the objects of a cluster",
    help: "folder of Kubernetes objects in YAML",
  },
  kubeconfig: {
    kind: optional(text("PATH")),
    flag: "kubeconfig",
    env: "KUBECONFIG",
    default: undefined,
    defaultText: "the service account of the pod this runs in",
    help: "file that says how to reach the cluster's API server",
  },
  namespace: {
    kind: text("NAME"),
    flag: "namespace",
    default: "",
    defaultText: "all",
    help: "tell only of objects of this namespace, and of those that have none",
  },
  systemNamespace: {
    kind: text("NAME"),
    flag: "system-namespace",
    env: "ISTIO_NAMESPACE",
    default: "istio-system",
    help: "where istiod runs, and its ConfigMap is",
  },
  revision: {
    kind: text("NAME"),
    flag: "revision",
    default: "",
    help: "the istiod whose view is meant: objects of other revisions are left out",
  },
  output: { kind: oneOf("log", "json"), flag: "output", default: "log" as "log" | "json", help: "form of the answer" },
  failureThreshold: {
    kind: oneOf(...LEVELS),
    flag: "failure-threshold",
    default: "Error" as Level,
    help: "the exit status is 79 when something as bad as this is found",
  },
});

export type AnalyzeConfig = ReturnType<typeof ANALYZE_CONFIG.parse>["config"];

const EXIT_FOUND = 79; // as istioctl analyze, for pipelines

/** Reads, analyses and prints. @returns The exit status. @throws MeshError AMB0230, AMB0830, AMB0831, AMB080x */
export async function runAnalyze(
  config: AnalyzeConfig,
  { log, write }: { readonly log: Logger; readonly write: (text: string) => void },
): Promise<number> {
  const findings = findingsOf(await load(config, log), config);
  const shown = findings.filter(({ object }) => isShown(object, config.namespace));
  write(config.output === "json" ? `${JSON.stringify(shown.map(jsonOf), null, 2)}\n` : report(shown));
  const least = LEVELS.indexOf(config.failureThreshold);
  return shown.some((it) => LEVELS.indexOf(levelOf(it)) >= least) ? EXIT_FOUND : 0;
}

async function load(config: AnalyzeConfig, log: Logger): Promise<Loaded> {
  const opened = await openOwnApi(config, log);
  if (opened === undefined) return await loadFolder(config.configDir!);
  try {
    return await loadCluster(opened.api, config);
  } finally {
    opened.close();
  }
}

/** Everything that is found of what was read: of each object by itself, and of all together. */
export function findingsOf(
  { changes, findings, network }: Loaded,
  { systemNamespace, revision }: Pick<AnalyzeConfig, "systemNamespace" | "revision">,
): Finding[] {
  const index = new AmbientIndex({ systemNamespace, rootNamespace: systemNamespace, revision });
  index.apply(changes);
  return inOrder([...findings, ...analyse(index.graph), ...checkNetwork(network)]);
}

function isShown(object: string, wanted: string): boolean {
  const [kind, namespace = "", name] = object.split("/");
  return wanted === "" || namespace === wanted || namespace === "" && (kind !== "Namespace" || name === wanted);
}

function report(findings: readonly Finding[]): string {
  if (findings.length === 0) return "no issues found\n";
  return findings.map((it) => `${lineOf(it)}\n`).join("");
}
