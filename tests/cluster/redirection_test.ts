import { assert, assertEquals } from "@std/assert";
import { type Direction, isHbone, Wiretap } from "../../demo/lab/wiretap.ts";
import { ownNetns } from "../../os/netns.ts";
import { until } from "../kube/until.ts";
import { MEANS, meansAsked, meansChosen, redirectBy } from "./means.ts";
import { differences, meant, statesOf, untilAsBefore, untilIn } from "./pod_state.ts";
import { type Cluster, clusterTest, isReady, type PodStatus, report } from "./rig.ts";
import { app, ask, connectAnew, countOf, lanesOf, setMode, stage, untilServedAgain } from "./stage.ts";
import type { BackendName } from "../../cni/redirection/redirection.ts";
import { seconds } from "./installation.ts";

const NAMESPACE = "redirection", OPTIONS = { namespaces: [NAMESPACE] };
const PODS = /^10\.244\./, MARKER = "ambit-plain-";
const PODS_MS = 120_000, SETTLE_MS = 30_000;
/** The kubelet's, one a second. */
const PROBES = 2;
const SERVED = 5, CHARS = 80; // answers of every lane; of an error
/** Of a change to rules under load: 0 as a rule, and 2 were seen on a busy machine. A lane may lose one at each end. */
const SWITCH_FAILURES_MAX = 8;
/** Towards eBPF each pod is without ztunnel for a moment; two pods, at most so long from the first request that fails to the last. */
const SWITCH_MS_MAX = 5_000;

const strict = {
  apiVersion: "security.istio.io/v1",
  kind: "PeerAuthentication",
  metadata: { name: "strict", namespace: NAMESPACE },
  spec: { mtls: { mode: "STRICT" } },
};

const probe = { httpGet: { path: "/", port: 8080 }, periodSeconds: 1, timeoutSeconds: 3 };

interface Stage {
  /** Those that are in the mesh where their namespace is. */
  readonly pods: readonly PodStatus[];
  /** Asks the server by HTTP and gRPC, over kept connections and new ones, by its name. */
  readonly load: PodStatus;
  readonly outsider: PodStatus;
  readonly server: PodStatus;
}

async function setUp(cluster: Cluster): Promise<Stage> {
  const container = { args: ["/apps/server.ts"], readinessProbe: probe };
  const asking = { args: ["/apps/load.ts"], env: [{ name: "PROTOCOLS", value: "http,grpc" }] };
  await cluster.apply(
    stage(NAMESPACE)[0]!,
    strict, // It says nothing to pods that are out of the mesh.
    ...app(NAMESPACE, "server", { node: "node2", container, ports: [8080, 9090] }),
    ...app(NAMESPACE, "load", { node: "node1", container: asking }),
    ...app(NAMESPACE, "outsider", { node: "node1", container, labels: { "istio.io/dataplane-mode": "none" } }),
  );
  await cluster.untilPods(NAMESPACE, "", 3, isReady, PODS_MS);
  const pods = await cluster.pods(NAMESPACE), named = (name: string) => pods.find((it) => it.metadata.name === name)!;
  return { pods: meant(pods), load: named("load"), outsider: named("outsider"), server: named("server") };
}

/** What holds of pods of the mesh, however they came to be redirected. */
class Checks {
  readonly #cluster: Cluster;
  readonly #stage: Stage;
  readonly #wire: Wiretap;

  constructor(cluster: Cluster, stage: Stage, wire: Wiretap) {
    this.#cluster = cluster;
    this.#stage = stage;
    this.#wire = wire;
  }

  /** What the server answers to somebody who speaks no HBONE. */
  async outsideServed(): Promise<boolean> {
    const { outsider, server } = this.#stage, url = `http://${server.status.podIP}:8080/${MARKER}outside`;
    return (await ask(this.#cluster, outsider, url))?.startsWith(MARKER) ?? false;
  }

  /** Waits until every lane has been served some times more. */
  served(): Promise<void> {
    return untilServedAgain(this.#cluster, this.#stage.load, SERVED);
  }

  /** Waits until all goes by tunnels. What was opened before the pods came into the mesh may go on past it: it is closed. */
  async settled(what: string): Promise<void> {
    await connectAnew(this.#cluster, this.#stage.load);
    let plain: readonly Direction[] = [];
    const tunnelled = async () => {
      await this.#wire.clear();
      await this.served();
      return (plain = (await this.#wire.seen()).filter(({ markers }) => markers > 0)).length === 0;
    };
    await until(tunnelled, `${what}: all goes by tunnels`, SETTLE_MS).catch((error) => {
      throw new Error(`${error.message}: ${plain.map((it) => JSON.stringify(it)).join("; ")}`);
    });
    await this.#wire.clear();
  }

  /** Nothing has been plain on the wire since it was cleared. Who is outside was refused before a byte of its question left. */
  async nothingPlain(what: string): Promise<void> {
    const seen = (await this.#wire.seen()).filter((it) => it.bytes > 0);
    assertEquals(seen.filter(({ markers }) => markers > 0), [], `${what}: plain text on the wire`);
    assert(seen.some((it) => isHbone(it)), `${what}: no tunnel crossed the wire`);
  }

  /** STRICT keeps plain text out and lets the kubelet's probes in. */
  async strict(what: string): Promise<void> {
    const probes = async () => Number(await ask(this.#cluster, this.#stage.server, "http://127.0.0.1:8080/probes"));
    assert(!await this.outsideServed(), `${what}: plain text was let in`);
    const before = await probes();
    await until(async () => await probes() >= before + PROBES, `${what}: the kubelet's probes pass STRICT`, SETTLE_MS);
  }
}

/** Another means while the pods are in the mesh and asked without a pause. @returns What the pods are made of then. */
async function switchTo(means: BackendName, cluster: Cluster, { pods, load }: Stage, checks: Checks, wire: Wiretap) {
  await lanesOf(cluster, load, true);
  await wire.clear();
  await redirectBy(cluster, means);
  await checks.served();
  await checks.nothingPlain(`to ${means}`);
  await checks.strict(`to ${means}`);
  const lanes = await lanesOf(cluster, load), failures = lanes.flatMap((it) => it.failures);
  assertEquals(lanes.filter(({ wrong }) => wrong > 0), [], `to ${means}: a wrong byte`);
  const asked = lanes.reduce((sum, it) => sum + it.asked, 0);
  const times = failures.map(({ atMs, tookMs }) => atMs - tookMs),
    spanMs = failures.length === 0 ? 0 : Math.max(...times) - Math.min(...times);
  report(`to ${means}, in the mesh: ${failures.length} of ${asked} requests failed, asked within ${spanMs} ms`);
  for (
    const [line, count] of countOf(
      failures.map(({ error, open }) => `${open ? "open" : "new"}: ${error.slice(0, CHARS)}`),
    )
  ) {
    report(`  ${count} × ${line}`);
  }
  if (means === "bpf") assert(spanMs <= SWITCH_MS_MAX, `to bpf: requests failed for ${spanMs} ms`);
  else assert(failures.length <= SWITCH_FAILURES_MAX, `to ${means}: ${failures.length} requests failed`);
  return await statesOf(cluster, pods);
}

clusterTest(
  "redirection: by every means a label is obeyed in and out, STRICT keeps plain text out and lets probes in, and nothing of it stays in a pod; pods of the mesh go from one means to the next (CNI-020, CNI-083, CNI-139, CNI-144)",
  OPTIONS,
  async (cluster) => {
    const stage = await setUp(cluster), { pods } = stage, asked = meansAsked();
    const before = await statesOf(cluster, pods);
    using netns = ownNetns();
    await using wire = new Wiretap(netns, "wire1", MARKER, PODS);
    const checks = new Checks(cluster, stage, wire);
    const enter = async (what: string) => {
      await setMode(cluster, NAMESPACE, "ambient");
      await untilIn(cluster, NAMESPACE, true, SETTLE_MS);
      // The client's proxy is told of the server's mesh, and the server's of STRICT.
      await until(async () => !await checks.outsideServed(), `${what}: STRICT is in force`, SETTLE_MS);
      await checks.settled(what);
    };
    const leave = async (what: string) => {
      await setMode(cluster, NAMESPACE, undefined);
      await untilIn(cluster, NAMESPACE, false, SETTLE_MS);
      await untilAsBefore(cluster, pods, before);
      await until(() => checks.outsideServed(), `${what}: everybody is served again`, SETTLE_MS);
    };
    assert(await checks.outsideServed(), "out of the mesh everybody is served");
    await enter("at first");
    for (const means of MEANS) {
      if (asked !== undefined && asked !== means) continue;
      const startedAt = performance.now();
      const switched = asked === undefined ? await switchTo(means, cluster, stage, checks, wire) : undefined;
      for (const [node, { backend }] of await meansChosen(cluster)) assertEquals(backend, means, node);
      await leave(means);
      await enter(means);
      const fresh = await statesOf(cluster, pods);
      for (const [name, state] of fresh) {
        const made = differences(name, before.get(name)!, state);
        assert(
          made.some((it) => it.includes(MADE[means]!)),
          `${means}: ${name} is not redirected by it: ${made.join("\n")}`,
        );
        const others = switched === undefined ? [] : differences(name, state, switched.get(name)!);
        assertEquals(others, [], `${means}: who came by a switch is made of other things than who is new`);
      }
      if (switched === undefined) { // Else it is what was checked already.
        await checks.served();
        await checks.nothingPlain(means);
        await checks.strict(means);
      }
      report(`${means}: taken up, out, nothing left, in, STRICT, in ${seconds(startedAt)}`);
    }
    await leave("at last");
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
