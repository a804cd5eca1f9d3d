/** The control planes that are compared: how each is started outside of its cluster, against the same API server. */
import { MeshError } from "../../base/errors.ts";
import type { ApiServer } from "../../tests/kube/api_server.ts";
import { freePort } from "../../tests/kube/free_port.ts";
import { PartProcess } from "../../tests/kube/part_process.ts";
import type { Cleanup } from "../macro/cleanup.ts";
import { killChild } from "../macro/process.ts";
import type { ControlOptions, PeerName } from "./options.ts";

const SYSTEM = "istio-system";

/** A control plane that is ready. */
export interface RunningControl {
  readonly pid: number;
  /** HOST:PORT of xDS and CA over TLS. */
  readonly address: string;
  /** What its certificate leads to. */
  readonly rootsPem: string;
  stop(): Promise<void>;
}

export interface StartOptions {
  readonly server: ApiServer;
  readonly folder: string;
  readonly cleanup: Cleanup;
}

export interface ControlPeer {
  readonly name: PeerName;
  describe(): Promise<string>;
  /** Starts it and returns once it says that it is ready. @throws MeshError AMB0282 if it does not come up. */
  start(options: StartOptions): Promise<RunningControl>;
}

/** The peers that were asked for. @throws MeshError AMB9005 for one that has no path. */
export function choosePeers({ peers, paths }: ControlOptions): ControlPeer[] {
  return peers.map((name) => {
    const path = paths[name];
    if (name === "ours") return new Ours("ours", new URL("../..", import.meta.url).pathname);
    if (path === undefined) {
      throw new MeshError("AMB9005", `no path says where ${name} is`, { remedy: `Give --peer ${name}=PATH.` });
    }
    return name === "before" ? new Ours("before", path) : new Istiod(path);
  });
}

/** This repository's istiod, or another checkout's. */
class Ours implements ControlPeer {
  readonly name: PeerName;
  readonly #checkout: string;

  constructor(name: PeerName, checkout: string) {
    this.name = name;
    this.#checkout = checkout.replace(/\/$/, "");
  }

  describe(): Promise<string> {
    return Promise.resolve(this.name === "ours" ? "this checkout" : "another checkout");
  }

  async start({ server, folder, cleanup }: StartOptions): Promise<RunningControl> {
    const [grpc, http, monitoring] = [freePort(), freePort(), freePort()], state = `${folder}/state`;
    const flags = {
      kubeconfig: server.kubeconfig,
      "state-dir": state,
      "pod-name": "istiod-bench",
      "system-namespace": SYSTEM,
      "secure-grpc-address": `127.0.0.1:${grpc}`,
      "http-address": `127.0.0.1:${http}`,
      "monitoring-address": `127.0.0.1:${monitoring}`,
      "https-address": "127.0.0.1:0",
    };
    const main = [...engineFlags(this.#checkout), `${this.#checkout}/main.ts`, "istiod"];
    const args = [
      "run",
      "-A",
      "--quiet",
      ...main,
      ...Object.entries(flags).flatMap(([name, value]) => [`--${name}`, value]),
    ];
    const process = new PartProcess(this.name, {
      command: Deno.execPath(),
      args,
      logPath: `${folder}/${this.name}.log`,
      isReady: () => isReady(http),
      readyMs: 120_000,
    });
    const { pid, stop } = await begin(process, cleanup);
    return { pid, stop, address: `127.0.0.1:${grpc}`, rootsPem: await Deno.readTextFile(`${state}/root-cert.pem`) };
  }
}

/** Istio's own. */
class Istiod implements ControlPeer {
  readonly name = "istiod";
  readonly #path: string;

  constructor(path: string) {
    this.#path = path;
  }

  async describe(): Promise<string> {
    const { stdout } = await new Deno.Command(this.#path, { args: ["version", "--short"], stderr: "null" }).output();
    const version = new TextDecoder().decode(stdout).replace(/^.*:/, "").trim();
    return `Istio's istiod, version ${version}, ambient, otherwise as it comes`;
  }

  async start({ server, folder, cleanup }: StartOptions): Promise<RunningControl> {
    const [grpc, http, monitoring, plain, introspection] = Array.from({ length: 5 }, freePort);
    await Deno.writeTextFile(`${folder}/mesh`, "defaultConfig: { discoveryAddress: localhost:15012 }\n");
    const flags = {
      kubeconfig: server.kubeconfig,
      meshConfig: `${folder}/mesh`,
      secureGRPCAddr: `127.0.0.1:${grpc}`,
      httpAddr: `127.0.0.1:${http}`,
      monitoringAddr: `127.0.0.1:${monitoring}`,
      grpcAddr: `127.0.0.1:${plain}`,
      httpsAddr: "", // No webhook: nobody could call it here.
      ctrlz_port: `${introspection}`,
    };
    const process = new PartProcess(this.name, {
      command: this.#path,
      args: ["discovery", ...Object.entries(flags).map(([name, value]) => `--${name}=${value}`)],
      env: {
        PILOT_ENABLE_AMBIENT: "true", // as Istio's ambient profile has it, with the next
        CA_TRUSTED_NODE_ACCOUNTS: `${SYSTEM}/ztunnel`,
        PILOT_CERT_PROVIDER: "istiod",
        POD_NAMESPACE: SYSTEM,
        POD_NAME: "istiod-bench",
        REVISION: "default",
        CLUSTER_ID: "Kubernetes",
      },
      cwd: folder, // It writes its certificates below where it runs.
      logPath: `${folder}/${this.name}.log`,
      isReady: () => isReady(http!),
      readyMs: 120_000,
    });
    const { pid, stop } = await begin(process, cleanup);
    return { pid, stop, address: `127.0.0.1:${grpc}`, rootsPem: await rootsOf(server) };
  }
}

async function begin(process: PartProcess, cleanup: Cleanup) {
  const undone = cleanup.add(`end ${process.name}`, () => process.child && killChild(process.child));
  await process.start();
  const stop = async () => {
    await process.stop();
    undone();
  };
  return { pid: process.pid!, stop };
}

/** The roots that Istio's istiod hands to every namespace. */
async function rootsOf(server: ApiServer): Promise<string> {
  const place = ["configmap/istio-ca-root-cert", "-n", SYSTEM];
  await server.kubectl(["wait", "--for=create", "--timeout=60s", ...place]);
  return await server.kubectl(["get", ...place, "-o", "jsonpath={.data.root-cert\\.pem}"]);
}

async function isReady(port: number): Promise<boolean> {
  try {
    const response = await fetch(`http://127.0.0.1:${port}/ready`);
    await response.body?.cancel();
    return response.ok;
  } catch (error) {
    if (error instanceof TypeError) return false; // Not listening yet.
    throw error;
  }
}

/** What `deno task istiod` of that checkout gives to the runtime, so that we measure what people run; `ambit` of an older one. */
function engineFlags(checkout: string): string[] {
  const { tasks } = JSON.parse(Deno.readTextFileSync(`${checkout}/deno.json`));
  return `${(tasks.istiod ?? tasks.ambit).command}`.split(" ").filter((word) => word.startsWith("--v8-flags="));
}
