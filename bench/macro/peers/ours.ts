/** This repository's whole product at both ends: istiod on a folder, and on each node cni and ztunnel in pods' namespaces. */
import { MeshError } from "../../../base/errors.ts";
import { Authority, CLIENT_URI } from "../certificates.ts";
import type { Cleanup } from "../cleanup.ts";
import { Program } from "../process.ts";
import { type Place, SERVER_NODE_IP, type Topology } from "../topology.ts";
import { isListening } from "./listening.ts";
import { meshObjects } from "./mesh_objects.ts";
import type { Peer, RunningPeer } from "./peer.ts";

const OUTBOUND_PORT = 15001, INBOUND_PORT = 15008, CONTROL_PORT = 15012;
const MAIN = new URL("../../../main.ts", import.meta.url).pathname;

export class Ours implements Peer {
  readonly name = "ours";
  readonly hasWorkers = true;
  readonly descriptorsPerConnection = 1;

  readonly #runtimeFlags: readonly string[];

  constructor(runtimeFlags: readonly string[]) {
    this.#runtimeFlags = runtimeFlags;
  }

  describe(): Promise<string> {
    const flags = this.#runtimeFlags.length === 0 ? "" : `, deno with ${this.#runtimeFlags.join(" ")}`;
    const what = "this repository: istiod, cni and ztunnel, in-pod mode, policies, metrics and access log on";
    return Promise.resolve(what + flags);
  }

  async setup(topology: Topology, workers: number, cleanup: Cleanup): Promise<RunningPeer> {
    const { folder, client, server, clientNode, serverNode } = topology;
    const authority = await Authority.create();
    await startIstiod(topology, authority, cleanup);
    const own = { folder, workers, cleanup, runtimeFlags: this.#runtimeFlags };
    const outbound = await startNode("client", { node: clientNode, pod: client, ...own });
    const inbound = await startNode("server", { node: serverNode, pod: server, ...own });
    return {
      processes: [{ name: "out", pid: outbound.pid }, { name: "in", pid: inbound.pid }],
      tls: { port: INBOUND_PORT, ...await authority.issue({ uri: CLIENT_URI }), roots: authority.rootPem },
    };
  }
}

function startRole(name: string, args: readonly string[], options: {
  readonly place: Place;
  readonly logPath: string;
  readonly environment?: Readonly<Record<string, string>>;
  readonly runtimeFlags?: readonly string[];
  readonly cleanup: Cleanup;
}): Program {
  const { place, logPath, environment, cleanup } = options;
  const command = Deno.execPath(), all = ["run", "-A", "--quiet", ...(options.runtimeFlags ?? []), MAIN, ...args];
  return Program.start(name, place.netns, { command, args: all, environment, logPath }, cleanup);
}

/** Runs a command of ours to its end. @returns What it wrote. Throws AMB9009 with what it said when it fails. */
async function runCommand(
  args: readonly string[],
  environment: Readonly<Record<string, string>> = {},
): Promise<string> {
  const output = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--quiet", MAIN, ...args],
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

async function startIstiod(topology: Topology, authority: Authority, cleanup: Cleanup): Promise<void> {
  const { folder, serverNode } = topology;
  for (const name of ["config", "ca", "state"]) Deno.mkdirSync(`${folder}/${name}`);
  Deno.writeTextFileSync(`${folder}/config/mesh.yaml`, meshObjects());
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
  const istiod = startRole("istiod", args, { place: serverNode, logPath: `${folder}/istiod.log`, cleanup });
  await istiod.ready("its secure port", () => isListening(serverNode.netns, CONTROL_PORT));
}

interface NodeOptions {
  readonly node: Place;
  readonly pod: Place;
  readonly folder: string;
  readonly workers: number;
  readonly runtimeFlags: readonly string[];
  readonly cleanup: Cleanup;
}

/** Starts cni and ztunnel of one node and enrols its pod. @returns ztunnel, which then listens in the pod. */
async function startNode(role: "client" | "server", options: NodeOptions): Promise<Program> {
  const { node, pod, folder, workers, cleanup } = options;
  const own = `${folder}/${role}`, zdsSocket = `${own}/zds.sock`, enrolSocket = `${own}/enrol.sock`;
  Deno.mkdirSync(own, { mode: 0o700 });
  const proxy = ["--namespace", "istio-system", "--service-account", "ztunnel", "--pod", `ztunnel-${role}`];
  const token = await runCommand(["token", "--state-dir", `${folder}/state`, ...proxy, "--node", `${role}-node`]);
  Deno.writeTextFileSync(`${own}/token`, token, { mode: 0o600 });
  const cniArgs = ["cni", "--node-mode", "--zds-socket", zdsSocket, "--enrol-socket", enrolSocket];
  cniArgs.push("--state-dir", `${own}/cni`);
  const cni = startRole(`cni of ${role}`, cniArgs, { place: node, logPath: `${folder}/${role}-cni.log`, cleanup });
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
  };
  const logPath = `${folder}/${role}.log`, { runtimeFlags } = options;
  const ztunnel = startRole(`ztunnel of ${role}`, ["ztunnel"], {
    place: node,
    logPath,
    environment,
    runtimeFlags,
    cleanup,
  });
  const identity = ["--namespace", "bench", "--service-account", role, "--name", role];
  await runCommand(["enroll", `netns/${pod.name}`, ...identity], { AMBIT_ENROL_SOCKET: enrolSocket });
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
