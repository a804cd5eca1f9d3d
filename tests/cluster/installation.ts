/** How the mesh comes into the cluster and goes out of it: by manifests or by `ambit install`, with the nodes looked at before and after. */
import { assertEquals } from "@std/assert";
import { output } from "../kube/go_tools.ts";
import { refusedCalls } from "../kube/rights.ts";
import { until } from "../kube/until.ts";
import { AGENT_PODS } from "./means.ts";
import { type NodeState, nodeState } from "./node_state.ts";
import { type Cluster, isReady, report, SYSTEM } from "./rig.ts";

const ROOT = new URL("../../", import.meta.url).pathname;
const READY_MS = 120_000, GONE_MS = 60_000;

/** Runs `ambit` as an operator does, with the cluster's kubeconfig. @returns What it printed. */
export function ambit(...args: readonly string[]): Promise<string> {
  return output(Deno.execPath(), ["run", "-A", "--quiet", "--unstable-worker-options", `${ROOT}main.ts`, ...args]);
}

/** Waits until every part is ready, none of them started twice. */
export async function untilRunning(cluster: Cluster, sinceMs: number): Promise<void> {
  const nodes = cluster.nodes.length;
  const awaited = [["app=istiod", 1], ["app=ztunnel", nodes], [AGENT_PODS, nodes]] as const;
  await Promise.all(awaited.map(async ([selector, count]) => {
    await cluster.untilPods(SYSTEM, selector, count, isReady, READY_MS);
    report(`${selector} ready after ${seconds(sinceMs)}`);
  }));
  for (const { metadata: { name }, status } of await cluster.pods(SYSTEM)) {
    const restarts = status.containerStatuses?.map(({ restartCount }) => restartCount) ?? [];
    assertEquals(restarts.filter((count) => count > 0), [], `${name} has restarted`);
  }
}

/** Remembers what the nodes are like without the mesh. */
export async function rememberNodes(cluster: Cluster): Promise<void> {
  const states = await Promise.all(cluster.nodes.map((node) => nodeState(cluster, node)));
  await Deno.writeTextFile(`${cluster.folder}/before.json`, JSON.stringify(states));
}

/** Waits until the nodes are as they were remembered. */
export async function untilNodesAsBefore(cluster: Cluster): Promise<void> {
  const before: NodeState[] = JSON.parse(await Deno.readTextFile(`${cluster.folder}/before.json`));
  for (const [at, node] of cluster.nodes.entries()) {
    let after: NodeState = {};
    const settled = async () => JSON.stringify(after = await nodeState(cluster, node)) === JSON.stringify(before[at]);
    await until(settled, `${node.name} is as it was`, GONE_MS).catch(() => assertEquals(after, before[at], node.name));
  }
}

const ACCOUNT = `system:serviceaccount:${SYSTEM}:`;

/** The API server has refused nothing to the mesh's accounts, since whatever was forgotten. */
export async function assertRights(cluster: Cluster): Promise<void> {
  const calls = (await cluster.calls()).slice(await callsForgotten(cluster));
  const ours = calls.filter(({ user, allowed }) => user.startsWith(ACCOUNT) && !allowed);
  assertEquals(refusedCalls(ours), []);
  for (const { metadata: { name } } of await cluster.pods(SYSTEM)) {
    const log = await cluster.kubectl(["logs", "-n", SYSTEM, name]);
    assertEquals(log.split("\n").filter((line) => /forbidden|\b403\b/i.test(line)), [], name);
  }
}

/** An installation that goes loses its rights before its last words: what it was refused then says nothing. */
export async function forgetCalls(cluster: Cluster): Promise<void> {
  await Deno.writeTextFile(`${cluster.folder}/calls-forgotten`, `${(await cluster.calls()).length}`);
}

async function callsForgotten(cluster: Cluster): Promise<number> {
  const text = await Deno.readTextFile(`${cluster.folder}/calls-forgotten`).catch((error) => {
    if (error instanceof Deno.errors.NotFound) return "0";
    throw error;
  });
  return Number(text);
}

/** Since a moment of performance.now(). */
export const seconds = (sinceMs: number) => `${((performance.now() - sinceMs) / 1_000).toFixed(1)} s`;
