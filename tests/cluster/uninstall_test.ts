import { assertEquals } from "@std/assert";
import { refusedCalls, rightsOf, unusedRights } from "../kube/rights.ts";
import { until } from "../kube/until.ts";
import { nodeState } from "./node_state.ts";
import { clusterTest, MANIFESTS, report, SYSTEM } from "./rig.ts";

const GONE_MS = 60_000;
const ACCOUNT = `system:serviceaccount:${SYSTEM}:`;

clusterTest(
  "rights: the API server has refused nothing to the mesh's accounts (CNI-055)",
  { always: true },
  async (cluster) => {
    const calls = await cluster.calls(), ours = calls.filter(({ user }) => user.startsWith(ACCOUNT));
    assertEquals(refusedCalls(ours.filter(({ allowed }) => !allowed)), []);
    for (const { metadata: { name } } of await cluster.pods(SYSTEM)) {
      const log = await cluster.kubectl(["logs", "-n", SYSTEM, name]);
      assertEquals(log.split("\n").filter((line) => /forbidden|\b403\b/i.test(line)), [], name);
    }
  },
);

clusterTest(
  "uninstall: kubectl delete -k leaves both nodes as they were (CNI-046, CNI-047)",
  { always: true },
  async (cluster) => {
    const startedAt = performance.now();
    await cluster.kubectl(["delete", "-k", MANIFESTS, "--wait", "--timeout=120s"]);
    report(`gone ${((performance.now() - startedAt) / 1_000).toFixed(1)} s after kubectl delete`);
    const before = JSON.parse(await Deno.readTextFile(`${cluster.folder}/before.json`));
    for (const [at, node] of cluster.nodes.entries()) {
      let after: unknown;
      const settled = async () => JSON.stringify(after = await nodeState(cluster, node)) === JSON.stringify(before[at]);
      await until(settled, `${node.name} is as it was`, GONE_MS).catch(() =>
        assertEquals(after, before[at], node.name)
      );
    }
    const cni = (await cluster.calls()).filter(({ user }) => user === `${ACCOUNT}istio-cni`);
    const unused = unusedRights(rightsOf(await Deno.readTextFile(`${MANIFESTS}/cni.yaml`)), cni);
    report(`rights that cni has not used: ${unused.join(", ") || "none"}`);
  },
);
