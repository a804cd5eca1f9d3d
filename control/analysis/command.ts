/** `ambit analyze`: what is wrong with the objects of a folder or a cluster, as istiod would take them (CP-699). */
import { defineConfig, oneOf, optional, text } from "../../base/config.ts";
import type { Logger } from "../../base/log.ts";
import { AmbientIndex } from "../ambient/index.ts";
import { isInCluster } from "../../kube/in_cluster.ts";
import { openApi } from "../api_access.ts";
import { analyse } from "./analyse.ts";
import { type Finding, inOrder, jsonOf, type Level, levelOf, LEVELS, lineOf } from "./findings.ts";
import { checkNetwork } from "./network_checks.ts";
import { loadCluster, type Loaded, loadFiles } from "./loaded.ts";

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
    defaultText: "the service account of the pod this runs in, else ~/.kube/config",
    help: "file that says how to reach the cluster's API server",
  },
  context: {
    kind: optional(text("NAME")),
    flag: "context",
    default: undefined,
    defaultText: "the kubeconfig's own",
    help: "which context of the kubeconfig",
  },
  namespace: {
    kind: text("NAME"),
    flag: "namespace",
    short: "n",
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
  output: {
    kind: oneOf("log", "json"),
    flag: "output",
    short: "o",
    default: "log" as "log" | "json",
    help: "form of the answer",
  },
  failureThreshold: {
    kind: oneOf(...LEVELS),
    flag: "failure-threshold",
    default: "Error" as Level,
    help: "the exit status is 79 when something as bad as this is found",
  },
}, {
  operands: "[FILE|DIR|-…]",
  examples: [
    "ambit analyze",
    "ambit analyze -n shop -o json",
    "ambit analyze policies/ extra.yaml",
    "kustomize build . | ambit analyze -",
  ],
});

export type AnalyzeConfig = ReturnType<typeof ANALYZE_CONFIG.parse>["config"];

const EXIT_FOUND = 79; // as istioctl analyze, for pipelines

/** Reads what `paths` names, or else what the settings do, analyses it and prints. @returns The exit status. @throws MeshError AMB0230, AMB0830, AMB0831, AMB080x */
export async function runAnalyze(
  config: AnalyzeConfig,
  { log, write, paths = [] }: {
    readonly log: Logger;
    readonly write: (text: string) => void;
    readonly paths?: readonly string[];
  },
): Promise<number> {
  const findings = findingsOf(await load(config, paths, log), config);
  const shown = findings.filter(({ object }) => isShown(object, config.namespace));
  write(config.output === "json" ? `${JSON.stringify(shown.map(jsonOf), null, 2)}\n` : report(shown));
  const least = LEVELS.indexOf(config.failureThreshold);
  return shown.some((it) => LEVELS.indexOf(levelOf(it)) >= least) ? EXIT_FOUND : 0;
}

async function load(config: AnalyzeConfig, paths: readonly string[], log: Logger): Promise<Loaded> {
  const files = [...config.configDir === undefined ? [] : [config.configDir], ...paths];
  if (files.length > 0) return await loadFiles(files);
  const opened = await openApi({ ...config, kubeconfig: config.kubeconfig ?? await usersKubeconfig() }, log);
  try {
    return await loadCluster(opened.api, config);
  } finally {
    opened.close();
  }
}

/** What kubectl would take, where no pod says otherwise. */
async function usersKubeconfig(): Promise<string | undefined> {
  const path = `${Deno.env.get("HOME") ?? ""}/.kube/config`;
  if (isInCluster(Deno.env.toObject())) return undefined;
  try {
    return (await Deno.stat(path)).isFile ? path : undefined;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
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
