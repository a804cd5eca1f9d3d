import { assert, assertEquals } from "@std/assert";
import { rightsOf, unusedRights } from "../kube/rights.ts";
import { ambit, assertRights, seconds, untilNodesAsBefore } from "./installation.ts";
import { statesOf, untilAsBefore } from "./pod_state.ts";
import { clusterTest, isEnrolled, isReady, MANIFESTS, report, SYSTEM } from "./rig.ts";
import { app, ask, setMode, stage, tcpProbe, untilMode } from "./stage.ts";

const CNI = `system:serviceaccount:${SYSTEM}:istio-cni`;
const NAMESPACE = "left-behind", PODS_MS = 90_000;

clusterTest(
  "rights: the API server has refused nothing to the mesh's accounts (CNI-055)",
  { always: true },
  assertRights,
);

clusterTest(
  "uninstall: ambit uninstall --unmesh-pods --purge takes pods out of the mesh that run on, and leaves both nodes as they were (CNI-046, CNI-047, CNI-050)",
  { always: true, namespaces: [NAMESPACE] },
  async (cluster) => {
    const container = { args: ["/apps/server.ts"], ...tcpProbe(8080) };
    await cluster.apply(
      stage(NAMESPACE)[0]!,
      ...app(NAMESPACE, "client", { node: "node1", container }),
      ...app(NAMESPACE, "server", { node: "node2", container }),
    );
    await cluster.untilPods(NAMESPACE, "", 2, isReady, PODS_MS);
    const pods = await cluster.pods(NAMESPACE), before = await statesOf(cluster, pods);
    await setMode(cluster, NAMESPACE, "ambient");
    await untilMode(cluster, NAMESPACE, true);
    const startedAt = performance.now();
    const said = await ambit("uninstall", "--unmesh-pods", "--purge");
    assert(said.includes("the mesh is uninstalled"), said);
    report(`gone after ${seconds(startedAt)}`);
    const after = await cluster.pods(NAMESPACE);
    assertEquals(
      after.map(({ metadata }) => metadata.uid),
      pods.map(({ metadata }) => metadata.uid),
      "the pods run on",
    );
    assertEquals(after.filter(isEnrolled), [], "the annotation is gone");
    await untilAsBefore(cluster, pods, before);
    const [client, server] = pods;
    assert(await ask(cluster, client!, `http://${server!.status.podIP}:8080/x`) !== undefined, "they reach each other");
    const left = await cluster.kubectl(["get", "configmaps,namespaces", "-A", "-o", "name"]);
    assertEquals(left.split("\n").filter((it) => it.includes("istio-ca-root-cert") || it.endsWith(`/${SYSTEM}`)), []);
    await cluster.remove(NAMESPACE);
    await untilNodesAsBefore(cluster);
    const cni = (await cluster.calls()).filter(({ user }) => user === CNI);
    const unused = unusedRights(rightsOf(await Deno.readTextFile(`${MANIFESTS}/cni.yaml`)), cni);
    report(`rights that cni has not used: ${unused.join(", ") || "none"}`);
  },
);
