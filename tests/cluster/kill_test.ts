import { assertEquals } from "@std/assert";
import { Wiretap } from "../../demo/lab/wiretap.ts";
import { ownNetns } from "../../os/netns.ts";
import { until } from "../kube/until.ts";
import { beyondBound, type Cost, costTable, lastMs, type Part, sequence, worstTable } from "./kill_costs.ts";
import { BACK_MS, killOne, PARTS } from "./kill_one.ts";
import { storyOf } from "./kill_story.ts";
import { amount, clusterTest, isAsked, isReady, report, SYSTEM, ZTUNNEL } from "./rig.ts";
import { app, ask, stage, tcpProbe, untilMode, untilServed } from "./stage.ts";

const NAMESPACE = "kill", OPTIONS = { namespaces: [NAMESPACE] };
const PODS = /^10\.244\./, MARKER = "ambit-plain-";
const PODS_MS = 90_000, SERVED = 5, ROLLOUT = "180s";
const LOOK_MS = 100;
/** How many of the worst kills are told of; and from when on what was said around one is. */
const WORST = 5, LONG_MS = 4_000;
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

clusterTest(
  "kill: istiod, ztunnel and cni are killed in turn under load, and no byte is wrong, plain or let through (CNI-313)",
  OPTIONS,
  async (cluster) => {
    if (isAsked("supervised")) {
      await cluster.kubectl(["set", "env", ZTUNNEL, "-n", SYSTEM, "AMBIT_SUPERVISED=true"]);
      await cluster.kubectl(["rollout", "status", ZTUNNEL, "-n", SYSTEM, `--timeout=${ROLLOUT}`]);
    }
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
    const seed = amount("seed", 1), random = sequence(seed), startedAt = performance.now();
    try {
      for (let at = 0; at < kills; at++) {
        const part = kinds[at < IN_TURN ? at % kinds.length : Math.floor(random() * kinds.length)]!;
        // Who ends another, as a controller does with one istiod too many, may leave none for a moment.
        await cluster.untilPods(SYSTEM, PARTS[part], 1, isReady, BACK_MS);
        const pods = (await cluster.pods(SYSTEM, PARTS[part])).filter(isReady);
        const victim = at < IN_TURN ? Math.floor(at / kinds.length) % pods.length : Math.floor(random() * pods.length);
        const cost = await killOne(cluster, part, pods[victim]!, load);
        costs.push(cost);
        if (beyondBound(cost).length > 0 || lastMs(cost) > LONG_MS) {
          for (const line of await storyOf(cluster, pods[victim]!, cost.killedAtMs)) report(line);
        }
      }
    } finally {
      stop.abort();
      await trying;
      const minutes = ((performance.now() - startedAt) / 60_000).toFixed(1);
      report(`${costs.length} of ${kills} kills in ${minutes} minutes, seed ${seed}:`);
      for (const line of [...costTable(costs), "", ...worstTable(costs, WORST)]) report(line);
    }
    report(`whom a policy denies was let through ${leaks} of ${tries} times`);
    assertEquals(leaks, 0, "a policy leak");
    assertEquals(
      (await wire.seen()).filter(({ markers }) => markers > 0),
      [],
      "plain text on the wire",
    );
    assertEquals(wire.droppedCount, 0);
    assertEquals(costs.flatMap((it) => beyondBound(it)), [], "a kill cost more than it may");
  },
);
