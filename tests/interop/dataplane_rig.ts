/**
 * A mesh of two nodes under one istiod of ours and a node agent of ours each: node-a carries traffic by our ztunnel,
 * node-b by one of another make.
 */
import { askNodeAgent } from "../../cli/enrol_client.ts";
import { CONTROL_IPS, Network, type NodeName, podAddresses, type PodPlace } from "../../demo/lab/network.ts";
import { denoProgram, Program } from "../../demo/lab/program.ts";
import { until } from "../../demo/lab/until.ts";
import { runWithin } from "../../os/process.ts";
import type { AppOperations, Heard } from "./dataplane_app.ts";
import { type Dump, ENTRY, RigNode, STARTED_TIMEOUT_MS } from "./dataplane_node.ts";

const APP = new URL("./dataplane_app.ts", import.meta.url);

export interface RigOptions {
  readonly key: string;
  /** Further settings of both ztunnels, by environment. */
  readonly environment?: Readonly<Record<string, string>>;
  /** Further settings of ours alone. */
  readonly oursOnly?: Readonly<Record<string, string>>;
}

type Input<K extends keyof AppOperations> = Parameters<AppOperations[K]>[0];
type Output<K extends keyof AppOperations> = Awaited<ReturnType<AppOperations[K]>>;

/** A pod: its namespace, enrolled, with the program of `dataplane_app.ts` running in it. */
export class RigPod implements AsyncDisposable {
  readonly name: string;
  readonly place: PodPlace;
  readonly node: RigNode;
  readonly #program: Program;
  readonly #waiting = new Map<number, { resolve(value: unknown): void; reject(error: Error): void }>();
  readonly ready: Promise<void>;
  #last = 0;

  constructor(name: string, place: PodPlace, node: RigNode) {
    this.name = name;
    this.place = place;
    this.node = node;
    let isReady = () => {};
    this.ready = new Promise((resolve) => isReady = resolve);
    this.#program = new Program(`app of ${name}`, place, {
      ...denoProgram(APP, [name]),
      interactive: true,
      onLine: (line) => this.#take(line, isReady),
    });
    this.#program.status.then(() => {
      for (const { reject } of this.#waiting.values()) reject(new Error(`app of ${name} is gone`));
    });
  }

  get ip(): string {
    return this.place.ipv4;
  }

  get identity(): string {
    return `spiffe://cluster.local/ns/shop/sa/${this.name}`;
  }

  async do<K extends keyof AppOperations>(operation: K, input: Input<K>): Promise<Output<K>> {
    await this.ready;
    const id = ++this.#last;
    const answered = new Promise<unknown>((resolve, reject) => this.#waiting.set(id, { resolve, reject }));
    await this.#program.write(JSON.stringify({ id, operation, input }));
    return await answered as Output<K>;
  }

  /** HBONE sessions that are open here, those of others to us and ours to others. */
  hboneSessions(): { inbound: number; outbound: number } {
    const { stdout } = runWithin(this.place.netns, "ss", { args: ["-Htn", "state", "established"] });
    const lines = new TextDecoder().decode(stdout).split("\n").map((line) => line.trim().split(/\s+/));
    const count = (column: number) => lines.filter((columns) => columns[column]?.endsWith(":15008")).length;
    return { inbound: count(2), outbound: count(3) };
  }

  #take(line: string, isReady: () => void): void {
    if (!line.startsWith("{")) return; // A warning of the runtime.
    const { ready, id, output, error } = JSON.parse(line);
    if (ready) return isReady();
    const waiting = this.#waiting.get(id);
    this.#waiting.delete(id);
    if (error === undefined) waiting?.resolve(output);
    else waiting?.reject(new Error(`${this.name}: ${error}`));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#program.stop(0);
  }
}

/** The whole; disposing ends every process, then deletes namespaces and files. */
export class Rig implements AsyncDisposable {
  readonly network: Network;
  readonly folder: string;
  readonly istiod: Program;
  readonly ours: RigNode;
  readonly theirs: RigNode;
  readonly #cleanup: AsyncDisposableStack;
  readonly #nextIndex: Record<NodeName, number> = { "node-a": 100, "node-b": 100 };

  private constructor(parts: {
    network: Network;
    folder: string;
    istiod: Program;
    ours: RigNode;
    theirs: RigNode;
    cleanup: AsyncDisposableStack;
  }) {
    this.network = parts.network;
    this.folder = parts.folder;
    this.istiod = parts.istiod;
    this.ours = parts.ours;
    this.theirs = parts.theirs;
    this.#cleanup = parts.cleanup;
  }

  static async start({ key, environment = {}, oursOnly = {} }: RigOptions): Promise<Rig> {
    await using cleanup = new AsyncDisposableStack();
    const folder = Deno.makeTempDirSync({ prefix: "ambit-interop-" });
    cleanup.defer(() => Deno.remove(folder, { recursive: true }));
    Deno.mkdirSync(`${folder}/config`);
    Deno.writeTextFileSync(
      `${folder}/config/namespace.yaml`,
      `apiVersion: v1\nkind: Namespace\nmetadata: { name: shop }\n`,
    );
    const network = cleanup.use(new Network(`interop-${key}`));
    const flags = ["--config-dir", `${folder}/config`, "--state-dir", `${folder}/state`];
    flags.push("--secure-grpc-address", "0.0.0.0:15012", "--server-hosts", CONTROL_IPS.join(","));
    const istiod = cleanup.use(new Program("istiod", network.control, denoProgram(ENTRY, ["istiod", ...flags])));
    await istiod.line("serving", (line) => line.includes("istiod is ready"), STARTED_TIMEOUT_MS);
    await Promise.all([writeToken(folder, "node-a"), writeToken(folder, "node-b")]);
    const ours = cleanup.use(new RigNode(network.nodes["node-a"], folder, { ...environment, ...oursOnly }));
    const theirs = cleanup.use(new RigNode(network.nodes["node-b"], folder, environment));
    await Promise.all([ours.ready(), theirs.ready()]);
    return new Rig({ network, folder, istiod, ours, theirs, cleanup: cleanup.move() });
  }

  writeConfig(name: string, yaml: string): void {
    Deno.writeTextFileSync(`${this.folder}/config/${name}.yaml`, yaml);
  }

  /** A policy of namespace shop, once both ztunnels apply it. `spec` is YAML in flow style, `scope` what it amounts to. */
  async policy(name: string, spec: string, scope: "namespace" | "workload" = "workload"): Promise<void> {
    this.writeConfig(
      name,
      `apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: { name: ${name}, namespace: shop }\nspec: ${spec}\n`,
    );
    await this.seen(`policy ${name}`, (dump) => applies(dump, name, scope));
  }

  /** Takes it away; returns once neither ztunnel holds it or applies it any more. */
  async removePolicy(name: string): Promise<void> {
    Deno.removeSync(`${this.folder}/config/${name}.yaml`);
    await this.seen(`no policy ${name}`, (dump) => !dump.policies.some((it) => it.name === name));
  }

  /** Waits until both ztunnels' state, or that of some nodes, has what is asked for. */
  async seen(what: string, has: (dump: Dump) => boolean, nodes = [this.ours, this.theirs]): Promise<void> {
    await Promise.all(
      nodes.map((node) =>
        until(`${what} in the state of ${node.ztunnel.name}`, 60_000, async () => has(await node.dump()))
      ),
    );
  }

  /** A pod with a service account of its own name, described, running and, unless told otherwise, enrolled. */
  async pod(
    name: string,
    node: NodeName,
    options: { readonly enrolled?: boolean; readonly seenBy?: RigNode[] } = {},
  ): Promise<RigPod> {
    const { enrolled = true } = options;
    const addresses = podAddresses(node, this.#nextIndex[node]++);
    const place = this.network.addPod(name, { node, ...addresses });
    const pod = this.#cleanup.use(new RigPod(name, place, node === "node-a" ? this.ours : this.theirs));
    this.writeConfig(
      `pod-${name}`,
      `apiVersion: v1
kind: Pod
metadata:
  name: ${name}
  namespace: shop
  labels: { app: ${name}, mesh: both }
${enrolled ? "  annotations: { ambient.istio.io/redirection: enabled }\n" : ""}spec:
  nodeName: ${node}
  serviceAccountName: ${name}
  containers: [{ name: app, ports: [{ name: web, containerPort: 8080 }] }]
status:
  phase: Running
  podIPs: [{ ip: ${addresses.ipv4} }, { ip: "${addresses.ipv6}" }]
  conditions: [{ type: Ready, status: "True" }]
`,
    );
    await this.seen(`pod ${name}`, ({ workloads }) => workloads.some((it) => it.name === name), options.seenBy);
    if (enrolled) await this.enrol(pod);
    await pod.ready;
    return pod;
  }

  async enrol(pod: RigPod): Promise<void> {
    const body = {
      target: `netns/${pod.place.name}`,
      namespace: "shop",
      serviceAccount: pod.name,
      name: pod.name,
    };
    await askNodeAgent(pod.node.enrolSocket, { method: "POST", path: "/enrol", body });
  }

  async unenrol(pod: RigPod): Promise<void> {
    const body = { target: `netns/${pod.place.name}` };
    await askNodeAgent(pod.node.enrolSocket, { method: "POST", path: "/unenrol", body });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#cleanup.disposeAsync();
  }
}

function applies({ policies, workloads }: Dump, name: string, scope: "namespace" | "workload"): boolean {
  const named = workloads.some((it) => it.authorizationPolicies?.includes(`shop/${name}`));
  return (named || scope === "namespace") && policies.some((it) => it.name === name);
}

async function writeToken(folder: string, node: NodeName): Promise<void> {
  Deno.mkdirSync(`${folder}/${node}`);
  const flags = ["--state-dir", `${folder}/state`, "--namespace", "istio-system", "--service-account", "ztunnel"];
  flags.push("--pod", `ztunnel-${node}`, "--node", node);
  const { command, args } = denoProgram(ENTRY, ["token", ...flags]);
  const { success, stdout, stderr } = await new Deno.Command(command, { args, stdin: "null" }).output();
  if (!success) throw new Error(`ambit token: ${new TextDecoder().decode(stderr)}`);
  Deno.writeFileSync(`${folder}/${node}/token`, stdout, { mode: 0o600 });
}

export interface Way {
  readonly name: string;
  readonly from: RigPod;
  readonly to: RigPod;
}

/** Both directions between two pods: from ours to theirs and back. */
export function bothWays(ours: RigPod, theirs: RigPod): Way[] {
  return [
    { name: "ours to theirs", from: ours, to: theirs },
    { name: "theirs to ours", from: theirs, to: ours },
  ];
}

/** Does something, and tells what a server of `pod` heard meanwhile on the first connection that ended. */
export async function hearing<T>(
  pod: RigPod,
  port: number,
  work: () => Promise<T>,
): Promise<{ result: T; heard: Heard }> {
  const after = await pod.do("heardCount", {});
  const result = await work();
  const heard = await until(
    `${pod.name} heard an end at port ${port}`,
    60_000,
    async () => (await pod.do("heard", { port, after }))[0],
  );
  return { result, heard };
}
