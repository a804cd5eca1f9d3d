import { assert, assertEquals } from "@std/assert";
import type { ClusterParts } from "./parts.ts";
import { PAUSE_IMAGE } from "./layout.ts";
import { nodeState } from "./node_state.ts";
import { type Cluster, clusterTest, isReady, MANIFESTS, report, SYSTEM } from "./rig.ts";

const READY_MS = 120_000;

clusterTest("install: kubectl apply -k, and istiod, ztunnel and cni are ready on every node (CNI-030, CNI-052)", {
  always: true,
}, async (cluster) => {
  const parts = JSON.parse(await Deno.readTextFile(`${cluster.folder}/parts.json`)) as ClusterParts;
  await warmUp(cluster);
  const before = await Promise.all(cluster.nodes.map((node) => nodeState(cluster, node)));
  await Deno.writeTextFile(`${cluster.folder}/before.json`, JSON.stringify(before));
  for (const set of ["istio", "gateway"] as const) {
    await cluster.kubectl(["apply", "--server-side", "-f", parts.kube.definitions[set]]);
  }
  const startedAt = performance.now();
  const seconds = () => `${((performance.now() - startedAt) / 1_000).toFixed(1)} s`;
  const printed = await cluster.kubectl(["apply", "--server-side", "-k", MANIFESTS]);
  assert(!/warning/i.test(printed), printed);
  const nodes = cluster.nodes.length;
  const awaited = [["app=istiod", 1], ["app=ztunnel", nodes], ["k8s-app=istio-cni-node", nodes]] as const;
  await Promise.all(awaited.map(async ([selector, count]) => {
    await cluster.untilPods(SYSTEM, selector, count, isReady, READY_MS);
    report(`${selector} ready ${seconds()} after kubectl apply`);
  }));
  for (const { metadata: { name }, status } of await cluster.pods(SYSTEM)) {
    const restarts = status.containerStatuses?.map(({ restartCount }) => restartCount) ?? [];
    assertEquals(restarts.filter((count) => count > 0), [], `${name} has restarted`);
  }
});

/** Has the primary network plugin make what it makes with its first pods and never takes away. */
async function warmUp(cluster: Cluster): Promise<void> {
  await cluster.apply(...cluster.nodes.map(({ name }) => ({
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name: `warm-up-${name}`, namespace: "default", labels: { app: "warm-up" } },
    spec: {
      automountServiceAccountToken: false,
      terminationGracePeriodSeconds: 1,
      nodeSelector: { "kubernetes.io/hostname": name },
      containers: [{ name: "pod", image: PAUSE_IMAGE, ports: [{ containerPort: 80, hostPort: 30999 }] }],
    },
  })));
  await cluster.untilPods("default", "app=warm-up", cluster.nodes.length, isReady, READY_MS);
  await cluster.kubectl(["delete", "pods", "--wait", "--timeout=60s", "-l", "app=warm-up"]);
}
