/** `ambit cni` of a cluster as a process: its node is this namespace and a folder, its API server is in memory, its ztunnel only listens. */
import { assert } from "@std/assert";
import { Logger } from "../../base/log.ts";
import { type EnrolledPod, ZdsClient } from "../../dataplane/agent/zds_client.ts";
import { EVENTS, NAMESPACES, PODS } from "../../kube/resource_types.ts";
import { ServedKubeApi } from "../../kube/served_testing.ts";
import { InMemoryKubeApi } from "../../kube/testing.ts";
import { RouteSocket } from "../../os/netlink/rtnetlink.ts";
import { createAnonymousNetns, type Netns, openNetns, withinNetns } from "../../os/netns.ts";
import { freePort } from "../kube/free_port.ts";

const MAIN = new URL("../../main.ts", import.meta.url).pathname;
const AMBIENT = { "istio.io/dataplane-mode": "ambient" }, REDIRECTION = "ambient.istio.io/redirection";
const LISTENERS = [15001, 15006, 15008];
const FIRST_PID = 4_000_000; // of the made-up processes; beyond what a machine gives
const UNTIL_MS = 120_000;

/** A pod with a namespace of its own, in which its made-up process runs. */
export interface RigPod {
  readonly name: string;
  readonly uid: string;
  readonly ip: string;
  netns: Netns;
}

/** What a plugin said. */
export interface PluginAnswer {
  readonly code: number;
  readonly out: string;
  readonly said: string;
}

export async function until(claim: string, condition: () => boolean | Promise<boolean>): Promise<number> {
  const startedMs = performance.now();
  while (!await condition()) {
    assert(performance.now() - startedMs < UNTIL_MS, claim);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  return performance.now() - startedMs;
}

/** Opens ztunnel's three ports in each pod that it is told of. */
class ListeningZtunnel {
  readonly pods = new Map<string, Deno.Listener[]>();

  /** Opens its ports there; those of a namespace that the pod had before are closed. */
  addPod({ uid, netnsFd }: EnrolledPod): Promise<void> {
    this.close(uid);
    using netns = openNetns(`/proc/self/fd/${netnsFd}`);
    this.pods.set(uid, withinNetns(netns, () => LISTENERS.map((port) => Deno.listen({ hostname: "::", port }))));
    return Promise.resolve();
  }

  deletePod(uid: string): Promise<void> {
    this.close(uid);
    this.pods.delete(uid);
    return Promise.resolve();
  }

  close(uid: string): void {
    for (const listener of this.pods.get(uid)?.splice(0) ?? []) listener.close();
  }
}

export class NodeRig implements AsyncDisposable {
  readonly folder = Deno.makeTempDirSync();
  readonly api = new InMemoryKubeApi();
  readonly ztunnel = new ListeningZtunnel();
  readonly pods: RigPod[] = [];
  readonly metricsPort = freePort();
  readonly debugPort = freePort();
  readonly healthPort = freePort();
  /** What is run as the agent, with these variables. */
  program = MAIN;
  readonly env: Record<string, string> = {};
  #served: ServedKubeApi | undefined;
  #child: Deno.ChildProcess | undefined;
  #client: ZdsClient | undefined;
  readonly #stop = new AbortController();
  #running: Promise<unknown> = Promise.resolve();

  /** @param options `ztunnel: false` for a test that brings its own. */
  static async make({ ztunnel = true } = {}): Promise<NodeRig> {
    const rig = new NodeRig();
    for (const folder of ["run", "net.d", "bin", "host/proc/1/ns", "host/netns"]) {
      Deno.mkdirSync(`${rig.folder}/${folder}`, { recursive: true });
    }
    Deno.symlinkSync("/proc/self/ns/net", `${rig.folder}/host/proc/1/ns/net`);
    rig.writePrimary();
    rig.#served = await ServedKubeApi.start(rig.api);
    const cluster = { name: "c", cluster: { server: `http://127.0.0.1:${rig.#served.port}` } };
    const context = { name: "x", context: { cluster: "c", user: "u" } };
    const kubeconfig = { clusters: [cluster], contexts: [context], users: [{ name: "u", user: {} }] };
    Deno.writeTextFileSync(`${rig.folder}/kubeconfig`, JSON.stringify({ ...kubeconfig, "current-context": "x" }));
    const log = new Logger("zds", { sink: () => {} });
    if (ztunnel) {
      rig.#client = new ZdsClient({ path: rig.zdsSocket, pods: rig.ztunnel, log });
      rig.#running = rig.#client.run(rig.#stop.signal);
    }
    rig.namespace("shop", true);
    return rig;
  }

  get zdsSocket(): string {
    return `${this.folder}/zds.sock`;
  }

  /** Where the API server answers. */
  get server(): string {
    return `http://127.0.0.1:${this.#served!.port}`;
  }

  /** Calls a plugin as a container runtime does, for a new pod. */
  async callPlugin(program: string, pod: RigPod, netns = this.place(pod)): Promise<PluginAnswer> {
    const conflist = JSON.parse(await Deno.readTextFile(`${this.folder}/net.d/02-istio-cni.conflist`));
    const own = conflist.plugins.find(({ type }: { type: string }) => type === "istio-cni");
    const prevResult = { cniVersion: "1.0.0", ips: [{ address: `${pod.ip}/32` }] };
    const child = new Deno.Command(program, {
      env: {
        CNI_COMMAND: "ADD",
        CNI_CONTAINERID: pod.name,
        CNI_NETNS: netns,
        CNI_IFNAME: "eth0",
        CNI_PATH: `${this.folder}/bin`,
        CNI_ARGS: `K8S_POD_NAME=${pod.name};K8S_POD_NAMESPACE=shop;K8S_POD_UID=${pod.uid}`,
      },
      stdin: "piped",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    const writer = child.stdin.getWriter();
    await writer.write(new TextEncoder().encode(JSON.stringify({ ...own, cniVersion: "1.0.0", prevResult })));
    await writer.close();
    const { code, stdout, stderr } = await child.output(), decoder = new TextDecoder();
    return { code, out: decoder.decode(stdout), said: decoder.decode(stderr) };
  }

  writePrimary(): void {
    const text = JSON.stringify({ name: "net", cniVersion: "1.0.0", plugins: [{ type: "bridge" }] });
    Deno.writeTextFileSync(`${this.folder}/net.d/10-net.conflist`, text);
  }

  async start(...more: string[]): Promise<void> {
    const at = (path: string) => `${this.folder}/${path}`, here = (port: number) => `127.0.0.1:${port}`;
    const places = ["--kubeconfig", at("kubeconfig"), "--host-root", at("host"), "--cni-agent-run-dir", at("run")];
    const folders = ["--mounted-cni-net-dir", at("net.d"), "--mounted-cni-bin-dir", at("bin")];
    const sockets = ["--zds-socket", at("zds.sock"), "--health-address", here(this.healthPort)];
    const pages = ["--monitoring-address", here(this.metricsPort), "--introspection-address", here(this.debugPort)];
    this.#child = new Deno.Command(Deno.execPath(), {
      args: [
        "run",
        "-A",
        "--quiet",
        this.program,
        "cni",
        "--node-name=n1",
        ...places,
        ...folders,
        ...sockets,
        ...pages,
        ...more,
      ],
      env: this.env,
      stdout: Deno.env.get("AMBIT_RIG_LOG") === undefined ? "null" : "inherit",
    }).spawn();
    await until(
      "the agent is ready",
      async () => (await this.page(this.healthPort, "/readyz"))?.startsWith("ok") === true,
    );
    if (this.#client !== undefined) {
      await until("ztunnel is connected", async () => (await this.metric("ztunnel_connected")) === 1);
    }
  }

  async stop(signal: Deno.Signal = "SIGTERM"): Promise<number> {
    this.#child?.kill(signal);
    return await this.ended();
  }

  /** Waits for the agent's end. @returns Its status. */
  async ended(): Promise<number> {
    const child = this.#child;
    if (child === undefined) return 0;
    const late = setTimeout(() => child.kill("SIGABRT"), UNTIL_MS);
    const { code } = await child.status;
    clearTimeout(late);
    this.#child = undefined;
    return code;
  }

  /** @returns undefined while nobody answers. */
  async page(port: number, path: string): Promise<string | undefined> {
    try {
      return await (await fetch(`http://127.0.0.1:${port}${path}`)).text();
    } catch (error) {
      if (error instanceof TypeError) return undefined;
      throw error;
    }
  }

  /** A sample by its name and labels, as they are written. */
  async metric(sample: string): Promise<number> {
    const text = await this.page(this.metricsPort, "/metrics");
    const line = text?.split("\n").find((it) => it.startsWith(`${sample} `));
    return line === undefined ? 0 : Number(line.slice(sample.length + 1));
  }

  namespace(name: string, ambient: boolean): void {
    this.api.put(NAMESPACES, {
      apiVersion: "v1",
      kind: "Namespace",
      metadata: { name, labels: ambient ? AMBIENT : {} },
    });
  }

  isAmbient(name: string): boolean {
    return Object.keys(this.api.object(NAMESPACES, "", name)?.metadata.labels ?? {}).length > 0;
  }

  /** A pod with its address, whose process is seen below the node's `/proc`. */
  pod(name: string): RigPod {
    const at = this.pods.length, uid = `00000000-0000-4000-8000-${String(at).padStart(12, "0")}`;
    const pod: RigPod = { name, uid, ip: `10.77.0.${at + 2}`, netns: createAnonymousNetns() };
    this.pods.push(pod);
    this.place(pod);
    this.putPod(pod);
    return pod;
  }

  /** Makes the API server have the pod, without annotations. */
  putPod({ name, uid, ip }: RigPod, { knowsIp = true } = {}): void {
    this.api.put(PODS, {
      apiVersion: "v1",
      kind: "Pod",
      metadata: { name, namespace: "shop", uid },
      spec: { nodeName: "n1" },
      status: knowsIp ? { podIP: ip } : {},
    });
  }

  /** Gives the pod another namespace, as a reboot does; the one before is gone. */
  replaceNetns(pod: RigPod): void {
    pod.netns[Symbol.dispose]();
    pod.netns = createAnonymousNetns();
    this.place(pod);
  }

  /** @returns The namespace's path below the node's root, as events name it. */
  place(pod: RigPod): string {
    const folder = `${this.folder}/host/proc/${FIRST_PID + this.pods.indexOf(pod)}`;
    Deno.mkdirSync(`${folder}/ns`, { recursive: true });
    const slice = `kubepods-besteffort-pod${pod.uid.replaceAll("-", "_")}.slice`;
    Deno.writeTextFileSync(`${folder}/cgroup`, `0::/kubepods.slice/${slice}/cri-containerd-${"a".repeat(64)}.scope\n`);
    Deno.writeTextFileSync(`${folder}/stat`, `1 (x) S ${Array(40).fill(0).with(18, 100).join(" ")}\n`);
    const target = `/proc/${Deno.pid}/fd/${pod.netns.fd}`, named = `${this.folder}/host/netns/${pod.name}`;
    for (const path of [`${folder}/ns/net`, named]) {
      try {
        Deno.removeSync(path);
      } catch (error) {
        if (!(error instanceof Deno.errors.NotFound)) throw error;
      }
      Deno.symlinkSync(target, path);
    }
    using routes = RouteSocket.open(pod.netns);
    routes.setUp("lo");
    if (!routes.addresses().some(({ ip }) => ip === pod.ip)) routes.addAddress("lo", `${pod.ip}/32`);
    return `/netns/${pod.name}`;
  }

  annotation({ name }: RigPod): unknown {
    const annotations = this.api.object(PODS, "shop", name)?.metadata.annotations as
      | Record<string, unknown>
      | undefined;
    return annotations?.[REDIRECTION];
  }

  events(): string[] {
    return this.api.objects(EVENTS).map(({ reason, message }) => `${reason}: ${message}`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop("SIGKILL");
    this.#stop.abort();
    await this.#running;
    this.#client?.[Symbol.dispose]();
    for (const { uid, netns } of this.pods) {
      this.ztunnel.close(uid);
      netns[Symbol.dispose]();
    }
    await this.#served?.[Symbol.asyncDispose]();
    Deno.removeSync(this.folder, { recursive: true });
  }
}
