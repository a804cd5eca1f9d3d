/** One node of the rig: our node agent, and a ztunnel, ours on node-a and one of another make on node-b. */
import type { NodePlace } from "../../demo/lab/network.ts";
import { Probe } from "../../demo/lab/probe.ts";
import { denoProgram, Program } from "../../demo/lab/program.ts";
import { until } from "../../demo/lab/until.ts";

export const ENTRY = new URL("../../main.ts", import.meta.url);
export const STARTED_TIMEOUT_MS = 120_000;

const PEER = Deno.env.get("AMBIT_PEER_ZTUNNEL");
/** Of every test here. */
export const OPTIONS = { ignore: PEER === undefined };
if (PEER === undefined) {
  // deno-lint-ignore no-console -- who runs the tests is to see why they are ignored
  console.log("AMBIT_PEER_ZTUNNEL names no ztunnel: the tests of the data path against it are ignored");
}

/** What both ztunnels tell of their state in the same words. */
export interface Dump {
  readonly workloads: readonly {
    readonly name: string;
    readonly namespace: string;
    readonly authorizationPolicies?: readonly string[];
  }[];
  readonly services: readonly { readonly name: string; readonly endpoints: Readonly<Record<string, unknown>> }[];
  readonly policies: readonly { readonly name: string; readonly action: string }[];
  readonly certificates: readonly {
    readonly identity: string;
    readonly state: string;
    readonly certChain: readonly { readonly serialNumber: string; readonly expirationTime: string }[];
  }[];
}

/** One node, its programs, and a probe on it. */
export class RigNode implements AsyncDisposable {
  readonly place: NodePlace;
  readonly probe: Probe;
  readonly #folder: string;
  readonly #environment: Readonly<Record<string, string>>;
  cni: Program;
  ztunnel: Program;

  constructor(place: NodePlace, folder: string, environment: Readonly<Record<string, string>>) {
    this.place = place;
    this.#folder = folder;
    this.#environment = environment;
    this.probe = new Probe(place.node, place);
    this.cni = this.startCni();
    this.ztunnel = this.startZtunnel();
  }

  get #own(): string {
    return `${this.#folder}/${this.place.node}`;
  }

  get enrolSocket(): string {
    return `${this.#own}/enrol.sock`;
  }

  startCni(): Program {
    const flags = ["--zds-socket", `${this.#own}/zds.sock`, "--enrol-socket", this.enrolSocket];
    return this.cni = new Program(
      `cni of ${this.place.node}`,
      this.place,
      denoProgram(ENTRY, ["cni", "--node-mode", ...flags, "--state-dir", `${this.#own}/cni`]),
    );
  }

  /** On node-a ours, on node-b the other. */
  startZtunnel(): Program {
    const control = `https://${this.place.controlIp}:15012`, root = `${this.#folder}/state/root-cert.pem`;
    const program = this.place.node === "node-a"
      ? denoProgram(ENTRY, ["ztunnel"])
      : { command: PEER!, args: ["proxy", "ztunnel"] };
    return this.ztunnel = new Program(`ztunnel of ${this.place.node}`, this.place, {
      ...program,
      environment: {
        PROXY_MODE: "shared",
        XDS_ADDRESS: control,
        CA_ADDRESS: control,
        XDS_ROOT_CA: root,
        CA_ROOT_CA: root,
        AUTH_TOKEN: `${this.#own}/token`,
        INPOD_UDS: `${this.#own}/zds.sock`,
        NODE_NAME: this.place.node,
        POD_NAME: `ztunnel-${this.place.node}`,
        POD_NAMESPACE: "istio-system",
        SERVICE_ACCOUNT: "ztunnel",
        ISTIO_META_DNS_CAPTURE: "false",
        ZTUNNEL_WORKER_THREADS: "2",
        ...this.#environment,
      },
    });
  }

  async ready(): Promise<void> {
    await this.cni.line("its sockets", (line) => line.includes("node agent serves"), STARTED_TIMEOUT_MS);
    await this.ztunnelReady();
  }

  async ztunnelReady(): Promise<void> {
    await until(`${this.ztunnel.name} is ready`, STARTED_TIMEOUT_MS, async () => {
      if (this.ztunnel.ended) throw new Error(`${this.ztunnel.name} ended:\n${this.ztunnel.tail()}`);
      const { output } = await this.probe.attempt("request", { url: "http://127.0.0.1:15021/healthz/ready" }) as {
        output?: { status: number };
      };
      return output?.status === 200;
    });
  }

  async dump(): Promise<Dump> {
    const { body } = await this.probe.do("request", { url: "http://localhost:15000/config_dump" });
    return JSON.parse(body);
  }

  async metrics(): Promise<string> {
    return (await this.probe.do("request", { url: "http://127.0.0.1:15020/metrics" })).body;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([this.ztunnel.stop(), this.cni.stop(), this.probe[Symbol.asyncDispose]()]);
  }
}
