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

const VIEW_TIMEOUT_MS = 10_000;
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
    return this.#probe ??= this.#mesh.defer(new Probe(this.spec.name, this.place));
  }

  /** Starts a program inside; it ends with the mesh. */
  run(name: string, options: ProgramOptions): Program {
    return this.#mesh.defer(new Program(name, this.place, options));
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
  readonly istiod: Program;
  readonly nodes: Readonly<Record<NodeName, LabNode>>;
  readonly pods = new Map<string, Pod>();
  readonly #cleanup: AsyncDisposableStack;
  #children: AsyncDisposable[] = [];
  readonly #nextIndex: Record<NodeName, number> = { "node-a": FIRST_POD_INDEX, "node-b": FIRST_POD_INDEX };

  private constructor(parts: {
    network: Network;
    folder: string;
    istiod: Program;
    nodes: Record<NodeName, LabNode>;
    cleanup: AsyncDisposableStack;
  }) {
    this.network = parts.network;
    this.folder = parts.folder;
    this.istiod = parts.istiod;
    this.nodes = parts.nodes;
    this.#cleanup = parts.cleanup;
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
    const istiod = cleanup.use(
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
        ]),
        onLine: (line) => onLine("istiod", line),
      }),
    );
    await istiod.line("serving", (line) => line.includes("istiod is ready"));
    await Promise.all(NODE_NAMES.map((name) => writeToken(folder, name)));
    const nodes = Object.fromEntries(NODE_NAMES.map((name) => {
      const node = new LabNode(network.nodes[name], {
        folder: `${folder}/${name}`,
        rootCertificate: `${folder}/state/root-cert.pem`,
        ztunnelEnvironment: options.ztunnelEnvironment ?? {},
        onLine: (role, line) => onLine(`${role} ${name}`, line),
      });
      return [name, cleanup.use(node)];
    })) as unknown as Record<NodeName, LabNode>;
    await Promise.all(NODE_NAMES.map((name) => nodes[name].ready()));
    return new Mesh({ network, folder, istiod, nodes, cleanup: cleanup.move() });
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
    const addresses = spec.addresses ?? podAddresses(spec.node, this.#nextIndex[spec.node]++);
    const place = this.network.addPod(`${spec.namespace}-${spec.name}`, { node: spec.node, ...addresses });
    const pod = new Pod(this, spec, place);
    this.pods.set(spec.name, pod);
    if (!spec.described) this.describePod(pod, spec.enrolled !== false);
    // The CA signs for pods that istiod knows of: enrolled before, the first connections would find no certificate.
    await this.seen(`pod ${spec.name}`, (dump) => dump.workloads.some((it) => it.name === spec.name));
    if (spec.enrolled !== false) await pod.enrol();
    return pod;
  }

  /** Waits until both ztunnels' view of the mesh has what is asked for. */
  async seen(what: string, has: (dump: ConfigDump) => boolean): Promise<void> {
    await Promise.all(
      NODE_NAMES.map((name) =>
        until(`${what} in the view of ${name}`, VIEW_TIMEOUT_MS, async () => has(await this.nodes[name].configDump()))
      ),
    );
  }

  /** Writes the pod's object, marked as captured or not. */
  describePod(pod: Pod, enrolled: boolean): void {
    this.writeConfig(`pod-${pod.spec.namespace}-${pod.spec.name}.yaml`, podYaml(pod, enrolled));
  }

  /** Ends `child` with the mesh, before what it depends on. */
  defer<T extends AsyncDisposable>(child: T): T {
    this.#children.push(child);
    return child;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#children.map((child) => child[Symbol.asyncDispose]()));
    this.#children = [];
    await this.#cleanup.disposeAsync();
  }
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

function copyYaml(from: string, to: string): void {
  for (const { name, isFile } of Deno.readDirSync(from)) {
    if (isFile && name.endsWith(".yaml")) Deno.copyFileSync(`${from}/${name}`, `${to}/${name}`);
  }
}
