/** A folder of kubeconfigs as remote clusters. */
import { assertEquals, assertStringIncludes } from "@std/assert";
import { Logger } from "../../base/log.ts";
import { NAMESPACES, PODS } from "../../kube/resource_types.ts";
import { InMemoryKubeApi } from "../../kube/testing.ts";
import { Metrics } from "../../base/metrics.ts";
import { WATCHED_KINDS } from "./kinds.ts";
import { RemoteClusters } from "./remote_clusters.ts";
import { namespace, pod, until } from "./testing.ts";

const kubeconfig = (cluster: string, server = "https://10.0.0.1:6443") => `
apiVersion: v1
kind: Config
current-context: main
contexts: [{name: main, context: {cluster: ${cluster}}}]
clusters: [{name: ${cluster}, cluster: {server: "${server}"}}]
`;

class Rig implements AsyncDisposable {
  readonly folder = Deno.makeTempDirSync({ prefix: "kubeconfigs-" });
  readonly lines: string[] = [];
  readonly held = new Set<string>();
  /** What was opened: the kubeconfig's server, and where it stood. */
  readonly opened: string[] = [];
  readonly stop = new AbortController();
  readonly own = new InMemoryKubeApi();
  readonly remotes: RemoteClusters;

  constructor() {
    const server = new InMemoryKubeApi();
    server.put(NAMESPACES, namespace("shop"));
    server.put(PODS, pod("shop", "cart", "10.1.0.1"));
    this.remotes = new RemoteClusters({
      api: this.own,
      systemNamespace: "istio-system",
      ownId: "own",
      folder: this.folder,
      kinds: WATCHED_KINDS,
      open: (text, source) => {
        this.opened.push(`${/https:\S+?(?=")/.exec(text)?.[0]} ${source.split("/").at(-1)}`);
        return Promise.resolve({ api: server, close: () => {} });
      },
      timeoutMs: 60_000,
      listener: { takeOver: ({ id }) => this.held.add(id), change: () => {}, gone: (id) => this.held.delete(id) },
      metrics: new Metrics(),
      log: new Logger("cluster", { sink: (line) => this.lines.push(line) }),
      lookMs: 10,
    });
  }

  /** Writes a file in one step, as whoever mounts it does. */
  write(name: string, text: string): void {
    Deno.writeTextFileSync(`${this.folder}/.next`, text);
    Deno.renameSync(`${this.folder}/.next`, `${this.folder}/${name}`);
  }

  async begin(): Promise<void> {
    this.remotes.start(this.stop.signal);
    await this.remotes.settled;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.stop.abort();
    await this.remotes.stopped;
    await Deno.remove(this.folder, { recursive: true });
  }
}

Deno.test("each file of the folder is a cluster under its own name, read as it comes, changes and goes; no Secret is asked for (CP-120, CP-121)", async () => {
  await using rig = new Rig();
  rig.write("a.yaml", kubeconfig("east"));
  await rig.begin();
  assertEquals([...rig.held], ["east"]);
  assertEquals(rig.remotes.status(), [
    { id: "east", secretName: `${Deno.realPathSync(rig.folder)}/a.yaml`, syncStatus: "synced" },
  ]);
  rig.write("b.yaml", kubeconfig("west"));
  await until("the second cluster", () => rig.held.has("west"));
  rig.write("a.yaml", kubeconfig("east", "https://10.0.0.2:6443"));
  await until("new credentials", () => rig.opened.length === 3);
  await Deno.remove(`${rig.folder}/b.yaml`);
  await until("its end", () => !rig.held.has("west"));
  assertEquals(rig.opened, [
    "https://10.0.0.1:6443 a.yaml",
    "https://10.0.0.1:6443 b.yaml",
    "https://10.0.0.2:6443 a.yaml",
  ]);
  assertEquals(rig.own.calls.length, 0);
});

Deno.test("a file that cannot be read leaves its cluster as it was, and of two that name a cluster the first has it (CP-120)", async () => {
  await using rig = new Rig();
  rig.write("a.yaml", kubeconfig("east"));
  await rig.begin();
  rig.write("a.yaml", "contexts: [");
  rig.write("b.yaml", kubeconfig("east"));
  rig.write("c.yaml", kubeconfig("own"));
  const log = () => rig.lines.join("\n");
  await until("what is refused", () => log().includes("is this cluster's own id") && log().includes("no YAML object"));
  assertStringIncludes(log(), "a.yaml already");
  assertEquals([...rig.held], ["east"]);
});

Deno.test("a folder that is not there yet holds nothing up, and is read once it is (CP-120)", async () => {
  await using rig = new Rig();
  await Deno.remove(rig.folder);
  await rig.begin();
  assertEquals(rig.remotes.status(), []);
  assertStringIncludes(rig.lines.join("\n"), "cannot be read");
  await Deno.mkdir(rig.folder);
  rig.write("a.yaml", kubeconfig("east"));
  await until("the folder is there", () => rig.held.has("east"));
});
