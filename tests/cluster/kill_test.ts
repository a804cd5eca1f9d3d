import { assertEquals } from "@std/assert";
import { Wiretap } from "../../demo/lab/wiretap.ts";
import { ownNetns } from "../../os/netns.ts";
import { until } from "../kube/until.ts";
import { amount, type Cluster, clusterTest, isReady, type PodStatus, report, SYSTEM } from "./rig.ts";
import { app, ask, lanesOf, stage, tcpProbe, untilMode, untilServed } from "./stage.ts";

const NAMESPACE = "kill", OPTIONS = { namespaces: [NAMESPACE] };
const PODS = /^10\.244\./, MARKER = "ambit-plain-";
const PODS_MS = 90_000, BACK_MS = 90_000, SERVED = 5;
const LOOK_MS = 100;
const PARTS = { istiod: "app=istiod", ztunnel: "app=ztunnel", cni: "k8s-app=istio-cni-node" } as const;
type Part = keyof typeof PARTS;

/** What a kill cost: requests that failed, and how long after it the last of them did. */
interface Cost {
  readonly part: Part;
  readonly failed: number;
  readonly asked: number;
  readonly lastMs: number;
  readonly lanes: number;
}

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
  await cluster.untilPods(
    SYSTEM,
    PARTS[part],
    1,
    (it) => it.metadata.name === name && isReady(it) && (it.status.containerStatuses?.[0]?.restartCount ?? 0) > before,
    BACK_MS,
  );
  await untilServed(cluster, load, SERVED, BACK_MS);
  const lanes = await lanesOf(cluster, load), failures = lanes.flatMap((it) => it.failures);
  assertEquals(lanes.filter(({ wrong }) => wrong > 0), [], "a wrong byte");
  return {
    part,
    failed: failures.length,
    asked: lanes.reduce((sum, it) => sum + it.asked, 0),
    lastMs: Math.max(0, ...failures.map((it) => it.atMs - atMs)),
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
    const costs: Cost[] = [], kinds = Object.keys(PARTS) as Part[], kills = amount("kills", 9);
    for (let at = 0; at < kills; at++) {
      // In turn at first, so that each is killed on each node; then as it falls.
      const part = at < 9 ? kinds[at % kinds.length]! : kinds[Math.floor(Math.random() * kinds.length)]!;
      const pods = (await cluster.pods(SYSTEM, PARTS[part])).filter(isReady);
      const victim =
        pods[at < 9 ? Math.floor(at / kinds.length) % pods.length : Math.floor(Math.random() * pods.length)]!;
      costs.push(await killOne(cluster, part, victim, load));
    }
    stop.abort();
    await trying;
    for (const part of kinds) {
      const own = costs.filter((it) => it.part === part),
        sum = (of: (cost: Cost) => number) => own.reduce((all, it) => all + of(it), 0);
      report(
        `${part} killed ${own.length} times: ${sum((it) => it.failed)} of ${
          sum((it) => it.asked)
        } requests failed, the last ${Math.max(0, ...own.map((it) => it.lastMs))} ms after a kill at most`,
      );
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
