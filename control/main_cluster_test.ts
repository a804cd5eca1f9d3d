/** The whole role over a cluster: what it waits for, what it says while it waits, and what a bad day of the API server does. */
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { MeshError } from "../base/errors.ts";
import { Logger } from "../base/log.ts";
import { AUTHORIZATION_POLICIES, CONFIG_MAPS, NAMESPACES, PODS, SECRETS } from "../kube/resource_types.ts";
import { InMemoryKubeApi } from "../kube/testing.ts";
import { namespace, pod, putMeshConfig, smallMesh, until } from "./cluster/testing.ts";
import { HeldPort } from "../os/held_port_testing.ts";
import { ISTIOD_CONFIG } from "./config.ts";
import { runIstiod, type RunningIstiod, startIstiod } from "./main.ts";

class Rig implements AsyncDisposable {
  readonly api = smallMesh();
  readonly folder = Deno.makeTempDirSync({ prefix: "istiod-cluster-" });
  readonly #held = new HeldPort();
  readonly httpPort = this.#held.port;
  readonly lines: string[] = [];
  readonly stop = new AbortController();
  #running: Promise<RunningIstiod | undefined> = Promise.resolve(undefined);

  /** What every remote cluster's kubeconfig names. */
  readonly remote = new InMemoryKubeApi();
  readonly flags: readonly string[];

  constructor(...flags: readonly string[]) {
    this.flags = flags;
  }

  #options() {
    const own = [
      `--state-dir=${this.folder}/state`,
      `--mesh-config=${this.folder}/none`,
      "--secure-grpc-address=127.0.0.1:0",
      `--http-address=127.0.0.1:${this.httpPort}`,
      "--monitoring-address=127.0.0.1:0",
      "--https-address=127.0.0.1:0",
      "--pod-name=istiod-1",
      "--gateway-classes=false", // So that what is read is what the test put there.
    ];
    const given = new Set(this.flags.map((flag) => flag.split("=")[0]));
    const flags = [...this.flags, ...own.filter((flag) => !given.has(flag.split("=")[0]))];
    const log = new Logger("istiod", { sink: (line) => this.lines.push(line) });
    const { config } = ISTIOD_CONFIG.parse(flags, () => undefined);
    const openRemote = () => Promise.resolve({ api: this.remote, close: () => {} });
    return [config, { signal: this.stop.signal, log, api: this.api, openRemote }] as const;
  }

  /** Starts it; it may not get ready. */
  begin(): Promise<RunningIstiod | undefined> {
    this.#running = startIstiod(...this.#options()).catch((error) => {
      if (!this.stop.signal.aborted) throw error;
      return undefined;
    });
    return this.#running;
  }

  run(): Promise<void> {
    return runIstiod(...this.#options());
  }

  log(): string {
    return this.lines.join("\n");
  }

  async get(path: string): Promise<[number, string]> {
    const response = await fetch(`http://127.0.0.1:${this.httpPort}${path}`);
    return [response.status, await response.text()];
  }

  async metric(name: string): Promise<string | undefined> {
    const [, text] = await this.get("/metrics");
    return text.split("\n").find((line) => line.startsWith(name));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.stop.abort();
    try {
      await (await this.#running)?.done;
    } finally {
      this.#held[Symbol.dispose]();
      await Deno.remove(this.folder, { recursive: true });
    }
  }
}

Deno.test("istiod over a cluster is ready with all of it, and says what it read and who it is (CP-011, CP-012)", async () => {
  await using rig = new Rig();
  putMeshConfig(rig.api, "trustDomain: mesh.example\nrootNamespace: roots");
  await rig.begin();
  assertEquals(await rig.get("/ready"), [200, ""]);
  assertEquals(JSON.parse((await rig.get("/debug/configz"))[1]), [
    "AuthorizationPolicy/shop/closed",
    "MeshConfig//istio",
    "Namespace//istio-system",
    "Namespace//shop",
    "Pod/shop/cart",
  ]);
  assertEquals(await rig.metric('ambit_resources{type="wds"}'), 'ambit_resources{type="wds"} 1');
  assertEquals(
    await rig.metric('ambit_kube_objects{cluster="Kubernetes",kind="Namespace"}'),
    'ambit_kube_objects{cluster="Kubernetes",kind="Namespace"} 2',
  );
  const log = rig.log();
  assertStringIncludes(log, "istiod starts\tversion=");
  assertStringIncludes(log, 'podName="istiod-1"');
  assertStringIncludes(log, 'the mesh\'s settings\tconfigMap="istio-system/istio"');
  assert(/kind read\tkind="Pod" objects=1 refused=0 tookMs=\d+/.test(log), log);
  assert(/istiod is ready\t.*trustDomain="mesh.example" rootNamespace="roots" objects=5/.test(log), log);
});

Deno.test("istiod stays at 503 while it may not read policies, says why, and gets ready once it may (CP-012, CP-102)", async () => {
  await using rig = new Rig();
  const allow = rig.api.deny(AUTHORIZATION_POLICIES);
  const running = rig.begin();
  await until("it is said", () => rig.log().includes("kind cannot be watched"));
  assertEquals(await rig.get("/ready"), [503, ""]);
  const [status, page] = await rig.get("/debug/readyz");
  assertEquals(status, 503);
  assertStringIncludes(page, "[-]AuthorizationPolicy authorizationpolicies.security.istio.io: ");
  assertStringIncludes(page, "[+]Pod 1 objects, read in ");
  assert(page.endsWith("\nstarting\n"), page);
  allow();
  await running;
  assertEquals(await rig.get("/ready"), [200, ""]);
});

Deno.test("istiod stays ready and says that it is degraded when it can no longer watch a kind (CP-012, CP-102)", async () => {
  await using rig = new Rig();
  await rig.begin();
  const metric = 'ambit_kube_watch_trouble{cluster="Kubernetes",kind="AuthorizationPolicy"}';
  assertEquals(await rig.metric(metric), `${metric} 0`);
  const allow = rig.api.deny(AUTHORIZATION_POLICIES);
  rig.api.cutWatches(undefined, AUTHORIZATION_POLICIES);
  await until("the metric says so", async () => await rig.metric(metric) === `${metric} 1`);
  assertEquals(await rig.get("/ready"), [200, ""]);
  assert((await rig.get("/debug/readyz"))[1].endsWith("\nready, degraded\n"));
  assertEquals(await rig.metric('ambit_resources{type="wads"}'), 'ambit_resources{type="wads"} 1');
  allow();
  await until("all is well", async () => (await rig.get("/debug/readyz"))[1].endsWith("\nready\n"));
});

Deno.test("istiod warns when discovery selectors shut out its root namespace, and follows them live (CP-104)", async () => {
  await using rig = new Rig();
  await rig.begin();
  const served = () => rig.metric('ambit_resources{type="wds"}');
  putMeshConfig(rig.api, "discoverySelectors:\n- matchLabels: {mesh: on-it}");
  await until("the pod is gone", async () => await served() === 'ambit_resources{type="wds"} 0');
  assertStringIncludes(rig.log(), 'shut out a namespace of the mesh itself\tnamespace="istio-system"');
  rig.api.put(NAMESPACES, namespace("shop", { mesh: "on-it" }));
  rig.api.put(PODS, pod("shop", "till", "10.0.0.7"));
  await until("both pods are there", async () => await served() === 'ambit_resources{type="wds"} 2');
  assertEquals(rig.lines.filter((line) => line.includes("shut out")).length, 1);
});

Deno.test("istiod serves what remote clusters have, if it is for several networks, and takes it back with the Secret (CP-120, CP-280)", async () => {
  for (const [flags, pods] of [[["--multi-network"], 2], [[], 1]] as const) {
    await using rig = new Rig(...flags);
    const labels = { "istio/multiCluster": "true" };
    rig.remote.put(NAMESPACES, namespace("shop"));
    rig.remote.put(PODS, pod("shop", "far", "10.9.0.1"));
    rig.api.put(SECRETS, { metadata: { name: "r", namespace: "istio-system", labels }, data: { other: btoa("{}") } });
    await rig.begin();
    const served = () => rig.metric('ambit_resources{type="wds"}');
    assertEquals(await served(), `ambit_resources{type="wds"} ${pods}`);
    assertStringIncludes((await rig.get("/debug/readyz"))[1], "[+]cluster other synced");
    assertEquals(JSON.parse((await rig.get("/debug/clusterz"))[1])[1].secretName, "istio-system/r");
    rig.api.remove(SECRETS, "istio-system", "r");
    await until("it is gone", async () => await served() === 'ambit_resources{type="wds"} 1');
  }
});

Deno.test("an external istiod writes the roots into remote clusters' namespaces, as long as they are its own to serve (CP-510)", async () => {
  const roots = (rig: Rig) => rig.remote.object(CONFIG_MAPS, "shop", "istio-ca-root-cert");
  for (const external of [true, false]) {
    await using rig = new Rig("--leader-election=false", `--external-istiod=${external}`);
    rig.remote.put(NAMESPACES, namespace("shop"));
    const metadata = { name: "r", namespace: "istio-system", labels: { "istio/multiCluster": "true" } };
    rig.api.put(SECRETS, { metadata, data: { other: btoa("{}") } });
    const running = await rig.begin();
    await until(
      "our own namespaces have them",
      () => rig.api.object(CONFIG_MAPS, "shop", "istio-ca-root-cert") !== undefined,
    );
    if (!external) {
      assertEquals(roots(rig), undefined);
      continue;
    }
    await until("remote ones, too", () => roots(rig) !== undefined);
    assertEquals(roots(rig)!.data, { "root-cert.pem": running!.rootsPem });
    rig.remote.remove(CONFIG_MAPS, "shop", "istio-ca-root-cert");
    await until("what is removed comes back", () => roots(rig) !== undefined);
    rig.api.remove(SECRETS, "istio-system", "r");
    await until("whose Secret is gone is left alone", () => rig.remote.watching(CONFIG_MAPS) === 0);
  }
});

Deno.test("istiod with neither a folder nor a cluster says what to give (AMB0230)", async () => {
  const { config } = ISTIOD_CONFIG.parse(["--state-dir=/nonexistent"], () => undefined);
  const log = new Logger("istiod", { sink: () => {} });
  const error = await assertRejects(
    () => startIstiod(config, { signal: new AbortController().signal, log }),
    MeshError,
    "nothing says where the Kubernetes objects are",
  );
  assertEquals(error.code, "AMB0230");
  assertStringIncludes(error.remedy, "--kubeconfig");
});

Deno.test("istiod whose last listener cannot be had closes those that it has, and says so (CP-660)", async () => {
  using taken = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  using held = new HeldPort();
  const grpcPort = held.port;
  await using rig = new Rig(
    `--https-address=127.0.0.1:${taken.addr.port}`,
    `--secure-grpc-address=127.0.0.1:${grpcPort}`,
  );
  const error = await assertRejects(() => rig.run(), MeshError);
  assertEquals(error.code, "AMB0815");
  for (const port of [grpcPort, rig.httpPort]) {
    await assertRejects(() => Deno.connect({ hostname: "127.0.0.1", port }), Deno.errors.ConnectionRefused);
  }
});

Deno.test("istiod that is stopped before it is ready ends in order, and leaves nothing open (CP-660)", async () => {
  await using rig = new Rig();
  rig.api.unreachable = true;
  const ended = rig.run();
  await until("it answers", () => rig.get("/ready").then(([status]) => status === 503, () => false));
  rig.stop.abort();
  await ended;
  assertStringIncludes(rig.log(), "istiod ended before it was ready");
});
