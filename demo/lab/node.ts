/** One node of the lab: its ztunnel, its node agent, and a probe that reads their pages. */
import { askNodeAgent } from "../../cli/enrol_client.ts";
import { parseMetrics, type Sample } from "./metrics.ts";
import type { NodePlace, PodPlace } from "./network.ts";
import { Probe } from "./probe.ts";
import { denoProgram, Program } from "./program.ts";
import { Hopeless, until } from "./until.ts";

export const ENTRY = new URL("../../main.ts", import.meta.url);
/** A successor ends with it when the CA gave it no certificate in time; the one before it serves on. */
export const CALLED_OFF = "AMB2425";
const READY_TIMEOUT_MS = 120_000; // Seconds as a rule; on a machine that does much else a start takes its time.

/** A pod's identity in the mesh configuration. */
export interface PodIdentity {
  readonly name: string;
  readonly namespace: string;
  readonly serviceAccount: string;
}

/** The parts of ztunnel's view of the mesh that are looked at here. */
export interface ConfigDump {
  readonly workloads: readonly {
    readonly name: string;
    readonly namespace: string;
    readonly serviceAccount?: string;
    readonly protocol: string;
    readonly authorizationPolicies?: readonly string[];
  }[];
  readonly services: readonly { readonly name: string; readonly namespace: string }[];
  readonly policies: readonly { readonly name: string; readonly namespace: string; readonly action: string }[];
  readonly certificates: readonly { readonly identity: string; readonly state: string }[];
}

export interface NodeOptions {
  /** Folder of the node's sockets, token and state. */
  readonly folder: string;
  readonly rootCertificate: string;
  /** Further settings of ztunnel, by environment. */
  readonly ztunnelEnvironment: Readonly<Record<string, string>>;
  /** Further settings of the node agent, by environment. */
  readonly cniEnvironment?: Readonly<Record<string, string>>;
  readonly onLine: (role: string, line: string) => void;
}

export class LabNode implements AsyncDisposable {
  readonly place: NodePlace;
  readonly probe: Probe;
  readonly #options: NodeOptions;
  #cni: Program;
  #ended = false;
  #ztunnel: Program;
  /** Before {@link startSuccessor}: it ends by itself when all goes well. */
  #predecessor: Program | undefined;

  /** Starts the node's programs; {@link ready} tells when they serve. The folder must hold the file `token`. */
  constructor(place: NodePlace, options: NodeOptions) {
    this.place = place;
    this.#options = options;
    this.probe = new Probe(place.node, place);
    this.#cni = this.#startCni();
    this.#ztunnel = this.#startZtunnel();
  }

  get enrolSocket(): string {
    return `${this.#options.folder}/enrol.sock`;
  }

  /** Where its node agent looks for enrolments in files. */
  get enrolDir(): string {
    return `${this.#options.folder}/enrol.d`;
  }

  get cni(): Program {
    return this.#cni;
  }

  get ztunnel(): Program {
    return this.#ztunnel;
  }

  /** Waits until the node agent serves and ztunnel is ready for pods. */
  async ready(): Promise<void> {
    await this.#cniReady();
    await this.ztunnelReady();
  }

  async #cniReady(): Promise<void> {
    await this.#cni.line("its sockets", (line) => line.includes("node agent serves"));
  }

  /** Waits until ztunnel has its first configuration and has heard the node agent. */
  async ztunnelReady(): Promise<void> {
    await until(`ztunnel of ${this.place.node} is ready`, READY_TIMEOUT_MS, async () => {
      if (this.#ztunnel.ended) throw new Hopeless(`ztunnel of ${this.place.node} ended:\n${this.#ztunnel.tail()}`);
      const { output } = await this.probe.attempt("request", { url: "http://127.0.0.1:15021/healthz/ready" }) as {
        output?: { status: number };
      };
      return output?.status === 200;
    });
  }

  /** Ends ztunnel at once, as a crash would. The caller starts the next by {@link restartZtunnel}. */
  async crashZtunnel(): Promise<void> {
    this.#ztunnel.kill("SIGKILL");
    await this.#ztunnel.stop(0);
  }

  /** Ends the node agent, by a signal or as a crash would, and starts it anew. Returns once it serves. */
  async restartCni(signal: "SIGTERM" | "SIGKILL"): Promise<void> {
    this.#cni.kill(signal);
    await this.#cni.stop();
    if (this.#ended) throw new Error("the node is being taken down");
    this.#cni = this.#startCni();
    await this.#cniReady();
  }

  restartZtunnel(): void {
    this.#ztunnel = this.#startZtunnel();
  }

  /** Starts a ztunnel that takes over from the one that runs. @returns The log's line about it, once the other has ended. */
  async takeOver(environment: Readonly<Record<string, string>> = {}): Promise<string> {
    const predecessor = this.#ztunnel, successor = this.startSuccessor(environment);
    const told = (it: string) => it.includes("taken over") || it.includes(CALLED_OFF);
    const line = await successor.line("the takeover", told, READY_TIMEOUT_MS);
    if (line.includes(CALLED_OFF)) {
      await successor.status;
      this.#ztunnel = predecessor;
      return line;
    }
    const { code } = await predecessor.status;
    if (code !== 0) throw new Error(`the predecessor ended with ${code}:\n${predecessor.tail()}`);
    return line;
  }

  /** Starts a ztunnel that takes over, which counts as the node's from now on. */
  startSuccessor(environment: Readonly<Record<string, string>> = {}): Program {
    this.#predecessor = this.#ztunnel;
    return this.#ztunnel = this.#startZtunnel({ ...environment, AMBIT_TAKEOVER: "true" });
  }

  /** Ends the successor at once, as a crash would: the ztunnel before it is the node's again. */
  async crashSuccessor(): Promise<void> {
    const successor = this.#ztunnel;
    this.#ztunnel = this.#predecessor!;
    successor.kill("SIGKILL");
    await successor.stop(0);
  }

  /** Brings a running pod into the mesh. Returns once ztunnel listens in it. */
  async enrol(pod: PodPlace, { namespace, serviceAccount, name }: PodIdentity): Promise<void> {
    const body = { target: `netns/${pod.name}`, namespace, serviceAccount, name };
    await askNodeAgent(this.enrolSocket, { method: "POST", path: "/enrol", body });
  }

  async unenrol(pod: PodPlace): Promise<void> {
    const body = { target: `netns/${pod.name}` };
    await askNodeAgent(this.enrolSocket, { method: "POST", path: "/unenrol", body });
  }

  /** What ztunnel counts. */
  async metrics(): Promise<Sample[]> {
    const { body } = await this.probe.do("request", { url: "http://127.0.0.1:15020/metrics" });
    return parseMetrics(body);
  }

  /** ztunnel's view of the mesh. */
  async configDump(): Promise<ConfigDump> {
    const { body } = await this.probe.do("request", { url: "http://127.0.0.1:15000/config_dump" });
    return JSON.parse(body);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#ended = true;
    await Promise.all([
      this.#ztunnel.stop(),
      this.#predecessor?.stop(),
      this.#cni.stop(),
      this.probe[Symbol.asyncDispose](),
    ]);
  }

  #startCni(): Program {
    return new Program(`cni of ${this.place.node}`, this.place, {
      ...denoProgram(ENTRY, [
        "cni",
        "--node-mode",
        "--zds-socket",
        `${this.#options.folder}/zds.sock`,
        "--enrol-socket",
        this.enrolSocket,
        "--state-dir",
        `${this.#options.folder}/cni`,
        "--enrol-dir",
        this.enrolDir,
      ]),
      environment: this.#options.cniEnvironment ?? {},
      onLine: (line) => this.#options.onLine("cni", line),
    });
  }

  #startZtunnel(further: Readonly<Record<string, string>> = {}): Program {
    const { folder, rootCertificate, ztunnelEnvironment, onLine } = this.#options;
    const control = `https://${this.place.controlIp}:15012`;
    return new Program(`ztunnel of ${this.place.node}`, this.place, {
      ...denoProgram(ENTRY, ["ztunnel"]),
      environment: {
        XDS_ADDRESS: control,
        CA_ADDRESS: control,
        XDS_ROOT_CA: rootCertificate,
        CA_ROOT_CA: rootCertificate,
        AUTH_TOKEN: `${folder}/token`,
        INPOD_UDS: `${folder}/zds.sock`,
        AMBIT_TAKEOVER_SOCKET: `${folder}/takeover.sock`,
        NODE_NAME: this.place.node,
        POD_NAME: `ztunnel-${this.place.node}`,
        POD_NAMESPACE: "istio-system",
        ZTUNNEL_WORKER_THREADS: "2",
        ...ztunnelEnvironment,
        ...further,
      },
      onLine: (line) => onLine("ztunnel", line),
    });
  }
}
