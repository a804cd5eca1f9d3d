import { assert, assertEquals } from "@std/assert";
import { until } from "../kube/until.ts";
import { beyondBound, costTable } from "./kill_costs.ts";
import { killOne, PARTS } from "./kill_one.ts";
import { clusterTest, isReady, type PodStatus, report, SYSTEM, ZTUNNEL } from "./rig.ts";
import { type Lane, lanesOf, stage, untilMode, untilServed } from "./stage.ts";

const NAMESPACE = "upgrade", OPTIONS = { namespaces: [NAMESPACE] };
const LATE_MAX = 3, SYNCHRONIZED = "ztunnel has all pods";
const PODS_MS = 90_000, ROLLOUT = "180s", SERVED = 10;

clusterTest(
  "upgrade: another image for ztunnel, and open connections are taken over from pod to pod; an agent that starts anew then holds their sockets (CNI-313)",
  OPTIONS,
  async (cluster) => {
    const [namespace, ...objects] = stage(NAMESPACE);
    const labels = { "istio.io/dataplane-mode": "ambient" };
    await cluster.apply({ ...namespace, metadata: { name: NAMESPACE, labels } }, ...objects);
    await cluster.untilPods(NAMESPACE, "", 4, isReady, PODS_MS);
    await untilMode(cluster, NAMESPACE, true);
    const [load] = await cluster.pods(NAMESPACE, "app=load");
    await untilServed(cluster, load!, SERVED);
    const [image] = (await cluster.kubectl(["get", "daemonset", "ztunnel", "-n", SYSTEM, "-o", "jsonpath={..image}"]))
      .split(" ");
    const next = `${image}-next`, supervised = [{ name: "AMBIT_SUPERVISED", value: "true" }];
    for (const node of cluster.nodes) await cluster.on(node, "ctr", "-n", "k8s.io", "images", "tag", image!, next);
    await lanesOf(cluster, load!, true);
    const old = (await cluster.pods(SYSTEM, "app=ztunnel")).map((it) => it.metadata.name),
      startedAt = performance.now();
    const container = { name: "istio-proxy", image: next, env: supervised };
    const patch = JSON.stringify({ spec: { template: { spec: { containers: [container] } } } });
    await cluster.kubectl(["patch", ZTUNNEL, "-n", SYSTEM, "--type=strategic", "-p", patch]);
    await cluster.kubectl(["rollout", "status", ZTUNNEL, "-n", SYSTEM, `--timeout=${ROLLOUT}`]);
    const seconds = ((performance.now() - startedAt) / 1_000).toFixed(0);
    await untilServed(cluster, load!, SERVED);
    const pods = await cluster.pods(SYSTEM, "app=ztunnel");
    assertEquals(pods.filter((it) => old.includes(it.metadata.name) && isReady(it)), []);
    let taken = 0;
    for (const pod of pods.filter((it) => !old.includes(it.metadata.name))) {
      const log = await cluster.kubectl(["logs", "-n", SYSTEM, pod.metadata.name]);
      for (const line of log.split("\n").filter((it) => /taken over|takeover/i.test(it))) report(line.slice(28, 260));
      if (log.includes("taken over")) taken++;
      assertEquals(pod.status.containerStatuses?.[0]?.restartCount, 0, `${pod.metadata.name} has restarted`);
    }
    const lanes = await lanesOf(cluster, load!), asked = lanes.reduce((sum, it) => sum + it.asked, 0);
    const kept = lanes.filter(({ name }) => name.startsWith("kept")), others = lanes.filter((it) => !kept.includes(it));
    const failed = (some: readonly Lane[]) =>
      some.flatMap(({ name, failures }) => failures.map((it) => `${name}: ${it.error}`));
    report(`both nodes upgraded in ${seconds} s under ${asked} requests`);
    report(`open connections that broke: ${failed(kept).join("; ") || "none"} of ${kept.length} lanes'`);
    report(`new connections that failed: ${failed(others).join("; ") || "none"}`);
    assertEquals(lanes.filter(({ wrong }) => wrong > 0), []);
    assertEquals(taken, cluster.nodes.length, "each node's successor took over");
    assertEquals(failed(kept), [], "what was open went from one ztunnel to the next");
    // A name that was asked for at the moment of the hand-over may have to be asked for again, after a resolver's 5 s.
    assert(failed(others).length <= LATE_MAX, "new connections fail");
    // Of its predecessor's sockets this agent has seen nothing: ztunnel names them, and who comes in a crash waits.
    const at = (all: readonly PodStatus[]) =>
      all.find(({ spec, metadata }) => spec.nodeName === load!.spec.nodeName && !old.includes(metadata.name))!;
    const agent = at((await cluster.pods(SYSTEM, PARTS.cni)).filter(isReady));
    const costs = [await killOne(cluster, "cni", agent, load!)];
    const holds = async () =>
      (await cluster.kubectl(["logs", "-n", SYSTEM, agent.metadata.name])).includes(SYNCHRONIZED);
    await until(holds, "ztunnel has told the agent of its sockets", PODS_MS);
    costs.push(await killOne(cluster, "ztunnel", at(pods), load!));
    for (const line of costTable(costs)) report(line);
    assertEquals(costs.flatMap(beyondBound), [], "a kill cost more than it may");
  },
);
