/** Kills one program of the mesh under load, and waits until all is as before. */
import { assertEquals } from "@std/assert";
import { until } from "../kube/until.ts";
import type { Cost, Part } from "./kill_costs.ts";
import { type Cluster, isReady, type PodStatus, SYSTEM } from "./rig.ts";
import { lanesOf, untilServed } from "./stage.ts";

export const PARTS: Readonly<Record<Part, string>> = {
  istiod: "app=istiod",
  ztunnel: "app=ztunnel",
  cni: "k8s-app=istio-cni-node",
};
export const BACK_MS = 90_000;
const SERVED = 5; // answers of every lane
/** Of /proc/<pid>/stat, after the name: field 22, in ticks since the machine's start. */
const START_TIME = 19, TICK_MS = 10;

/** As a kernel out of memory would. @returns Once its pod is ready again, and every lane of the load is served. */
export async function killOne(cluster: Cluster, part: Part, pod: PodStatus, load: PodStatus): Promise<Cost> {
  await lanesOf(cluster, load, true);
  const before = pod.status.containerStatuses?.[0]?.restartCount ?? 0, programs = programsOf(cluster, pod);
  const killed = programs.at(-1), supervised = programs.length > 1, killedAtMs = Date.now(), { name } = pod.metadata;
  if (killed === undefined) throw new Error(`${name} runs no program`);
  Deno.kill(killed, "SIGKILL");
  let startedMs: number | undefined;
  const isBack = (it: PodStatus) =>
    isReady(it) &&
    (supervised ? startedMs !== undefined : (it.status.containerStatuses?.[0]?.restartCount ?? 0) > before);
  await until(
    async () => {
      const pods = await cluster.pods(SYSTEM, PARTS[part]), same = pods.find((it) => it.metadata.name === name);
      const next = programsOf(cluster, pod).at(-1);
      if (next !== undefined && !programs.includes(next)) startedMs ??= startOf(next) - killedAtMs;
      return same === undefined ? pods.some(isReady) : isBack(same); // Its controller may have taken another one instead.
    },
    `${name} is back`,
    BACK_MS,
  );
  const readyMs = Date.now() - killedAtMs;
  await untilServed(cluster, load, SERVED, BACK_MS);
  const lanes = await lanesOf(cluster, load);
  assertEquals(lanes.filter(({ wrong }) => wrong > 0), [], "a wrong byte");
  return {
    part,
    node: pod.spec.nodeName ?? "nowhere",
    supervised,
    killedAtMs,
    asked: lanes.reduce((sum, it) => sum + it.asked, 0),
    lost: lanes.flatMap((it) =>
      it.failures.map((failure) => ({ ...failure, lane: it.name, atMs: failure.atMs - killedAtMs }))
    ),
    startedMs: startedMs ?? readyMs,
    readyMs,
  };
}

/** The runtimes that run the role, not the pause program beside them: a parent that starts it anew, if there is one, first. */
function programsOf(cluster: Cluster, pod: PodStatus): number[] {
  const found = cluster.pidsOf(pod).filter((pid) => nameOf(pid)?.startsWith("deno"));
  return found.sort((one, other) => one - other);
}

function nameOf(pid: number): string | undefined {
  try {
    return Deno.readTextFileSync(`/proc/${pid}/comm`);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined; // It ended while we looked.
    throw error;
  }
}

/** When a program began to run, in milliseconds of the clock on the wall. */
function startOf(pid: number): number {
  const [, after] = Deno.readTextFileSync(`/proc/${pid}/stat`).split(") ");
  const ticks = Number(after!.split(" ")[START_TIME]), upMs = parseFloat(Deno.readTextFileSync("/proc/uptime")) * 1_000;
  return Math.round(Date.now() - upMs + ticks * TICK_MS);
}
