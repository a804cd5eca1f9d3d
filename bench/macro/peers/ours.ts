/** This repository's whole product at both ends: istiod on a folder, and on each node cni and ztunnel in pods' namespaces. */
import { MeshError } from "../../../base/errors.ts";
import { spawnWithin } from "../../../os/process.ts";
import { Authority, CLIENT_URI } from "../certificates.ts";
import type { Cleanup } from "../cleanup.ts";
import { Program } from "../process.ts";
import { type Place, SERVER_NODE_IP, type Topology } from "../topology.ts";
import { isListening } from "./listening.ts";
import { meshObjects, otherPods } from "./mesh_objects.ts";
import type { Peer, RunningPeer } from "./peer.ts";

const total = (numbers: readonly number[]) => numbers.reduce((sum, it) => sum + it, 0);
const OUTBOUND_PORT = 15001, INBOUND_PORT = 15008, CONTROL_PORT = 15012, STATS_PORT = 15020;
const CHECKOUT = new URL("../../../", import.meta.url).pathname;
const PODS_PER_FILE = 4000; // A file of istiod's folder has at most 4 MiB.
// What is written once both proxies work with the mesh: state complete at first, a published snapshot after each change.
const PUBLISHED = "snapshot published";
const CHANGE_MS_MAX = 60_000, CHANGE_QUIET_MS = 500, CHANGE_POLL_MS = 50;

export class Ours implements Peer {
  readonly hasWorkers = true;
  readonly descriptorsPerConnection = 1;
  readonly #checkout: string;
  readonly #runtimeFlags: readonly string[];
  readonly #workloads: number;

  /** @param checkout where this repository's files are, of this version or another. */
  constructor(
    readonly name: string,
    options: { readonly runtimeFlags: readonly string[]; readonly workloads: number },
    checkout = CHECKOUT,
  ) {
    this.#checkout = checkout;
    this.#runtimeFlags = joined([...flagsOfTask(checkout), ...options.runtimeFlags]);
    this.#workloads = options.workloads;
  }

  describe(): Promise<string> {
    const flags = this.#runtimeFlags.length === 0 ? "" : `, deno with ${this.#runtimeFlags.join(" ")}`;
    const whose = this.#checkout === CHECKOUT ? "this repository" : "another version of this repository";
    const what = `${whose}: istiod, cni and ztunnel, in-pod mode, policies, metrics and access log on`;
    return Promise.resolve(what + flags);
  }

  async setup(topology: Topology, workers: number, cleanup: Cleanup): Promise<RunningPeer> {
    const { folder, client, server, clientNode, serverNode } = topology;
    const authority = await Authority.create();
    const main = `${this.#checkout}/main.ts`;
    await startIstiod(topology, authority, { main, workloads: this.#workloads, cleanup });
    const own = { folder, workers, cleanup, main, runtimeFlags: this.#runtimeFlags };
    const outbound = await startNode("client", { node: clientNode, pod: client, ...own });
    const inbound = await startNode("server", { node: serverNode, pod: server, ...own });
    return {
      processes: [{ name: "out", pid: outbound.pid }, { name: "in", pid: inbound.pid }],
      tls: { port: INBOUND_PORT, ...await authority.issue({ uri: CLIENT_URI }), roots: authority.rootPem },
      changeWorkloads: this.#workloads === 0 ? undefined : () => this.#changeWorkloads([outbound, inbound], folder),
      countSlowTurns: async () => total(await Promise.all([clientNode, serverNode].map(slowTurnsOf))),
    };
  }

  #revision = 1;

  /** Several messages may carry the change: it has arrived when no more snapshots are published. */
  async #changeWorkloads(proxies: readonly Program[], folder: string): Promise<void> {
    const counts = () => proxies.map((proxy) => proxy.logLines(PUBLISHED));
    const before = counts(), deadlineMs = performance.now() + CHANGE_MS_MAX;
    writeOtherPods(folder, this.#workloads, ++this.#revision);
    for (let last = before, quietSinceMs = Infinity;;) {
      await new Promise((resolve) => setTimeout(resolve, CHANGE_POLL_MS));
      const now = counts();
      if (now.some((count, at) => count !== last[at])) quietSinceMs = performance.now();
      last = now;
      const all = now.every((count, at) => count > before[at]!);
      if (all && performance.now() - quietSinceMs > CHANGE_QUIET_MS) return;
      if (performance.now() < deadlineMs) continue;
      throw new MeshError("AMB9008", `a change of ${this.#workloads} workloads did not arrive`, {
        remedy: "Look at the proxies' logs.",
      });
    }
  }
}

/** Read by a program in the node's namespace: this one's own connections are made elsewhere. */
async function slowTurnsOf({ netns }: Place): Promise<number> {
  const script = `console.log(await (await fetch("http://localhost:${STATS_PORT}/metrics")).text())`;
  const child = spawnWithin(netns, Deno.execPath(), { args: ["eval", script], stdin: "null", stdout: "piped" });
  const { stdout } = await child.output();
  const samples = [...new TextDecoder().decode(stdout).matchAll(/^ambit_worker_slow_turns_total\{.*\} (\d+)$/gm)];
  if (samples.length > 0) return total(samples.map(([, value]) => Number(value)));
  throw new MeshError("AMB9008", "ztunnel's metrics do not tell how long its workers' turns took", {
    remedy: "Look at the proxies' logs.",
  });
}

/** What `deno task ambit` of that checkout gives to the runtime, so that we measure what people run. */
function flagsOfTask(checkout: string): string[] {
  const { tasks } = JSON.parse(Deno.readTextFileSync(`${checkout}/deno.json`));
  return `${tasks.ambit.command}`.split(" ").filter((word) => word.startsWith("--v8-flags="));
}

/** The runtime takes its engine's flags in one word only. */
function joined(flags: readonly string[]): string[] {
  const prefix = "--v8-flags=", engine = flags.filter((flag) => flag.startsWith(prefix));
  const others = flags.filter((flag) => !flag.startsWith(prefix));
  return engine.length === 0 ? others : [prefix + engine.map((flag) => flag.slice(prefix.length)).join(), ...others];
}

/** Each file appears whole, so that nobody reads half of it. */
function writeOtherPods(folder: string, count: number, revision: number): void {
  for (let from = 0; from < count; from += PODS_PER_FILE) {
    const pods = otherPods({ from, count: Math.min(PODS_PER_FILE, count - from), revision });
    Deno.writeTextFileSync(`${folder}/other-pods.new`, pods);
    Deno.renameSync(`${folder}/other-pods.new`, `${folder}/config/other-pods-${from}.json`);
  }
}

function startRole(name: string, args: readonly string[], options: {
  readonly main: string;
  readonly place: Place;
  readonly logPath: string;
  readonly environment?: Readonly<Record<string, string>>;
  readonly runtimeFlags?: readonly string[];
  readonly cleanup: Cleanup;
}): Program {
  const { place, logPath, environment, cleanup } = options;
  const command = Deno.execPath(),
    all = ["run", "-A", "--quiet", ...(options.runtimeFlags ?? []), options.main, ...args];
  return Program.start(name, place.netns, { command, args: all, environment, logPath }, cleanup);
}

/** Runs a command of ours to its end. @returns What it wrote. Throws AMB9009 with what it said when it fails. */
async function runCommand(
  main: string,
  args: readonly string[],
  environment: Readonly<Record<string, string>> = {},
): Promise<string> {
  const output = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--quiet", main, ...args],
    env: { ...environment },
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).output();
  if (output.success) return new TextDecoder().decode(output.stdout);
  throw new MeshError("AMB9009", `${args[0]}: ${new TextDecoder().decode(output.stderr).trim()}`, {
    remedy: "Read the logs in the run's folder (--keep keeps it).",
  });
}

async function startIstiod(
  topology: Topology,
  authority: Authority,
  { main, workloads, cleanup }: { main: string; workloads: number; cleanup: Cleanup },
): Promise<void> {
  const { folder, serverNode } = topology;
  for (const name of ["config", "ca", "state"]) Deno.mkdirSync(`${folder}/${name}`);
  Deno.writeTextFileSync(`${folder}/config/mesh.yaml`, meshObjects());
  if (workloads > 0) writeOtherPods(folder, workloads, 1);
  await authority.saveAsPluggedIn(`${folder}/ca`);
  const args = [
    "istiod",
    "--config-dir",
    `${folder}/config`,
    "--state-dir",
    `${folder}/state`,
    "--ca-dir",
    `${folder}/ca`,
  ];
  args.push("--secure-grpc-address", `:${CONTROL_PORT}`, "--server-hosts", `localhost,${SERVER_NODE_IP}`);
  const istiod = startRole("istiod", args, {
    main,
    place: serverNode,
    logPath: `${folder}/istiod.log`,
    cleanup,
  });
  await istiod.ready("its secure port", () => isListening(serverNode.netns, CONTROL_PORT));
}

interface NodeOptions {
  readonly node: Place;
  readonly pod: Place;
  readonly folder: string;
  readonly workers: number;
  readonly main: string;
  readonly runtimeFlags: readonly string[];
  readonly cleanup: Cleanup;
}

/** Starts cni and ztunnel of one node and enrols its pod. @returns ztunnel, which then listens in the pod. */
async function startNode(role: "client" | "server", options: NodeOptions): Promise<Program> {
  const { node, pod, folder, workers, main, cleanup } = options;
  const own = `${folder}/${role}`, zdsSocket = `${own}/zds.sock`, enrolSocket = `${own}/enrol.sock`;
  Deno.mkdirSync(own, { mode: 0o700 });
  const proxy = ["--namespace", "istio-system", "--service-account", "ztunnel", "--pod", `ztunnel-${role}`];
  const token = await runCommand(main, ["token", "--state-dir", `${folder}/state`, ...proxy, "--node", `${role}-node`]);
  Deno.writeTextFileSync(`${own}/token`, token, { mode: 0o600 });
  const cniArgs = ["cni", "--node-mode", "--zds-socket", zdsSocket, "--enrol-socket", enrolSocket];
  cniArgs.push("--state-dir", `${own}/cni`);
  const cniOptions = { main, place: node, logPath: `${folder}/${role}-cni.log`, cleanup };
  const cni = startRole(`cni of ${role}`, cniArgs, cniOptions);
  await cni.ready("its sockets", () => exists(zdsSocket) && exists(enrolSocket));
  const control = `https://${SERVER_NODE_IP}:${CONTROL_PORT}`;
  const environment = {
    XDS_ADDRESS: control,
    CA_ADDRESS: control,
    XDS_ROOT_CA: `${folder}/ca/root-cert.pem`,
    CA_ROOT_CA: `${folder}/ca/root-cert.pem`,
    AUTH_TOKEN: `${own}/token`,
    NODE_NAME: `${role}-node`,
    CLUSTER_ID: "Kubernetes",
    POD_NAMESPACE: "istio-system",
    POD_NAME: `ztunnel-${role}`,
    INPOD_UDS: zdsSocket,
    ZTUNNEL_WORKER_THREADS: `${workers}`,
    RUST_LOG: "info,state=debug",
  };
  const logPath = `${folder}/${role}.log`, { runtimeFlags } = options;
  const ztunnel = startRole(`ztunnel of ${role}`, ["ztunnel"], {
    main,
    place: node,
    logPath,
    environment,
    runtimeFlags,
    cleanup,
  });
  const identity = ["--namespace", "bench", "--service-account", role, "--name", role];
  await runCommand(main, ["enroll", `netns/${pod.name}`, ...identity], { AMBIT_ENROL_SOCKET: enrolSocket });
  for (const port of [OUTBOUND_PORT, INBOUND_PORT]) {
    await ztunnel.ready(`port ${port} in its pod`, () => isListening(pod.netns, port));
  }
  return ztunnel;
}

function exists(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}
