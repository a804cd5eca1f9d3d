/** istiod with its CA over a real API server: accounts, pods bound to nodes, tokens that the API server itself mints. */
import { Buffer } from "node:buffer";
import { loopbackClient } from "../interop/control_rig.ts";
import * as grpc from "@grpc/grpc-js";
import { Logger } from "../../base/log.ts";
import { ISTIOD_CONFIG } from "../../control/config.ts";
import { type RunningIstiod, startIstiod } from "../../control/main.ts";
import { makeRequest } from "../../dataplane/agent/workload_certificate.ts";
import { type OpenKubeApi, openKubeApi } from "../../kube/client.ts";
import { loadKubeconfig } from "../../kube/kubeconfig_access.ts";
import { decodeIstioCertificateResponse, encodeIstioCertificateRequest } from "../../mesh/proto/ca_codec.ts";
import { type ApiServer, type ApiServerOptions, startApiServer } from "./api_server.ts";

const METHOD = "/istio.v1.auth.IstioCertificateService/CreateCertificate";
const raw = (bytes: Buffer) => bytes;
const silent = new Logger("kube", { sink: () => {} });

export interface Answer {
  readonly code: grpc.status;
  readonly details: string;
  readonly certChain: readonly string[];
}

/** One istiod over a cluster that others may share. */
export class Istiod implements AsyncDisposable {
  readonly lines: string[] = [];
  readonly name: string;
  readonly #api: OpenKubeApi;
  readonly #stop = new AbortController();
  #running!: RunningIstiod;

  private constructor(name: string, api: OpenKubeApi) {
    this.name = name;
    this.#api = api;
  }

  static async start(server: ApiServer, name: string, ...flags: string[]): Promise<Istiod> {
    const api = openKubeApi(await loadKubeconfig(server.kubeconfig), { log: silent });
    const istiod = new Istiod(name, api);
    const local = ["secure-grpc", "https", "http", "monitoring"].map((it) => `--${it}-address=127.0.0.1:0`);
    const { config } = ISTIOD_CONFIG.parse([...local, `--pod-name=${name}`, ...flags], () => undefined);
    const log = new Logger("istiod", { sink: (line) => istiod.lines.push(line) });
    try {
      istiod.#running = await startIstiod(config, { signal: istiod.#stop.signal, log, api });
    } catch (error) {
      api.close();
      throw error;
    }
    return istiod;
  }

  get rootsPem(): string {
    return this.#running.rootsPem;
  }

  /** A channel to it; the caller closes it. */
  client(): grpc.Client {
    const credentials = grpc.credentials.createSsl(Buffer.from(this.rootsPem));
    return loopbackClient(this.#running.secureGrpcPort, credentials);
  }

  /** Asks for a certificate, with a token, in a cluster, for an identity. */
  async ask(
    token: string | undefined,
    { csr, cluster, identity, client }: { csr?: string; cluster?: string; identity?: string; client?: grpc.Client } =
      {},
  ): Promise<Answer> {
    const channel = client ?? this.client(), metadata = new grpc.Metadata();
    if (token !== undefined) metadata.set("authorization", `Bearer ${token}`);
    if (cluster !== undefined) metadata.set("clusterid", cluster);
    const message = encodeIstioCertificateRequest({
      csr: csr ?? (await makeRequest("spiffe://cluster.local/ns/any/sa/any")).csrPem,
      validitySeconds: 3_600,
      ...(identity === undefined ? {} : { metadata: { ImpersonatedIdentity: identity } }),
    });
    const { promise, resolve } = Promise.withResolvers<Answer>();
    const options = { deadline: Date.now() + 60_000 };
    channel.makeUnaryRequest(METHOD, raw, raw, Buffer.from(message), metadata, options, (error, value) => {
      if (error !== null) resolve({ code: error.code, details: error.details, certChain: [] });
      else resolve({ code: grpc.status.OK, details: "", ...decodeIstioCertificateResponse(value!) });
    });
    try {
      return await promise;
    } finally {
      if (client === undefined) channel.close();
    }
  }

  async metric(name: string): Promise<string> {
    const response = await fetch(`http://127.0.0.1:${this.#running.monitoringPort}/metrics`);
    const line = (await response.text()).split("\n").find((it) => it.startsWith(`${name} `));
    return line?.slice(name.length + 1) ?? "none";
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#running.done;
    this.#api.close();
  }
}

/** An API server with a mesh's namespaces and accounts. */
export async function startMesh(options: ApiServerOptions = {}): Promise<ApiServer> {
  const server = await startApiServer(options);
  try {
    await server.apply(
      ...["istio-system", "shop"].map((name) => ({ apiVersion: "v1", kind: "Namespace", metadata: { name } })),
    );
    const accounts = [["istio-system", "ztunnel"], ["shop", "cart"], ["shop", "bill"], ["shop", "new"]];
    await server.apply(...accounts.map(([namespace, name]) => ({
      apiVersion: "v1",
      kind: "ServiceAccount",
      metadata: { name, namespace },
    })));
  } catch (error) {
    await server[Symbol.asyncDispose]();
    throw error;
  }
  return server;
}

/** A pod that is bound to a node from its beginning. */
export function pod(namespace: string, account: string, node: string, name = `${account}-1`): object {
  return {
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name, namespace },
    spec: { serviceAccountName: account, nodeName: node, containers: [{ name: "app", image: "none" }] },
  };
}

/** A token bound to a pod, as a kubelet asks for it. */
export async function podToken(
  server: ApiServer,
  [namespace, account, name]: readonly [string, string, string],
  audience = "istio-ca",
): Promise<string> {
  const bound = ["--bound-object-kind", "Pod", "--bound-object-name", name];
  const args = ["create", "token", account, "-n", namespace, "--audience", audience, ...bound];
  return (await server.kubectl(args)).trim();
}

/** Polls until it holds. */
export async function until(what: string, holds: () => Promise<boolean> | boolean): Promise<void> {
  const deadlineMs = performance.now() + 180_000;
  while (!await holds()) {
    if (performance.now() > deadlineMs) throw new Error(`in time: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
