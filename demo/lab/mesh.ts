/** A whole mesh of two nodes: istiod on a folder of YAML, a ztunnel and a node agent a node, and pods as they are asked for. */
import { type ConfigDump, ENTRY, LabNode, type PodIdentity } from "./node.ts";
import {
  CONTROL_IPS,
  NAME_PREFIX,
  Network,
  NODE_NAMES,
  type NodeName,
  podAddresses,
  type PodPlace,
} from "./network.ts";
import { Probe } from "./probe.ts";
import { denoProgram, Program, type ProgramOptions } from "./program.ts";
import { until } from "./until.ts";
import { podYaml } from "./yaml.ts";

export interface MeshOptions {
  /** Tells meshes of one process apart, in names of namespaces. */
  readonly key: string;
  /** A folder whose YAML files are copied into istiod's. */
  readonly configuration?: string;
  readonly ztunnelEnvironment?: Readonly<Record<string, string>>;
  readonly cniEnvironment?: Readonly<Record<string, string>>;
  /** A folder with what the CA signs with. Default: a root that istiod makes. */
  readonly caFolder?: string;
  /** Each ztunnel knows of a pod elsewhere only once something connects to it. */
  readonly onDemand?: boolean;
  /** Called with every line of every role. */
  readonly onLine?: (role: string, line: string) => void;
}

export interface PodSpec extends PodIdentity {
  readonly node: NodeName;
  readonly addresses?: { readonly ipv4: string; readonly ipv6: string };
  /** Whether it is enrolled from the start. Default: yes. */
  readonly enrolled?: boolean;
  /** Whether the configuration has the pod already, as a file of its own making. */
  readonly described?: boolean;
}

const VIEW_TIMEOUT_MS = 60_000; // istiod may be away for a while, and its return take a moment
const FIRST_POD_INDEX = 100; // below it are the fixed addresses of configuration files

/** A pod of the lab, with what runs in it. */
export class Pod {
  readonly spec: PodSpec;
  readonly place: PodPlace;
  readonly node: LabNode;
  readonly #mesh: Mesh;
  #probe: Probe | undefined;

  constructor(mesh: Mesh, spec: PodSpec, place: PodPlace) {
    this.spec = spec;
    this.place = place;
    this.node = mesh.nodes[spec.node];
    this.#mesh = mesh;
  }

  get ipv4(): string {
    return this.place.ipv4;
  }

  get ipv6(): string {
    return this.place.ipv6;
  }

  /** `cluster.local/ns/NAMESPACE/sa/ACCOUNT`, as policies write it. */
  get principal(): string {
    return `cluster.local/ns/${this.spec.namespace}/sa/${this.spec.serviceAccount}`;
  }

  /** The probe inside; started when it is first asked for. */
  get probe(): Probe {
    return this.#probe ??= this.#mesh.defer(() => new Probe(this.spec.name, this.place));
  }

  /** Ends the probe, if there is one, with all its connections. */
  async endProbe(): Promise<void> {
    if (this.#probe === undefined) return;
    await this.#mesh.release(this.#probe);
    this.#probe = undefined;
  }

  /** Starts a program inside; it ends with the mesh. */
  run(name: string, options: ProgramOptions): Program {
    return this.#mesh.defer(() => new Program(name, this.place, options));
  }

  enrol(): Promise<void> {
    return this.node.enrol(this.place, this.spec);
  }

  unenrol(): Promise<void> {
    return this.node.unenrol(this.place);
  }
}

/** Everything of one lab; disposing ends every process, then deletes namespaces and files. */
export class Mesh implements AsyncDisposable {
  readonly network: Network;
  readonly folder: string;
  readonly nodes: Readonly<Record<NodeName, LabNode>>;
  readonly pods = new Map<string, Pod>();
  readonly #cleanup: AsyncDisposableStack;
  readonly #startIstiod: () => Program;
  #istiod: Program;
  #ended = false;
  readonly #onDemand: boolean;
  #children: AsyncDisposable[] = [];
  readonly #nextIndex: Record<NodeName, number> = { "node-a": FIRST_POD_INDEX, "node-b": FIRST_POD_INDEX };

  private constructor(parts: {
    network: Network;
    folder: string;
    istiod: Program;
    startIstiod: () => Program;
    nodes: Record<NodeName, LabNode>;
    cleanup: AsyncDisposableStack;
    onDemand: boolean;
  }) {
    this.network = parts.network;
    this.folder = parts.folder;
    this.#istiod = parts.istiod;
    this.#startIstiod = parts.startIstiod;
    this.nodes = parts.nodes;
    this.#cleanup = parts.cleanup;
    this.#onDemand = parts.onDemand;
  }

  /** Builds it and returns once all roles serve. Throws MeshError, with nothing left behind. */
  static async start(options: MeshOptions): Promise<Mesh> {
    await using cleanup = new AsyncDisposableStack();
    const onLine = options.onLine ?? (() => {});
    const folder = Deno.makeTempDirSync({ prefix: `${NAME_PREFIX}${Deno.pid}-` });
    cleanup.defer(() => Deno.remove(folder, { recursive: true }));
    Deno.mkdirSync(`${folder}/config`);
    if (options.configuration !== undefined) copyYaml(options.configuration, `${folder}/config`);
    const network = cleanup.use(new Network(options.key));
    const startIstiod = () =>
      new Program("istiod", network.control, {
        ...denoProgram(ENTRY, [
          "istiod",
          "--config-dir",
          `${folder}/config`,
          "--state-dir",
          `${folder}/state`,
          "--secure-grpc-address",
          "0.0.0.0:15012",
          "--server-hosts",
          CONTROL_IPS.join(","),
          ...(options.caFolder === undefined ? [] : ["--ca-dir", options.caFolder]),
        ]),
        onLine: (line) => onLine("istiod", line),
      });
    const istiod = cleanup.use(startIstiod());
    await istiodReady(istiod);
    await Promise.all(NODE_NAMES.map((name) => writeToken(folder, name)));
    const nodes = Object.fromEntries(NODE_NAMES.map((name) => {
      const node = new LabNode(network.nodes[name], {
        folder: `${folder}/${name}`,
        rootCertificate: `${folder}/state/root-cert.pem`,
        cniEnvironment: options.cniEnvironment,
        ztunnelEnvironment: { ...onDemandSettings(options.onDemand ?? false), ...options.ztunnelEnvironment },
        onLine: (role, line) => onLine(`${role} ${name}`, line),
      });
      return [name, cleanup.use(node)];
    })) as unknown as Record<NodeName, LabNode>;
    await Promise.all(NODE_NAMES.map((name) => nodes[name].ready()));
    return new Mesh({
      network,
      folder,
      istiod,
      startIstiod,
      nodes,
      cleanup: cleanup.move(),
      onDemand: options.onDemand ?? false,
    });
  }

  get istiod(): Program {
    return this.#istiod;
  }

  /** Ends istiod at once, as a crash would. The caller starts the next by {@link restartIstiod}. */
  async crashIstiod(): Promise<void> {
    this.#istiod.kill("SIGKILL");
    await this.#istiod.stop(0);
  }

  /** Starts it again on the same folders. Returns once it serves. */
  async restartIstiod(): Promise<void> {
    this.#assertStanding();
    this.#istiod = this.#cleanup.use(this.#startIstiod());
    await istiodReady(this.#istiod);
  }

  /** Writes, or replaces, a file of istiod's folder. */
  writeConfig(name: string, yaml: string): void {
    Deno.writeTextFileSync(`${this.folder}/config/${name}`, yaml);
  }

  removeConfig(name: string): void {
    Deno.removeSync(`${this.folder}/config/${name}`);
  }

  /** A pod with its namespace, its entry in the configuration unless it has one, and, unless told otherwise, enrolled. */
  async addPod(spec: PodSpec): Promise<Pod> {
    this.#assertStanding();
    const addresses = spec.addresses ?? podAddresses(spec.node, this.#nextIndex[spec.node]++);
    const place = this.network.addPod(`${spec.namespace}-${spec.name}`, { node: spec.node, ...addresses });
    const pod = new Pod(this, spec, place);
    this.pods.set(spec.name, pod);
    if (!spec.described) this.describePod(pod, spec.enrolled !== false);
    if (this.#onDemand) {
      if (spec.enrolled !== false) await this.#enrolOnDemand(pod);
      return pod;
    }
    // The CA signs for pods that istiod knows of: enrolled before, the first connections would find no certificate.
    await this.seen(`pod ${spec.name}`, (dump) => dump.workloads.some((it) => it.name === spec.name));
    if (spec.enrolled !== false) await pod.enrol();
    return pod;
  }

  /** Its ztunnel asks for the pod when it is enrolled; then it has a workload, and soon a certificate. */
  async #enrolOnDemand(pod: Pod): Promise<void> {
    await pod.enrol();
    const { name, serviceAccount, namespace } = pod.spec, identity = `/ns/${namespace}/sa/${serviceAccount}`;
    await until(`pod ${name} is known on its own node`, VIEW_TIMEOUT_MS, async () => {
      const { workloads, certificates } = await pod.node.configDump();
      const certified = certificates.some((it) => it.identity.endsWith(identity) && it.state === "Available");
      return certified && workloads.some((it) => it.name === name);
    });
  }

  /** Waits until both ztunnels' view of the mesh has what is asked for. */
  async seen(what: string, has: (dump: ConfigDump) => boolean): Promise<void> {
    await Promise.all(
      NODE_NAMES.map((name) =>
        until(`${what} in the view of ${name}`, VIEW_TIMEOUT_MS, async () => has(await this.nodes[name].configDump()))
      ),
    );
  }

  /** Gives a pod that is in the configuration another account there. It must not be enrolled. @returns The pod under it. */
  renamePod(pod: Pod, { serviceAccount }: { serviceAccount: string }): Pod {
    const other = new Pod(this, { ...pod.spec, serviceAccount }, pod.place);
    this.pods.set(other.spec.name, other);
    this.describePod(other, true);
    return other;
  }

  /** Ends what runs in a pod and takes it away. It must have left the mesh's nodes; its object goes with it. */
  async removePod(pod: Pod): Promise<void> {
    await pod.endProbe();
    this.network.removePod(pod.place);
    this.pods.delete(pod.spec.name);
    this.removeConfig(configName(pod));
  }

  /** Writes the pod's object, marked as captured or not. */
  describePod(pod: Pod, enrolled: boolean): void {
    this.writeConfig(configName(pod), podYaml(pod, enrolled));
  }

  /** Makes a child that ends with the mesh, before what it depends on. */
  defer<T extends AsyncDisposable>(make: () => T): T {
    this.#assertStanding();
    const child = make();
    this.#children.push(child);
    return child;
  }

  /** Who is still at work on a mesh that is being taken down must add nothing to it. */
  #assertStanding(): void {
    if (this.#ended) throw new Error("the mesh is being taken down");
  }

  /** Ends a child before its time. */
  async release(child: AsyncDisposable): Promise<void> {
    this.#children = this.#children.filter((it) => it !== child);
    await child[Symbol.asyncDispose]();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#ended = true;
    await Promise.all(this.#children.map((child) => child[Symbol.asyncDispose]()));
    this.#children = [];
    await this.#cleanup.disposeAsync();
  }
}

async function istiodReady(istiod: Program): Promise<void> {
  await istiod.line("serving", (line) => line.includes("istiod is ready"));
}

/** DNS needs all of the mesh, so that the two exclude each other (ZT-008). */
function onDemandSettings(onDemand: boolean): Record<string, string> {
  return onDemand ? { XDS_ON_DEMAND: "true", ISTIO_META_DNS_CAPTURE: "false" } : {};
}

async function writeToken(folder: string, node: NodeName): Promise<void> {
  Deno.mkdirSync(`${folder}/${node}`);
  const { command, args } = denoProgram(ENTRY, [
    "token",
    "--state-dir",
    `${folder}/state`,
    "--namespace",
    "istio-system",
    "--service-account",
    "ztunnel",
    "--pod",
    `ztunnel-${node}`,
    "--node",
    node,
  ]);
  const { success, stdout, stderr } = await new Deno.Command(command, { args, stdin: "null" }).output();
  if (!success) throw new Error(`ambit token: ${new TextDecoder().decode(stderr)}`);
  Deno.writeFileSync(`${folder}/${node}/token`, stdout, { mode: 0o600 });
}

function configName({ spec }: Pod): string {
  return `pod-${spec.namespace}-${spec.name}.yaml`;
}

function copyYaml(from: string, to: string): void {
  for (const { name, isFile } of Deno.readDirSync(from)) {
    if (isFile && name.endsWith(".yaml")) Deno.copyFileSync(`${from}/${name}`, `${to}/${name}`);
  }
}
