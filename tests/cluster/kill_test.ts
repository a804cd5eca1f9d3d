import { assertEquals } from "@std/assert";
import { Wiretap } from "../../demo/lab/wiretap.ts";
import { ownNetns } from "../../os/netns.ts";
import { until } from "../kube/until.ts";
import { type Cost, costTable, type Part, sequence } from "./kill_costs.ts";
import { amount, type Cluster, clusterTest, isReady, type PodStatus, report, SYSTEM } from "./rig.ts";
import { app, ask, lanesOf, stage, tcpProbe, untilMode, untilServed } from "./stage.ts";

const NAMESPACE = "kill", OPTIONS = { namespaces: [NAMESPACE] };
const PODS = /^10\.244\./, MARKER = "ambit-plain-";
const PODS_MS = 90_000, BACK_MS = 90_000, SERVED = 5;
const LOOK_MS = 100;
const PARTS: Readonly<Record<Part, string>> = {
  istiod: "app=istiod",
  ztunnel: "app=ztunnel",
  cni: "k8s-app=istio-cni-node",
};
const SEED = 1;
/** All parts are killed in turn at first, on each node; then as it falls. */
const IN_TURN = 6;

const deny = {
  apiVersion: "security.istio.io/v1",
  kind: "AuthorizationPolicy",
  metadata: { name: "not-mallory", namespace: NAMESPACE },
  spec: {
    action: "DENY",
    rules: [{ from: [{ source: { principals: [`cluster.local/ns/${NAMESPACE}/sa/mallory`] } }] }],
  },
};

/** Kills one program as a kernel out of memory would, and waits until its pod is ready again and every lane served. */
async function killOne(cluster: Cluster, part: Part, pod: PodStatus, load: PodStatus): Promise<Cost> {
  await lanesOf(cluster, load, true);
  const before = pod.status.containerStatuses?.[0]?.restartCount ?? 0, atMs = Date.now();
  Deno.kill(programOf(cluster, pod), "SIGKILL");
  const name = pod.metadata.name;
  const isBack = (it: PodStatus) => isReady(it) && (it.status.containerStatuses?.[0]?.restartCount ?? 0) > before;
  await until(
    async () => {
      const pods = await cluster.pods(SYSTEM, PARTS[part]), same = pods.find((it) => it.metadata.name === name);
      return same === undefined ? pods.some(isReady) : isBack(same); // Its controller may have taken another one instead.
    },
    `${name} is back`,
    BACK_MS,
  );
  const readyMs = Date.now() - atMs;
  await untilServed(cluster, load, SERVED, BACK_MS);
  const lanes = await lanesOf(cluster, load), failures = lanes.flatMap((it) => it.failures);
  assertEquals(lanes.filter(({ wrong }) => wrong > 0), [], "a wrong byte");
  return {
    part,
    failed: failures.length,
    asked: lanes.reduce((sum, it) => sum + it.asked, 0),
    lastMs: Math.max(0, ...failures.map((it) => it.atMs - atMs)),
    readyMs,
    lanes: lanes.filter((it) => it.failures.length > 0).length,
  };
}

/** The runtime that runs the role, not the pause program beside it. */
function programOf(cluster: Cluster, pod: PodStatus): number {
  const found = cluster.pidsOf(pod).find((pid) => Deno.readTextFileSync(`/proc/${pid}/comm`).startsWith("deno"));
  if (found === undefined) throw new Error(`${pod.metadata.name} runs no program`);
  return found;
}

clusterTest(
  "kill: istiod, ztunnel and cni are killed in turn under load, and no byte is wrong, plain or let through (CNI-313)",
  OPTIONS,
  async (cluster) => {
    const [namespace, ...objects] = stage(NAMESPACE);
    await cluster.apply(
      { ...namespace, metadata: { name: NAMESPACE, labels: { "istio.io/dataplane-mode": "ambient" } } },
      deny,
      ...objects,
      ...app(NAMESPACE, "mallory", { node: "node1", container: { args: ["/apps/server.ts"], ...tcpProbe(8080) } }),
    );
    await cluster.untilPods(NAMESPACE, "", 5, isReady, PODS_MS);
    await untilMode(cluster, NAMESPACE, true);
    const pod = async (name: string) => (await cluster.pods(NAMESPACE, `app=${name}`))[0]!;
    const [load, mallory, server] = [await pod("load"), await pod("mallory"), await pod("server")];
    await untilServed(cluster, load, SERVED);
    const url = `http://${server.status.podIP}:8080/question`;
    await until(async () => await ask(cluster, mallory, url) === undefined, "the policy is in force", PODS_MS);
    using netns = ownNetns();
    await using wire = new Wiretap(netns, "wire1", MARKER, PODS);
    const stop = new AbortController();
    let tries = 0, leaks = 0;
    const trying = (async () => {
      for (; !stop.signal.aborted; tries++) {
        if (await ask(cluster, mallory, url) !== undefined) leaks++;
        await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
      }
    })();
    const costs: Cost[] = [], kinds = Object.keys(PARTS) as Part[], kills = amount("kills", IN_TURN);
    const random = sequence(SEED), startedAt = performance.now();
    try {
      for (let at = 0; at < kills; at++) {
        const part = kinds[at < IN_TURN ? at % kinds.length : Math.floor(random() * kinds.length)]!;
        // Who ends another, as a controller does with one istiod too many, may leave none for a moment.
        await cluster.untilPods(SYSTEM, PARTS[part], 1, isReady, BACK_MS);
        const pods = (await cluster.pods(SYSTEM, PARTS[part])).filter(isReady);
        const victim = at < IN_TURN ? Math.floor(at / kinds.length) % pods.length : Math.floor(random() * pods.length);
        costs.push(await killOne(cluster, part, pods[victim]!, load));
      }
    } finally {
      stop.abort();
      await trying;
      const minutes = ((performance.now() - startedAt) / 60_000).toFixed(1);
      report(`${costs.length} of ${kills} kills in ${minutes} minutes, seed ${SEED}:`);
      for (const line of costTable(costs)) report(line);
    }
    report(`whom a policy denies was let through ${leaks} of ${tries} times`);
    assertEquals(leaks, 0, "a policy leak");
    assertEquals(
      (await wire.seen()).filter(({ markers }) => markers > 0),
      [],
      "plain text on the wire",
    );
    assertEquals(wire.droppedCount, 0);
    assertEquals(costs.filter((it) => it.part !== "ztunnel" && it.failed > 0), [], "only a ztunnel carries anything");
  },
);
