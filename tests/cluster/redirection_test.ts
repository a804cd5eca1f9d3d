import { assert, assertEquals } from "@std/assert";
import { isHbone, Wiretap } from "../../demo/lab/wiretap.ts";
import { ownNetns } from "../../os/netns.ts";
import { until } from "../kube/until.ts";
import { MEANS, meansAsked, meansChosen, redirectBy } from "./means.ts";
import { differences, meant, statesOf, untilAsBefore, untilIn } from "./pod_state.ts";
import { type Cluster, clusterTest, isReady, type PodStatus, report } from "./rig.ts";
import { app, ask, setMode, stage } from "./stage.ts";

const NAMESPACE = "redirection", OPTIONS = { namespaces: [NAMESPACE] };
const PODS = /^10\.244\./, MARKER = "ambit-plain-";
const PODS_MS = 120_000, SETTLE_MS = 30_000;
/** The kubelet's, one a second. */
const PROBES = 2;

const strict = {
  apiVersion: "security.istio.io/v1",
  kind: "PeerAuthentication",
  metadata: { name: "strict", namespace: NAMESPACE },
  spec: { mtls: { mode: "STRICT" } },
};

const probe = { httpGet: { path: "/", port: 8080 }, periodSeconds: 1, timeoutSeconds: 3 };

interface Stage {
  readonly pods: readonly PodStatus[];
  readonly client: PodStatus;
  readonly outsider: PodStatus;
  readonly server: PodStatus;
}

async function setUp(cluster: Cluster): Promise<Stage> {
  const container = { args: ["/apps/server.ts"], readinessProbe: probe };
  await cluster.apply(
    stage(NAMESPACE)[0]!,
    strict, // It says nothing to pods that are out of the mesh.
    ...app(NAMESPACE, "server", { node: "node2", container }),
    ...app(NAMESPACE, "client", { node: "node1", container }),
    ...app(NAMESPACE, "outsider", { node: "node1", container, labels: { "istio.io/dataplane-mode": "none" } }),
  );
  await cluster.untilPods(NAMESPACE, "", 3, isReady, PODS_MS);
  const pods = await cluster.pods(NAMESPACE), named = (name: string) => pods.find((it) => it.metadata.name === name)!;
  return { pods: meant(pods), client: named("client"), outsider: named("outsider"), server: named("server") };
}

clusterTest(
  "redirection: by every means a label is obeyed in and out, STRICT keeps plain text out and lets probes in, and nothing of it stays in a pod (CNI-020, CNI-083, CNI-139)",
  OPTIONS,
  async (cluster) => {
    const { pods, client, outsider, server } = await setUp(cluster);
    const url = `http://${server.status.podIP}:8080/`, asked = meansAsked();
    const served = async (pod: PodStatus) => (await ask(cluster, pod, `${url}${MARKER}1`))?.startsWith(MARKER) ?? false;
    const probes = async () => Number(await ask(cluster, server, "http://127.0.0.1:8080/probes"));
    const before = await statesOf(cluster, pods);
    using netns = ownNetns();
    await using wire = new Wiretap(netns, "wire1", MARKER, PODS);
    for (const means of MEANS) {
      if (asked !== undefined && asked !== means) continue;
      const startedAt = performance.now();
      if (asked === undefined) await redirectBy(cluster, means);
      else for (const [node, { backend }] of await meansChosen(cluster)) assertEquals(backend, means, node);
      assert(await served(client) && await served(outsider), `${means}: out of the mesh everybody is served`);
      await setMode(cluster, NAMESPACE, "ambient");
      await untilIn(cluster, NAMESPACE, true, SETTLE_MS);
      for (const [name, after] of await statesOf(cluster, pods)) {
        const made = differences(name, before.get(name)!, after);
        assert(
          made.some((it) => it.includes(MADE[means]!)),
          `${means}: ${name} is not redirected by it: ${made.join("\n")}`,
        );
      }
      // The client's proxy is told of the server's mesh, and the server's of STRICT.
      await until(async () => await served(client), `${means}: the client is served`, SETTLE_MS);
      await until(async () => !await served(outsider), `${means}: STRICT is in force`, SETTLE_MS);
      await wire.clear();
      assert(await served(client), `${means}: who is in the mesh is served`);
      const seen = (await wire.seen()).filter((it) => it.bytes > 0);
      assertEquals(seen.filter(({ markers }) => markers > 0), [], `${means}: plain text on the wire`);
      assert(seen.some((it) => isHbone(it)), `${means}: no tunnel crossed the wire`);
      assert(!await served(outsider), `${means}: plain text was let in`);
      const probed = await probes();
      await until(
        async () => await probes() >= probed + PROBES,
        `${means}: the kubelet's probes pass STRICT`,
        SETTLE_MS,
      );
      await setMode(cluster, NAMESPACE, undefined);
      await untilIn(cluster, NAMESPACE, false, SETTLE_MS);
      await untilAsBefore(cluster, pods, before);
      await until(async () => await served(outsider), `${means}: everybody is served again`, SETTLE_MS);
      report(`${means}: in, STRICT, out, nothing left, in ${((performance.now() - startedAt) / 1_000).toFixed(1)} s`);
    }
    assertEquals(wire.droppedCount, 0);
  },
);

/** In what of a pod's state each is seen. */
const MADE: Readonly<Record<string, string>> = {
  "nft": ", nf_tables: ",
  "nft-binary": ", nf_tables: ",
  "iptables-nft": ", nf_tables: ",
  "iptables-legacy": ", iptables-legacy: ",
  "bpf": ", eBPF: ",
};
