import { assert } from "@std/assert";
import { rememberNodes, untilRunning } from "./installation.ts";
import { PAUSE_IMAGE } from "./layout.ts";
import { meansAsked, writeKustomization } from "./means.ts";
import type { ClusterParts } from "./parts.ts";
import { type Cluster, clusterTest, isReady } from "./rig.ts";

const READY_MS = 120_000;

clusterTest("install: kubectl apply -k, and istiod, ztunnel and cni are ready on every node (CNI-030, CNI-052)", {
  always: true,
}, async (cluster) => {
  const parts = JSON.parse(await Deno.readTextFile(`${cluster.folder}/parts.json`)) as ClusterParts;
  await warmUp(cluster);
  await rememberNodes(cluster);
  for (const set of ["istio", "gateway"] as const) {
    await cluster.kubectl(["apply", "--server-side", "-f", parts.kube.definitions[set]]);
  }
  const startedAt = performance.now(), folder = await writeKustomization(cluster, meansAsked() ?? "auto");
  const printed = await cluster.kubectl(["apply", "--server-side", "-k", folder]);
  assert(!/warning/i.test(printed), printed);
  await untilRunning(cluster, startedAt);
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
