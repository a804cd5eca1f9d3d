/** Remote clusters by their Secrets, over API servers in memory. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { MeshError } from "../../base/errors.ts";
import { Logger } from "../../base/log.ts";
import { KubeUnreachable } from "../../kube/api.ts";
import { NAMESPACES, PODS, SECRETS } from "../../kube/resource_types.ts";
import { InMemoryKubeApi } from "../../kube/testing.ts";
import { Metrics } from "../../base/metrics.ts";
import { WATCHED_KINDS } from "./kinds.ts";
import { RemoteClusters } from "./remote_clusters.ts";
import { decideClusters } from "./remote_secrets.ts";
import { namespace, pod, until } from "./testing.ts";

class Rig implements AsyncDisposable {
  readonly api = new InMemoryKubeApi();
  readonly metrics = new Metrics();
  readonly lines: string[] = [];
  /** What whoever listens holds of each cluster: `id key`. */
  readonly held = new Set<string>();
  /** All that was told, in order. */
  readonly told: string[] = [];
  /** Remote API servers by the text of the kubeconfig that names them. */
  readonly servers = new Map<string, InMemoryKubeApi>();
  /** The kubeconfigs whose connections were let go. */
  readonly closed: string[] = [];
  readonly remotes: RemoteClusters;
  readonly stop = new AbortController();

  constructor({ timeoutMs = 60_000 } = {}) {
    this.remotes = new RemoteClusters({
      api: this.api,
      systemNamespace: "istio-system",
      ownId: "own",
      kinds: WATCHED_KINDS,
      open: (kubeconfig, source) => {
        const server = this.servers.get(kubeconfig);
        if (server !== undefined) return Promise.resolve({ api: server, close: () => this.closed.push(kubeconfig) });
        return Promise.reject(
          new MeshError("AMB0808", `reading kubeconfig ${source}: exec: not allowed`, { remedy: "…" }),
        );
      },
      timeoutMs,
      listener: {
        takeOver: ({ id }) => this.told.push(`takeOver ${id}`),
        change: (id, changes) => {
          for (const { key, object } of changes) {
            this.told.push(`${object === undefined ? "-" : "+"}${id} ${key}`);
            if (object === undefined) this.held.delete(`${id} ${key}`);
            else this.held.add(`${id} ${key}`);
          }
        },
        gone: (id) => {
          this.told.push(`gone ${id}`);
          for (const it of [...this.held]) if (it.startsWith(`${id} `)) this.held.delete(it);
        },
      },
      metrics: this.metrics,
      log: new Logger("cluster", { sink: (line) => this.lines.push(line) }),
      lookMs: 10,
    });
  }

  server(kubeconfig: string, ...pods: string[]): InMemoryKubeApi {
    const server = new InMemoryKubeApi();
    server.put(NAMESPACES, namespace("shop"));
    for (const name of pods) server.put(PODS, pod("shop", name, "10.1.0.1"));
    this.servers.set(kubeconfig, server);
    return server;
  }

  secret(name: string, data: Record<string, string>, createdAt = "2026-01-01T00:00:00Z"): void {
    const encoded = Object.entries(data).map(([id, text]) => [id, btoa(text)]);
    const labels = { "istio/multiCluster": "true" };
    const metadata = { name, namespace: "istio-system", labels, creationTimestamp: createdAt };
    this.api.put(SECRETS, { metadata, data: Object.fromEntries(encoded) });
  }

  begin(): this {
    this.remotes.start(this.stop.signal);
    return this;
  }

  pods(id: string): string[] {
    return [...this.held].filter((it) => it.startsWith(`${id} Pod/`)).map((it) => it.split("/")[2]!).sort();
  }

  state(id: string): string | undefined {
    return this.remotes.clusters().find((it) => it.id === id)?.state;
  }

  sample(start: string): string | undefined {
    return this.metrics.render().split("\n").find((line) => line.startsWith(start));
  }

  log(): string {
    return this.lines.join("\n");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.stop.abort();
    await this.remotes.stopped;
  }
}

Deno.test("each key of a labelled Secret is a cluster: read at the start, and as it comes and goes (CP-120, CP-121)", async () => {
  await using rig = new Rig();
  rig.server("a", "one");
  const b = rig.server("b", "two");
  rig.secret("remote-a", { "cluster-a": "a" });
  rig.begin();
  await rig.remotes.settled;
  assertEquals([rig.pods("cluster-a"), rig.state("cluster-a")], [["one"], "synced"]);
  assertEquals(rig.told[0], "takeOver cluster-a");
  rig.secret("remote-b", { "cluster-b": "b" });
  await until("the second cluster is read", () => rig.pods("cluster-b").length === 1);
  b.put(PODS, pod("shop", "three", "10.1.0.3"));
  await until("its changes follow", () => rig.pods("cluster-b").join() === "three,two");
  assertEquals(
    rig.sample('istiod_managed_clusters{cluster_type="remote"}'),
    'istiod_managed_clusters{cluster_type="remote"} 2',
  );
  rig.api.remove(SECRETS, "istio-system", "remote-b");
  await until("the cluster is gone", () => rig.told.at(-1) === "gone cluster-b");
  assertEquals(rig.pods("cluster-a"), ["one"]);
  await until("its watches are closed", () => rig.closed.join() === "b" && b.watching(PODS) === 0);
  assertEquals(
    rig.sample('remote_cluster_secret_events_total{event="delete"}'),
    'remote_cluster_secret_events_total{event="delete"} 1',
  );
});

Deno.test("remote clusters are asked for what the mesh needs of them, policies not among it", async () => {
  await using rig = new Rig();
  const server = rig.server("a", "one");
  rig.secret("remote-a", { "cluster-a": "a" });
  rig.begin();
  await rig.remotes.settled;
  assertEquals([...new Set(server.calls.map(({ type }) => type.plural))].sort(), [
    "customresourcedefinitions",
    "endpointslices",
    "namespaces",
    "nodes",
    "pods",
    "services",
  ]);
});

Deno.test("our own id, and an id that an older Secret has, are ignored with an error (CP-120)", async () => {
  await using rig = new Rig();
  rig.server("a", "one");
  rig.server("b", "two");
  rig.secret("younger", { "cluster-a": "b" }, "2026-01-02T00:00:00Z");
  rig.secret("older", { "cluster-a": "a", own: "b" });
  rig.begin();
  await rig.remotes.settled;
  assertEquals(rig.pods("cluster-a"), ["one"]);
  assertStringIncludes(
    rig.log(),
    'remote cluster ignored\tcluster="own" secret="older" reason="is this cluster\'s own id"',
  );
  assertStringIncludes(
    rig.log(),
    'cluster="cluster-a" secret="younger" reason="is in Secret older, key cluster-a already"',
  );
  rig.api.remove(SECRETS, "istio-system", "older");
  await until("the younger one has it now", () => rig.pods("cluster-a").join() === "two");
});

Deno.test("a kubeconfig that may not be used is refused by name, and holds up nothing (CP-120)", async () => {
  await using rig = new Rig();
  rig.secret("remote-a", { "cluster-a": "runs a program", "cluster-b": "\u00ff" });
  rig.begin();
  await rig.remotes.settled;
  assertEquals([...rig.held], []);
  assertStringIncludes(
    rig.log(),
    'cluster="cluster-a" secret="remote-a" error="reading kubeconfig Secret remote-a, key cluster-a: exec: not allowed"',
  );
  assertStringIncludes(rig.log(), "must be base64 of UTF-8 text");
  assert(!rig.log().includes("runs a program"));
});

Deno.test("changed credentials are made ready before the old ones go, and what both see does not flap (CP-121, CP-285)", async () => {
  await using rig = new Rig();
  const old = rig.server("old", "both", "only-old");
  rig.secret("remote-a", { "cluster-a": "old" });
  rig.begin();
  await rig.remotes.settled;
  const fresh = rig.server("fresh", "both", "only-new"), allow = fresh.deny(PODS);
  rig.secret("remote-a", { "cluster-a": "fresh" });
  await until("the new one is tried", () => fresh.calls.some(({ type }) => type.plural === "pods"));
  old.put(PODS, pod("shop", "meanwhile", "10.1.0.9"));
  await until("the old one serves on", () => rig.pods("cluster-a").includes("meanwhile"));
  rig.told.length = 0;
  allow();
  await until("the new one has taken over", () => rig.pods("cluster-a").join() === "both,only-new");
  assertEquals(rig.told.filter((it) => it.startsWith("-")).sort(), [
    "-cluster-a Pod/shop/meanwhile",
    "-cluster-a Pod/shop/only-old",
  ]);
  await until("the old one is let go", () => rig.closed.join() === "old" && old.watching(PODS) === 0);
});

Deno.test("credentials that are changed to bad ones leave the old ones in use, until they are good or gone (CP-121)", async () => {
  await using rig = new Rig();
  const old = rig.server("old", "one");
  rig.secret("remote-a", { "cluster-a": "old" });
  rig.begin();
  await rig.remotes.settled;
  rig.secret("remote-a", { "cluster-a": "runs a program" });
  await until("it is said", () => rig.log().includes("the credentials from before stay"));
  old.put(PODS, pod("shop", "two", "10.1.0.2"));
  await until("the old one serves on", () => rig.pods("cluster-a").join() === "one,two");
  assertEquals(rig.remotes.lines().map(({ well }) => well), [false]);
  rig.server("new", "three");
  rig.secret("remote-a", { "cluster-a": "new" });
  await until("the good one is used", () => rig.pods("cluster-a").join() === "three");
});

Deno.test("a remote cluster that is late is not waited for, and is added once it is read (CP-023, CP-122)", async () => {
  await using rig = new Rig({ timeoutMs: 20 });
  rig.server("good", "one");
  const slow = rig.server("slow", "two");
  slow.unreachable = true;
  rig.secret("remotes", { quick: "good", slow: "slow" });
  rig.begin();
  await rig.remotes.settled;
  assertEquals(rig.remotes.status()[1], { id: "slow", secretName: "istio-system/remotes", syncStatus: "timeout" });
  await until("the quick one is read", () => rig.state("quick") === "synced"); // On a busy machine it may be late, too.
  assert(Number(rig.sample("remote_cluster_sync_timeouts_total")?.split(" ")[1]) >= 1);
  assertEquals(
    rig.sample('istiod_remote_cluster_sync_status{cluster="slow",cluster_type="remote",status="timeout"}')?.at(-1),
    "1",
  );
  slow.unreachable = false;
  await until("it is added", () => rig.pods("slow").join() === "two");
  await until("and counts as read", () => rig.state("slow") === "synced");
});

Deno.test("without leave to read Secrets there are no remote clusters, and the start goes on (CP-102)", async () => {
  await using rig = new Rig();
  rig.api.deny(SECRETS);
  rig.begin();
  await rig.remotes.settled;
  assertEquals(rig.remotes.health().trouble?.status, 403);
});

Deno.test("discovery selectors judge each remote cluster by its own namespaces (CP-104)", async () => {
  await using rig = new Rig();
  const server = rig.server("a", "one");
  rig.secret("remote-a", { "cluster-a": "a" });
  rig.remotes.select([{ matchLabels: new Map([["mesh", "on"]]), matchExpressions: [] }]);
  rig.begin();
  await rig.remotes.settled;
  assertEquals(rig.pods("cluster-a"), []);
  server.put(NAMESPACES, namespace("shop", { mesh: "on" }));
  await until("its pods count", () => rig.pods("cluster-a").join() === "one");
  rig.remotes.select([{ matchLabels: new Map([["mesh", "off"]]), matchExpressions: [] }]);
  assertEquals(rig.pods("cluster-a"), []);
});

Deno.test("decideClusters() does not depend on the order in which Secrets are seen (CP-105, CP-120)", () => {
  const secret = (name: string, createdAtMs: number, ...ids: string[]) => ({
    name,
    createdAtMs,
    kubeconfigs: new Map(ids.map((id) => [id, name])),
  });
  const secrets = [secret("b", 1, "x", "y"), secret("a", 1, "x"), secret("c", 0, "y", "own", "no/name")];
  const decided = (list: typeof secrets) => {
    const { wanted, refused } = decideClusters(list, "own");
    return [[...wanted.values()].map(({ id, secret }) => `${id} ${secret}`).sort(), refused.length];
  };
  assertEquals(decided(secrets), [["x a", "y c"], 4]);
  assertEquals(decided(secrets.toReversed()), decided(secrets));
});

Deno.test("remote clusters end with the signal, in the middle of everything (CP-660)", async () => {
  const rig = new Rig();
  const slow = rig.server("slow");
  slow.unreachable = true;
  const good = rig.server("good", "one");
  rig.secret("remotes", { quick: "good", slow: "slow" });
  rig.begin();
  await until("the quick one is read", () => rig.pods("quick").length === 1);
  await rig[Symbol.asyncDispose]();
  assertEquals(rig.closed.sort(), ["good", "slow"]);
  assertEquals([good.watching(PODS), rig.api.watching(SECRETS)], [0, 0]);
});

Deno.test("a cluster is not said to be late for credentials that were replaced before (CP-122)", async () => {
  const timeoutMs = 1_500; // Long enough for a busy machine to read a cluster of one pod.
  await using rig = new Rig({ timeoutMs });
  rig.server("silent").fail(new KubeUnreachable("not there"));
  rig.server("good", "one");
  rig.secret("remote-a", { "cluster-a": "silent" });
  rig.begin();
  await until("it is asked", () => rig.state("cluster-a") === "syncing" && rig.remotes.lines().length === 1);
  rig.secret("remote-a", { "cluster-a": "good" });
  await until("it is read", () => rig.state("cluster-a") === "synced");
  await new Promise((resolve) => setTimeout(resolve, timeoutMs)); // Timers end in the order they began.
  assertEquals(rig.log().includes("is late"), false);
});
