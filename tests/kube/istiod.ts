/** istiod as a process of its own against a test's API server, with the rights that its manifest gives it and no others. */
import { Buffer } from "node:buffer";
import { makeRequest } from "../../dataplane/agent/workload_certificate.ts";
import { decodeIstioCertificateResponse, encodeIstioCertificateRequest } from "../../mesh/proto/ca_codec.ts";
import type { ApiServer } from "./api_server.ts";
import { freePort } from "./free_port.ts";
import { MeshReader, openChannel, type ReaderOptions } from "./mesh_reader.ts";
import { PartProcess } from "./part_process.ts";

export const SYSTEM = "istio-system";
const MANIFESTS = new URL("../../deploy/kubernetes", import.meta.url).pathname;
const MAIN = new URL("../../main.ts", import.meta.url).pathname;
const READY_MS = 180_000, PAGE_MS = 30_000, CA_MS = 60_000;
const CA_METHOD = "/istio.v1.auth.IstioCertificateService/CreateCertificate";
const raw = (bytes: Buffer): Buffer => bytes;

/** Applies what a user would: namespace, settings, account, rights. And an account for the node's proxies. */
export async function installManifests(server: ApiServer): Promise<void> {
  await server.kubectl(["apply", "--server-side", "-k", MANIFESTS]);
  // There is no network on which the API server could ask it.
  await server.kubectl(["delete", "validatingwebhookconfigurations", "-l", "app=istiod"]);
  const metadata = { name: "ztunnel", namespace: SYSTEM };
  await server.apply({ apiVersion: "v1", kind: "ServiceAccount", metadata });
}

/** One replica. */
export class Istiod implements AsyncDisposable {
  readonly manifests = MANIFESTS;
  readonly process: PartProcess;
  readonly address: string;
  readonly httpUrl: string;
  readonly monitoringUrl: string;
  readonly #server: ApiServer;
  readonly #folder: string;

  private constructor(server: ApiServer, folder: string, kubeconfig: string, name: string, flags: readonly string[]) {
    const [grpc, http, monitoring] = [freePort(), freePort(), freePort()];
    this.#server = server;
    this.#folder = folder;
    this.address = `127.0.0.1:${grpc}`;
    this.httpUrl = `http://127.0.0.1:${http}`;
    this.monitoringUrl = `http://127.0.0.1:${monitoring}`;
    const own = {
      kubeconfig,
      "state-dir": `${folder}/state`,
      "pod-name": name,
      "system-namespace": SYSTEM,
      "secure-grpc-address": this.address,
      "http-address": `127.0.0.1:${http}`,
      "monitoring-address": `127.0.0.1:${monitoring}`,
      "https-address": "127.0.0.1:0",
    };
    this.process = new PartProcess(name, {
      command: Deno.execPath(),
      args: [
        ...["run", "-A", "--quiet", MAIN, "istiod"],
        ...Object.entries(own).flatMap(([flag, value]) => [`--${flag}`, value]),
        ...flags,
      ],
      logPath: `${folder}/istiod.log`,
      isReady: async () => (await this.page("/ready")).status === 200,
      readyMs: READY_MS,
    });
  }

  /** Starts one after {@link installManifests}, and returns once it is ready. */
  static async start(server: ApiServer, name = "istiod-1", flags: readonly string[] = []): Promise<Istiod> {
    const istiod = await Istiod.prepare(server, name, flags);
    await istiod.process.start();
    return istiod;
  }

  /** One that is not started yet. */
  static async prepare(server: ApiServer, name = "istiod-1", flags: readonly string[] = []): Promise<Istiod> {
    const folder = `${server.folder}/${name}`; // It goes with the API server's.
    await Deno.mkdir(folder);
    const kubeconfig = await server.writeKubeconfig(name, await server.accountToken(SYSTEM, "istiod"));
    return new Istiod(server, folder, kubeconfig, name, flags);
  }

  /** A page's status and text; status 0 while nobody listens, or answers. */
  async page(path: string, base = this.httpUrl): Promise<{ status: number; text: string }> {
    try {
      const response = await fetch(`${base}${path}`, { signal: AbortSignal.timeout(PAGE_MS) });
      return { status: response.status, text: await response.text() };
    } catch (error) {
      if (error instanceof TypeError || error instanceof DOMException) return { status: 0, text: error.message };
      throw error;
    }
  }

  /** What its certificate leads to. */
  rootsPem(): Promise<string> {
    return Deno.readTextFile(`${this.#folder}/state/root-cert.pem`);
  }

  /** A node's proxy that has the whole mesh. */
  async reader(token?: string, pings?: ReaderOptions["pings"]): Promise<MeshReader> {
    const account = token ?? await this.#server.accountToken(SYSTEM, "ztunnel", "istio-ca");
    return await MeshReader.open({ address: this.address, rootsPem: await this.rootsPem(), token: account, pings });
  }

  /** Has a certificate signed, as a node's proxy for a pod on its node. @returns The chain, PEM. */
  async certificate(token: string, identity: string): Promise<readonly string[]> {
    const { csrPem } = await makeRequest(identity), metadata = { ImpersonatedIdentity: identity };
    const bytes = encodeIstioCertificateRequest({ csr: csrPem, validitySeconds: 3_600, metadata });
    using channel = await openChannel({ address: this.address, rootsPem: await this.rootsPem(), token });
    const answer = await new Promise<Buffer>((resolve, reject) =>
      channel.client.makeUnaryRequest(CA_METHOD, raw, raw, Buffer.from(bytes), channel.metadata, {
        deadline: Date.now() + CA_MS,
      }, (error, answer) => {
        if (error === null && answer !== undefined) resolve(answer);
        else reject(error ?? new Error("an empty answer"));
      })
    );
    return decodeIstioCertificateResponse(answer).certChain;
  }

  /** What it has logged, a line each. */
  async log(): Promise<string[]> {
    return (await this.process.log()).split("\n").filter((line) => line !== "");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.process.stop();
  }
}
