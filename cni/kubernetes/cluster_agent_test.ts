/** The node agent against an API server, a node and a ztunnel in memory; its sockets and files are real. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { MeshError } from "../../base/errors.ts";
import { Logger } from "../../base/log.ts";
import { KubeError } from "../../kube/api.ts";
import { EVENTS, NAMESPACES, PODS } from "../../kube/resource_types.ts";
import { InMemoryKubeApi } from "../../kube/testing.ts";
import { decodeZdsRequest, encodeZdsAcknowledgement, encodeZdsHello } from "../../mesh/proto/zds_codec.ts";
import { closeDescriptor, SeqpacketSocket } from "../../os/seqpacket.ts";
import type { Netns } from "../../os/netns.ts";
import { DEFAULT_SELECTORS } from "../enablement.ts";
import { SocketAgent } from "../plugin/agent.ts";
import { encodeEvent } from "../plugin_event.ts";
import { type RunningAgent, startAgent } from "./agent.ts";
import { ensureHostRules } from "./host_audit.ts";
import { NodeMetrics } from "./node_metrics.ts";
import { FakeNode } from "./node_testing.ts";

const AMBIENT = { "istio.io/dataplane-mode": "ambient" }, REDIRECTION = "ambient.istio.io/redirection";

/** Acknowledges everything, and listens in what it is told of. */
class Ztunnel implements AsyncDisposable {
  readonly #socket: SeqpacketSocket;
  readonly #reading: Promise<void>;
  readonly told: string[] = [];

  constructor(path: string, node: FakeNode, refuse: (uid: string) => boolean = () => false) {
    this.#socket = SeqpacketSocket.connect(path);
    this.#reading = this.#run(node, refuse);
  }

  async #run(node: FakeNode, refuse: (uid: string) => boolean): Promise<void> {
    await this.#socket.send(encodeZdsHello({ version: 1 }));
    for (let packet = await this.#socket.receive(1024); typeof packet !== "string";) {
      closeDescriptor(packet.descriptor);
      const request = decodeZdsRequest(packet.bytes), uid = "uid" in request ? request.uid : "";
      this.told.push(`${request.kind} ${uid}`.trim());
      const error = request.kind === "add" && refuse(uid) ? "address in use" : "";
      const listeners = node.processes.get(uid)?.listeners;
      if (request.kind === "add" && error === "") [15001, 15006, 15008].forEach((port) => listeners?.add(port));
      if (request.kind === "delete") listeners?.clear();
      if (!await this.#socket.send(encodeZdsAcknowledgement({ error }))) break;
      packet = await this.#socket.receive(1024);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#socket.close();
    await this.#reading;
  }
}

/** A node `n1` whose agent is started and stopped; API server, node and folder outlive it. */
class Cluster implements AsyncDisposable {
  readonly api = new InMemoryKubeApi();
  readonly node = new FakeNode();
  readonly runDir = Deno.makeTempDirSync();
  metrics = new NodeMetrics({
    ztunnels: () => this.agent?.ztunnels() ?? 0,
    pods: () => this.agent?.pods.counts() ?? { enrolled: 0, pending: 0, failed: 0 },
    installReady: () => true,
    kubeconfigExpiresS: () => 3_600,
    backend: () => ({ wanted: "auto", used: "nft", reason: "x" }),
  });
  agent: RunningAgent | undefined;
  readonly lines: string[] = [];
  #stop = new AbortController();

  get zds(): string {
    return `${this.runDir}/zds.sock`;
  }

  async start(hostNetns?: Netns): Promise<void> {
    this.#stop = new AbortController();
    this.agent = await startAgent({
      nodeName: "n1",
      systemNamespace: "istio-system",
      enablement: { selectors: DEFAULT_SELECTORS, excludedNamespaces: ["kube-system"] },
      rules: {},
      redirection: this.node.redirection,
      runDir: this.runDir,
      zdsSocket: this.zds,
      procDir: "/proc",
      hostRoot: "",
      hostNetns,
      auditIntervalMs: 3_600_000,
    }, {
      api: this.api,
      metrics: this.metrics,
      signal: this.#stop.signal,
      log: new Logger("agent", { json: true, sink: (line) => void this.lines.push(line) }),
      node: this.node,
    });
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    await this.agent?.done;
    this.agent = undefined;
  }

  namespace(name: string, labels: Record<string, string> = {}): void {
    this.api.put(NAMESPACES, { metadata: { name, labels } });
  }

  /** A pod that runs, in a namespace of its own. */
  pod(name: string, { namespace = "shop", annotations = {}, nodeName = "n1", ip = "10.0.0.2", inode = 1 } = {}): void {
    const uid = `uid-${name}`;
    this.api.put(PODS, { metadata: { name, namespace, uid, annotations }, spec: { nodeName }, status: { podIP: ip } });
    this.node.place(uid, inode);
  }

  annotation(name: string, namespace = "shop"): unknown {
    return (this.api.object(PODS, namespace, name)?.metadata.annotations as Record<string, unknown> | undefined)
      ?.[REDIRECTION];
  }

  events(): string[] {
    return this.api.objects(EVENTS).map(({ reason, involvedObject }) =>
      `${(involvedObject as { name: string }).name} ${reason}`
    ).sort();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
    Deno.removeSync(this.runDir, { recursive: true });
  }
}

async function until(claim: string, condition: () => boolean): Promise<void> {
  const deadline = performance.now() + 60_000;
  while (!condition()) {
    assert(performance.now() < deadline, claim);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

Deno.test("the agent enrols the running pods of its own node, says so to all who ask, and lets them go (CNI-072, CNI-075, CNI-082, CNI-083, CNI-096, CNI-254, CNI-290, CNI-293)", async () => {
  await using cluster = new Cluster();
  cluster.namespace("shop");
  cluster.namespace("kube-system", AMBIENT);
  cluster.pod("web", {});
  cluster.pod("elsewhere", { nodeName: "n2", ip: "10.0.0.3", inode: 2 });
  cluster.pod("dns", { namespace: "kube-system", ip: "10.0.0.4", inode: 3 });
  await cluster.start();
  await using ztunnel = new Ztunnel(cluster.zds, cluster.node);
  await until("ztunnel has its snapshot", () => ztunnel.told.length === 1);
  cluster.namespace("shop", AMBIENT);
  await until("the pod is enrolled", () => cluster.annotation("web") === "enabled");
  assertEquals([cluster.annotation("elsewhere"), cluster.annotation("dns", "kube-system")], [undefined, undefined]);
  const patches = cluster.api.calls.filter(({ verb, type }) => verb === "patch" && type === PODS);
  assertEquals(patches.map(({ name, subresource }) => `${name} ${subresource}`), ["web status"]);
  await until("the event is written", () => cluster.events().length === 1);
  const event = cluster.api.objects(EVENTS)[0]!;
  assertEquals([event.reason, event.type, event.reportingComponent], ["AmbientEnrolled", "Normal", "istio-cni"]);
  assertEquals((event.involvedObject as { uid: string }).uid, "uid-web");
  const rendered = cluster.metrics.render();
  for (
    const line of [
      "ztunnel_connected 1",
      'istio_cni_enrolled_pods{state="enrolled"} 1',
      'istio_cni_enrolled_pods{state="failed"} 0',
      'nodeagent_reconcile_events_total{type="add"} 2',
      'istio_cni_enrol_seconds_count{path="informer",result="success"} 1',
      'istio_cni_backend{wanted="auto",used="nft",reason="x"} 1',
      "istio_cni_install_ready 1",
      "istio_cni_kubeconfig_expiry_seconds 3600",
    ]
  ) assert(rendered.includes(`${line}\n`), `${line} is missing in\n${rendered}`);
  assertEquals(cluster.agent!.pods.status().map(({ pod, state, netnsInode }) => [pod, state, netnsInode]), [
    ["shop/web", "enrolled", 1],
  ]);
  cluster.namespace("shop");
  await until("the pod has left", () => cluster.annotation("web") === undefined);
  assertEquals([cluster.node.netns(1).rules, cluster.node.probeSet.size], [undefined, 0]);
  assertEquals(ztunnel.told, ["snapshotSent", "add uid-web", "delete uid-web"]);
  await until("that is said too", () => cluster.events().includes("web AmbientUnenrolled"));
  cluster.api.remove(PODS, "shop", "web");
  await until("deletions count", () => cluster.metrics.render().includes('events_total{type="delete"} 1\n'));
});

Deno.test("without ztunnel a running pod waits as pending, said once, and is enrolled when ztunnel comes (CNI-081, CNI-092, CNI-096)", async () => {
  await using cluster = new Cluster();
  cluster.namespace("shop", AMBIENT);
  cluster.pod("web");
  cluster.node.synchronized = false;
  await cluster.start();
  await until("it waits", () => cluster.annotation("web") === "pending");
  assertEquals(cluster.agent!.pods.counts(), { enrolled: 0, pending: 1, failed: 0 });
  cluster.node.watchers.get("host")!();
  assert(/no ztunnel is connected/.test(cluster.agent!.pods.status()[0]!.lastError ?? ""));
  await using _ztunnel = new Ztunnel(cluster.zds, cluster.node);
  await until("it is enrolled", () => cluster.annotation("web") === "enabled");
  await until("both are said", () => cluster.events().length === 2);
  assertEquals(cluster.events(), ["web AmbientEnrollFailed", "web AmbientEnrolled"]);
  assertEquals(cluster.metrics.repairs("probe_set"), 0, "what is not there yet is nothing to repair");
  assertEquals(cluster.agent!.pods.status()[0]!.lastError, undefined);
});

Deno.test("after a boot nothing that annotations say is believed, and all is made anew (CNI-054, CNI-093, CNI-098, CNI-316)", async () => {
  await using cluster = new Cluster();
  cluster.namespace("shop", AMBIENT);
  cluster.pod("web", { annotations: { [REDIRECTION]: "enabled" } });
  cluster.pod("lost", { annotations: { [REDIRECTION]: "enabled" }, ip: "10.0.0.3", inode: 2 });
  cluster.node.processes.delete("uid-lost"); // It has not been started again yet.
  cluster.node.probeSet.set("10.9.9.9", "uid-before");
  await cluster.start();
  assert(cluster.lines.some((line) => line.includes("first start since this node was booted")));
  await using ztunnel = new Ztunnel(cluster.zds, cluster.node);
  await until("what is not there is not called enrolled", () => cluster.annotation("lost") === "pending");
  await until("the other one is", () => ztunnel.told.includes("add uid-web"));
  assertEquals(cluster.node.netns(1).rules, {});
  cluster.node.place("uid-lost", 7);
  await until("it is found", () => cluster.annotation("lost") === "enabled");
  assertEquals([...cluster.node.probeSet.keys()].sort(), ["10.0.0.2", "10.0.0.3"]);
  await cluster.stop();
  cluster.lines.length = 0;
  await cluster.start();
  assert(!cluster.lines.some((line) => line.includes("booted")), "the same boot");
});

Deno.test("host rules and set are repaired when they are touched, and each repair is counted (CNI-097, CNI-188, CNI-314)", async () => {
  await using cluster = new Cluster();
  cluster.namespace("shop", AMBIENT);
  cluster.pod("web");
  await cluster.start();
  await using _ztunnel = new Ztunnel(cluster.zds, cluster.node);
  await until("it is enrolled", () => cluster.annotation("web") === "enabled");
  const { node, metrics } = cluster, touched = () => node.watchers.get("host")!();
  const harms: readonly (readonly ["host_rules" | "probe_set", () => void])[] = [
    ["host_rules", () => node.hostRules = false],
    ["probe_set", () => node.probeSet.clear()],
    ["probe_set", () => node.probeSet.set("10.0.0.2", "uid-before")],
    ["probe_set", () => node.probeSet.set("10.9.9.9", "uid-before")],
  ];
  for (const [what, harm] of harms) {
    const before = metrics.repairs(what);
    harm();
    touched();
    await until(`${what} is repaired`, () => metrics.repairs(what) === before + 1);
    assertEquals([node.hostRules, [...node.probeSet]], [true, [["10.0.0.2", "uid-web"]]]);
  }
  node.netns(1).rules = undefined;
  node.watchers.get(1)!();
  await until("the pod's rules are back", () => metrics.repairs("rules") === 1);
  assertEquals(node.netns(1).rules, {});
  await until("which its owner is told", () => cluster.events().includes("web AmbientRepaired"));
});

Deno.test("a pod that ztunnel refuses in its snapshot is announced to it again (CNI-243, CNI-252)", async () => {
  await using cluster = new Cluster();
  cluster.namespace("shop", AMBIENT);
  cluster.pod("web", { annotations: { [REDIRECTION]: "enabled" } });
  await cluster.start();
  let refusals = 1;
  await using ztunnel = new Ztunnel(cluster.zds, cluster.node, () => refusals-- > 0);
  await until("it listens", () => cluster.node.netns(1).listeners.size === 3);
  assertEquals(ztunnel.told, ["add uid-web", "snapshotSent", "delete uid-web", "add uid-web"]);
});

Deno.test("the plugin is answered while the API has no addresses yet, and its folder says what it needs without us (CNI-014, CNI-015, CNI-017, CNI-021)", async () => {
  await using cluster = new Cluster();
  cluster.namespace("shop", AMBIENT);
  cluster.namespace("plain");
  cluster.namespace("kube-system", AMBIENT);
  await cluster.start();
  await using _ztunnel = new Ztunnel(cluster.zds, cluster.node);
  const netns = "/proc/self/ns/net", agent = new SocketAgent(cluster.runDir);
  cluster.api.put(PODS, { metadata: { name: "web", namespace: "shop", uid: "uid-web" }, spec: { nodeName: "n1" } });
  await until("the agent has seen it", () => cluster.metrics.render().includes('type="add"} 1\n'));
  assertEquals(await agent.decide({ namespace: "shop", name: "web", uid: "uid-web" }), "ambient");
  const address = [{ interface: undefined, prefix: "10.0.0.9/24", gateway: "" }];
  assertEquals(
    await agent.enrol(encodeEvent({ netns, name: "web", namespace: "shop", uid: "uid-web" }, address)!),
    undefined,
  );
  assertEquals([cluster.annotation("web"), cluster.node.probeSet.get("10.0.0.9")], ["enabled", "uid-web"]);
  assert(cluster.metrics.render().includes('istio_cni_plugin_requests_total{response_code="200"} 1\n'));
  const file = JSON.parse(Deno.readTextFileSync(`${cluster.runDir}/namespaces.json`));
  assertEquals(file, { version: 1, ambient: ["shop"] });
  cluster.namespace("more", AMBIENT);
  const read = () => JSON.parse(Deno.readTextFileSync(`${cluster.runDir}/namespaces.json`)).ambient.join();
  await until("the file follows", () => read() === "more,shop");
});

Deno.test("an API server that is slow to answer holds the start up; a folder that cannot be written ends it (CNI-018)", async () => {
  await using cluster = new Cluster();
  cluster.api.fail(new KubeError(500, "InternalError", "down"), { times: 2 });
  await cluster.start();
  await cluster.stop();
  Deno.removeSync(`${cluster.runDir}/boot-id`);
  Deno.mkdirSync(`${cluster.runDir}/boot-id`);
  await assertRejects(() => cluster.start(), Error);
});

Deno.test("host rules are tried ten times, and then the node cannot be served (CNI-018, CNI-185)", async () => {
  const log = new Logger("host", { sink: () => {} }),
    options = { signal: new AbortController().signal, log, pauseMs: 0 };
  const failing = (times: number) => {
    let tries = 0;
    const ensure = () => {
      if (tries++ < times) throw new MeshError("AMB0000", "no", { remedy: "" });
    };
    return { ensure, tries: () => tries };
  };
  const late = failing(9);
  await ensureHostRules(late, options);
  const never = failing(99);
  await assertRejects(() => ensureHostRules(never, options), MeshError);
  assertEquals([late.tries(), never.tries()], [10, 10]);
  const stopped = AbortSignal.abort(new Error("stopped"));
  await assertRejects(() => ensureHostRules(failing(99), { ...options, signal: stopped }), Error, "stopped");
});

Deno.test("the host's rules are written and watched in the agent's own namespace, or in the one it was given for the host's (CNI-186)", async () => {
  await using cluster = new Cluster();
  await cluster.start();
  assertEquals([cluster.node.probedIn, [...cluster.node.watchers.keys()]], [undefined, ["host"]]);
  await cluster.stop();
  await cluster.start({ inode: 77 } as Netns);
  assertEquals([cluster.node.probedIn, [...cluster.node.watchers.keys()]], [77, [77]]);
});
