import { assert, assertEquals, assertRejects } from "@std/assert";
import { MeshError } from "../../base/errors.ts";
import { KubeError, type KubeObject, KubeUnreachable } from "../../kube/api.ts";
import { CONFIG_MAPS, DAEMON_SETS, DEPLOYMENTS, NAMESPACES, PODS } from "../../kube/resource_types.ts";
import { InMemoryKubeApi } from "../../kube/testing.ts";
import { selectingAgain, selectingNothing } from "./agent_selector.ts";
import { applyAll, type ApplyOptions, rolloutOf } from "./apply.ts";
import { placeText, typeOf } from "./kinds.ts";
import { DEFAULT_IMAGE, fitManifests, readManifests } from "./manifests.ts";
import { profileOf, PROFILES } from "./profiles.ts";
import { removalOrder, removeAll } from "./remove.ts";

const AS_SHIPPED = { namespace: "istio-system", image: DEFAULT_IMAGE, profile: {} };

/** A cluster whose controllers do their work while somebody waits. */
class Bench {
  readonly api = new InMemoryKubeApi();
  readonly said: string[] = [];
  #nowMs = 0;
  /** What happens in each second of waiting. */
  tick: () => void = () => {};

  options(waitMs = 10_000): ApplyOptions {
    return {
      waitMs,
      say: (line) => this.said.push(line),
      now: () => this.#nowMs,
      sleep: (ms) => {
        this.#nowMs += ms;
        this.tick();
        return Promise.resolve();
      },
    };
  }

  /** Every workload is what its newest generation asks for. */
  rollOut(): void {
    for (const type of [DEPLOYMENTS, DAEMON_SETS]) {
      for (const object of this.api.objects(type)) {
        const observedGeneration = Number(object.metadata.generation ?? 1);
        const replicas = (object.spec as { replicas?: number }).replicas ?? 1;
        const status = type === DAEMON_SETS
          ? { observedGeneration, desiredNumberScheduled: 2, updatedNumberScheduled: 2, numberReady: 2 }
          : { observedGeneration, updatedReplicas: replicas, readyReplicas: replicas };
        this.api.put(type, { ...object, status });
      }
    }
  }
}

Deno.test("the manifests are objects that the installer knows, and fit another namespace, image and platform (CNI-032)", () => {
  const shipped = readManifests();
  assert(shipped.length >= 15);
  for (const object of shipped) assertEquals(typeOf(object).kind, object.kind);
  assertEquals(fitManifests(shipped, AS_SHIPPED), shipped, "as shipped they fit as they are");
  for (const [name, profile] of Object.entries(PROFILES)) {
    const fitted = fitManifests(shipped, { namespace: "mesh", image: "example/ambit:1", profile });
    const text = JSON.stringify(fitted);
    assertEquals([text.includes("istio-system"), text.includes(DEFAULT_IMAGE), text.includes("example/ambit:1")], [
      false,
      false,
      true,
    ]);
    const agent = fitted.find(({ metadata }) => metadata.name === "istio-cni-node")!;
    const volumes = (agent.spec as { template: { spec: { volumes: { name: string; hostPath?: { path: string } }[] } } })
      .template.spec.volumes;
    const at = (volume: string) => volumes.find((it) => it.name === volume)?.hostPath?.path;
    assertEquals(at("conf"), profile.confDir ?? "/etc/cni/net.d", name);
    assertEquals(at("bin"), profile.binDir ?? "/opt/cni/bin", name);
    assertEquals(at("netns"), profile.netnsDir ?? "/var/run/netns", name);
  }
});

Deno.test("on OpenShift the plugin stands alone for Multus, in a namespace where pods may be privileged (CNI-032, CNI-042)", () => {
  const profile = profileOf("openshift");
  assertEquals(profile.namespace, "kube-system");
  const fitted = fitManifests(readManifests(), { namespace: "kube-system", image: DEFAULT_IMAGE, profile });
  const named = (kind: string, name: string) => fitted.find((it) => it.kind === kind && it.metadata.name === name)!;
  interface Container {
    readonly env: readonly { readonly name: string; readonly value?: string }[];
    readonly securityContext: object;
  }
  const container = (name: string) =>
    (named("DaemonSet", name).spec as { template: { spec: { containers: Container[] } } }).template.spec.containers[0]!;
  const settings = (name: string) => Object.fromEntries(container(name).env.map(({ name, value }) => [name, value]));
  assertEquals(settings("istio-cni-node").CHAINED_CNI_PLUGIN, "false");
  assertEquals(settings("istio-cni-node").CNI_CONF_NAME, "istio-cni.conf");
  assertEquals(settings("ztunnel").CHAINED_CNI_PLUGIN, undefined);
  for (const name of ["istio-cni-node", "ztunnel"]) {
    assertEquals(Reflect.get(container(name).securityContext, "seLinuxOptions"), { type: "spc_t" }, name);
  }
  assertEquals(named("NetworkAttachmentDefinition", "istio-cni").metadata.namespace, "default");
  const { subjects } = named("ClusterRoleBinding", "istio-security-context") as unknown as { subjects: object[] };
  assertEquals(
    subjects,
    ["istio-cni", "ztunnel"].map((name) => ({ kind: "ServiceAccount", name, namespace: "kube-system" })),
  );
  for (const object of fitted) assertEquals(typeOf(object).kind, object.kind);
});

Deno.test("applyAll() applies in order, is safe to repeat, and waits until all of it runs", async () => {
  const bench = new Bench(), objects = readManifests();
  bench.tick = () => bench.rollOut();
  await applyAll(bench.api, objects, bench.options());
  const applied = bench.api.calls.filter(({ verb }) => verb === "apply").map(({ name }) => name);
  assertEquals(applied, objects.map(({ metadata }) => metadata.name));
  assertEquals(applied[0], "istio-system", "the namespace comes before what is in it");
  assertEquals(bench.said.filter((line) => line.startsWith("ready")).length, 3);
  assert(bench.said.some((line) => line.includes("there is no CRD authorizationpolicies.security.istio.io")));
  await applyAll(bench.api, objects, bench.options());
});

Deno.test("applyAll() says what is not ready in time, and what the API server refuses", async () => {
  const bench = new Bench(), objects = readManifests();
  const late = await assertRejects(() => applyAll(bench.api, objects, bench.options(2_000)), MeshError);
  assertEquals(late.code, "AMB7174");
  bench.api.fail(new KubeError(403, "Forbidden", "no"), { verb: "apply" });
  assertEquals((await assertRejects(() => applyAll(bench.api, objects, bench.options()), MeshError)).code, "AMB7173");
  bench.api.fail(new KubeUnreachable("asking api.test"), { verb: "apply" });
  assertEquals((await assertRejects(() => applyAll(bench.api, objects, bench.options()), MeshError)).code, "AMB0295");
  const half = {
    kind: "DaemonSet",
    metadata: { name: "x", generation: 2 },
    spec: {},
    status: {},
  } as unknown as KubeObject;
  assertEquals(rolloutOf(half), "it is not taken up yet");
  const status = { observedGeneration: 2, desiredNumberScheduled: 3, updatedNumberScheduled: 3, numberReady: 1 };
  assertEquals(rolloutOf({ ...half, status }), "1 of 3 ready");
  assertEquals(rolloutOf({ ...half, status: { ...status, numberReady: 3 } }), undefined);
});

Deno.test("removalOrder() lets no webhook refuse the rest, and cleans the nodes before what agents lean on goes (CNI-046, CNI-047)", () => {
  const order = removalOrder(readManifests()).map(placeText);
  const at = (text: string) => order.findIndex((it) => it.startsWith(text));
  const wanted = [
    "validatingwebhookconfiguration/",
    "daemonset/istio-cni-node",
    "daemonset/ztunnel",
    "deployment/istiod",
  ];
  const ranks = wanted.map(at);
  assertEquals(ranks, [...ranks].sort((one, other) => one - other));
  assert(at("deployment/istiod") < at("clusterrole/istio-cni"), "an agent that ends may still read");
  assertEquals(at("namespace/"), -1);
});

Deno.test("applyAll() after an uninstallation that was broken off has the agents select pods again (CNI-050)", async () => {
  const bench = new Bench(), objects = readManifests(), { api } = bench;
  bench.tick = () => bench.rollOut();
  await applyAll(api, objects, bench.options());
  const agent = () => api.object(DAEMON_SETS, "istio-system", "istio-cni-node")!;
  assertEquals(selectingAgain(agent()), undefined);
  api.put(DAEMON_SETS, selectingNothing(agent()));
  assertEquals(
    selectingAgain(agent())?.spec,
    selectingAgain(selectingNothing(agent()))?.spec,
    "said once, however often",
  );
  await applyAll(api, objects, bench.options());
  assertEquals(JSON.stringify(agent()).includes("AMBIENT_ENABLEMENT_SELECTOR"), false);
});

const pod = (name: string, labels: Record<string, string>, annotations = {}) => ({
  metadata: { namespace: "istio-system", name, labels, annotations },
  spec: {},
});

Deno.test("removeAll() with unmeshPods restarts the agents to select nothing, and deletes when no pod is left in the mesh (CNI-050)", async () => {
  const bench = new Bench(), objects = readManifests(), { api } = bench;
  bench.tick = () => bench.rollOut();
  await applyAll(api, objects, bench.options());
  api.put(PODS, {
    metadata: { namespace: "shop", name: "web", annotations: { "ambient.istio.io/redirection": "enabled" } },
    spec: {},
  });
  api.put(PODS, pod("istio-cni-node-1", { "k8s-app": "istio-cni-node" }));
  const seen: string[] = [];
  bench.tick = () => {
    bench.rollOut();
    const agent = api.object(DAEMON_SETS, "istio-system", "istio-cni-node");
    seen.push(agent === undefined ? "agent gone" : "agent there");
    const selects = JSON.stringify(agent ?? "").includes('{"name":"AMBIENT_ENABLEMENT_SELECTOR","value":"[]"}');
    if (selects) api.put(PODS, { metadata: { namespace: "shop", name: "web", annotations: {} }, spec: {} });
    if (agent === undefined) api.remove(PODS, "istio-system", "istio-cni-node-1");
  };
  const options = { ...bench.options(60_000), namespace: "istio-system", unmeshPods: true, purge: false };
  await removeAll(api, objects, options);
  assertEquals(seen.at(-1), "agent gone", "it waits until the agents have cleaned their nodes");
  assert(seen.includes("agent there"), "pods leave while the agents are there");
  assertEquals(api.objects(DAEMON_SETS).length + api.objects(DEPLOYMENTS).length, 0);
  assert(api.object(NAMESPACES, "", "istio-system") !== undefined, "the CA's key is kept");
  await removeAll(api, objects, options); // Again, with nothing there.
});

Deno.test("removeAll() waits for nodes, says so when they do not get clean, and purges only when asked", async () => {
  const bench = new Bench(), objects = readManifests(), { api } = bench;
  bench.tick = () => bench.rollOut();
  await applyAll(api, objects, bench.options());
  api.put(PODS, pod("istio-cni-node-1", { "k8s-app": "istio-cni-node" }));
  api.put(CONFIG_MAPS, { metadata: { namespace: "shop", name: "istio-ca-root-cert" } });
  const options = { ...bench.options(3_000), namespace: "istio-system", unmeshPods: false, purge: true };
  assertEquals((await assertRejects(() => removeAll(api, objects, options), MeshError)).code, "AMB7174");
  api.remove(PODS, "istio-system", "istio-cni-node-1");
  await removeAll(api, objects, { ...options, waitMs: 60_000 });
  assertEquals(api.object(NAMESPACES, "", "istio-system"), undefined);
  api.put(NAMESPACES, { metadata: { name: "kube-system" } });
  await removeAll(api, objects, { ...options, waitMs: 60_000, namespace: "kube-system" });
  assert(api.object(NAMESPACES, "", "kube-system") !== undefined, "the cluster's own is never deleted");
  assertEquals(api.objects(CONFIG_MAPS).filter(({ metadata }) => metadata.name === "istio-ca-root-cert"), []);
});

Deno.test("neither applyAll() nor removeAll() touches Istio's own parts, which have the names of ours", async () => {
  const bench = new Bench(), objects = readManifests(), { api } = bench;
  bench.tick = () => bench.rollOut();
  const istios = (name: string, container: object) => ({
    metadata: { namespace: "istio-system", name },
    spec: { template: { spec: { containers: [container] } } },
  });
  const ztunnel = istios("ztunnel", { name: "istio-proxy", image: "istio/ztunnel:1.28", args: ["proxy", "ztunnel"] });
  const agent = istios("istio-cni-node", {
    name: "install-cni",
    image: "istio/install-cni:1.28",
    command: ["install-cni"],
  });
  for (const object of [ztunnel, agent]) api.put(DAEMON_SETS, object);
  const removal = { ...bench.options(), namespace: "istio-system", unmeshPods: true, purge: true };
  for (const attempt of [() => applyAll(api, objects, bench.options()), () => removeAll(api, objects, removal)]) {
    const error = await assertRejects(attempt, MeshError, "istio/ztunnel:1.28");
    assertEquals([error.code, error.message.includes("istio/install-cni:1.28")], ["AMB0291", true]);
  }
  assertEquals(api.calls.filter(({ verb }) => verb !== "get"), [], "nothing was changed");
  for (const { metadata } of [ztunnel, agent]) api.remove(DAEMON_SETS, metadata.namespace, metadata.name);
  await applyAll(api, objects, bench.options());
});
