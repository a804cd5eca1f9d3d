/** One call of the plugin, from what the runtime asks to what is printed: decides who is a pod of the mesh, and fails closed (CNI-007 to CNI-021). */
import { chain } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import { type EnablementFacts, wantsMesh } from "../enablement.ts";
import { encodeEvent } from "../plugin_event.ts";
import type { Agent, Decision } from "./agent.ts";
import { CniCode, CniFailure, type PluginCall, versionAnswer } from "./call.ts";
import { parsePluginConfig, type PluginConfig } from "./plugin_config.ts";
import { addressesOf, convertResult, type Json } from "./result.ts";

/** What the API server knows of a pod; undefined when there is none of that name. */
export interface PodLookup {
  pod(namespace: string, name: string): Promise<EnablementFacts | undefined>;
}

export interface PluginDependencies {
  readonly agent: (config: PluginConfig) => Agent;
  /** By the kubeconfig of the agent's run folder. Its calls may fail. */
  readonly lookup: (config: PluginConfig) => PodLookup;
  /** Namespaces that may have pods in the mesh, as the agent last knew them; undefined where nobody knows. */
  readonly ambientNamespaces: (config: PluginConfig) => Promise<ReadonlySet<string> | undefined>;
  readonly log: Logger;
  readonly sleep: (ms: number) => Promise<void>;
}

/** The agent's own pods, and ztunnel's: what everything else waits for must not wait itself (CNI-008, CNI-021). */
const AGENT_POD_PREFIX = "istio-cni-node-", ZTUNNEL_POD_PREFIX = "ztunnel-";
const LOOKUP_TRIES = 31, LOOKUP_PAUSE_MS = 1_000; // CNI-009

/** @returns What to print; undefined prints nothing. @throws CniFailure */
export async function runCall(call: PluginCall, dependencies: PluginDependencies): Promise<Json | undefined> {
  switch (call.command) {
    case "ADD":
      await add(call, dependencies);
      return call.previous === undefined ? { cniVersion: call.version } : convertResult(call.previous, call.version);
    case "VERSION":
      return versionAnswer(call.version);
    default: // A pod leaves by the API's word; nothing hangs on DEL, CHECK, GC or STATUS (CNI-004).
      return undefined;
  }
}

async function add(call: PluginCall, dependencies: PluginDependencies): Promise<void> {
  const name = call.args.get("K8S_POD_NAME") ?? "", namespace = call.args.get("K8S_POD_NAMESPACE") ?? "";
  if (name === "" || namespace === "") return; // Not Kubernetes (CNI-005).
  const config = parsePluginConfig(call.config), { log } = dependencies;
  if (!config.ambient || isOurs(name, namespace, config)) return;
  if (config.enablement.excludedNamespaces.includes(namespace)) return;
  const agent = dependencies.agent(config), uid = call.args.get("K8S_POD_UID") ?? "";
  const decision = await agent.decide({ name, namespace, uid });
  if (decision === "not-ambient") return;
  if (decision !== "ambient" && !await isAmbient({ name, namespace, decision }, config, dependencies)) return;
  const addresses = call.previous === undefined ? [] : addressesOf(call.previous);
  const body = encodeEvent({ netns: call.netns, name, namespace, uid }, addresses);
  if (body === undefined) {
    throw new CniFailure(CniCode.OTHER, "the result of the plugin before holds something that is no address");
  }
  const refusal = await agent.enrol(body);
  if (refusal !== undefined) throw new CniFailure(CniCode.OTHER, refusal);
  log.info("pod enrolled", { pod: `${namespace}/${name}` });
}

function isOurs(name: string, namespace: string, { agentNamespace }: PluginConfig): boolean {
  return namespace === agentNamespace && (name.startsWith(AGENT_POD_PREFIX) || name.startsWith(ZTUNNEL_POD_PREFIX));
}

/**
 * Asks the API server until it answers. A pod that nobody can judge does not start, unless its namespace was in no mesh when
 * the agent last knew (CNI-009, CNI-021).
 */
async function isAmbient(
  { name, namespace, decision }: { name: string; namespace: string; decision: Decision },
  config: PluginConfig,
  { lookup, ambientNamespaces, log, sleep }: PluginDependencies,
): Promise<boolean> {
  let last: unknown, answered = false;
  for (let attempt = 1; attempt <= LOOKUP_TRIES; attempt++) {
    try {
      const facts = await lookup(config).pod(namespace, name);
      if (facts !== undefined) return wantsMesh(facts, config.enablement);
      answered = true;
      last = new Error("there is no such pod");
    } catch (error) {
      last = error;
    }
    log.warn("pod not looked up", { pod: `${namespace}/${name}`, attempt, error: chain(last) });
    if (attempt < LOOKUP_TRIES) await sleep(LOOKUP_PAUSE_MS);
  }
  const known = decision === "unreachable" && !answered ? await ambientNamespaces(config) : undefined;
  if (known !== undefined && !known.has(namespace)) {
    log.warn("nobody answers; the namespace was in no mesh", { pod: `${namespace}/${name}` });
    return false;
  }
  throw new CniFailure(CniCode.OTHER, `cannot tell whether ${namespace}/${name} belongs into the mesh: ${chain(last)}`);
}
