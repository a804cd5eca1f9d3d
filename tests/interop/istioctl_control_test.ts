/**
 * Istio's own `istioctl` against our istiod: proxy-status, x version, x internal-debug over xDS, with a client certificate
 * and over plaintext (CP-018 to CP-021). Needs AMBIT_PEER_ISTIOCTL, the path of its program; without the variable the test
 * is shown as ignored. What it asks a cluster's API server for, to find istiod's pods, no test of this folder has.
 */
import { assertEquals, assertStringIncludes } from "@std/assert";
import { Logger } from "../../base/log.ts";
import { ISTIOD_CONFIG } from "../../control/config.ts";
import { type RunningIstiod, startIstiod } from "../../control/main.ts";
import { TokenIssuer } from "../../control/tokens.ts";
import { makeRequest } from "../../dataplane/agent/workload_certificate.ts";
import { XdsClient } from "../../dataplane/agent/xds_client.ts";
import { decodeIstioCertificateResponse, encodeIstioCertificateRequest } from "../../mesh/proto/ca_codec.ts";
import * as grpc from "@grpc/grpc-js";
import { Buffer } from "node:buffer";
import { CA_METHOD, headers, loopbackClient, raw } from "./control_rig.ts";
import { RecordingState } from "./xds_rig.ts";

const ISTIOCTL = Deno.env.get("AMBIT_PEER_ISTIOCTL");
const POD = `{ apiVersion: v1, kind: Pod, metadata: { name: cart-1, namespace: shop }, spec: { serviceAccountName: cart,
  nodeName: node-1, containers: [] }, status: { phase: Running, podIP: 10.0.0.5, podIPs: [{ ip: 10.0.0.5 }] } }`;
/** It makes a client of a cluster before it looks at its flags, and never uses it. */
const KUBECONFIG = `{ apiVersion: v1, kind: Config, current-context: c,
  clusters: [{ name: c, cluster: { server: "http://127.0.0.1:1" } }],
  contexts: [{ name: c, context: { cluster: c, user: u } }], users: [{ name: u, user: {} }] }`;

/** istiod on loopback with one ztunnel connected; dispose it to stop both. */
class Rig implements AsyncDisposable {
  readonly folder: string;
  readonly #stop = new AbortController();
  #istiod: RunningIstiod | undefined;
  #ztunnel: Promise<void> | undefined;

  private constructor(folder: string) {
    this.folder = folder;
  }

  static async start(): Promise<Rig> {
    const rig = new Rig(await Deno.makeTempDir({ prefix: "ambit-istioctl-" }));
    try {
      await rig.#run();
      return rig;
    } catch (error) {
      await rig[Symbol.asyncDispose]();
      throw error;
    }
  }

  async #run(): Promise<void> {
    const { folder } = this, { signal } = this.#stop;
    await Deno.mkdir(`${folder}/objects`);
    await Deno.writeTextFile(`${folder}/objects/pod.yaml`, POD);
    await Deno.writeTextFile(`${folder}/kubeconfig`, KUBECONFIG);
    const listeners = ["secure-grpc", "grpc", "http", "monitoring"].map((it) => `--${it}-address=127.0.0.1:0`);
    const places = [`--config-dir=${folder}/objects`, `--state-dir=${folder}/state`];
    const { config } = ISTIOD_CONFIG.parse([...listeners, ...places], () => undefined);
    const istiod = this.#istiod = await startIstiod(config, { signal, log: new Logger("istiod", { sink: () => {} }) });
    const tokens = await TokenIssuer.open(`${folder}/state`);
    const proxy = {
      namespace: "istio-system",
      serviceAccount: "ztunnel",
      pod: "ztunnel-1",
      podUid: "",
      node: "node-1",
    };
    const token = await tokens.mint(proxy, { ttlMs: 600_000, nowMs: Date.now() });
    // The account that the tool says it is of, whatever it shows.
    const tool = { ...proxy, serviceAccount: "default", pod: "tool" };
    await this.#makeCertificate(istiod, await tokens.mint(tool, { ttlMs: 600_000, nowMs: Date.now() }));
    const client = new XdsClient({
      endpoint: {
        address: `https://127.0.0.1:${istiod.secureGrpcPort}`,
        roots: { kind: "file", path: `${folder}/state/root-cert.pem` },
        token: { kind: "static", token },
        clusterId: "Kubernetes",
        alternativeHostname: "",
        tls12: false,
        headers: {},
      },
      node: { id: "ztunnel~10.0.0.1~ztunnel-1.istio-system~d", metadata: { ISTIO_VERSION: "1.31.0" } },
      state: new RecordingState(),
      onDemand: false,
      log: new Logger("ztunnel", { sink: () => {} }),
      onTermination: () => {},
    });
    this.#ztunnel = client.run({ signal });
    await client.ready;
  }

  /** A certificate of the tool's account in a folder, as `--cert-dir` wants it. */
  async #makeCertificate({ secureGrpcPort, rootsPem }: RunningIstiod, token: string): Promise<void> {
    const request = await makeRequest("spiffe://cluster.local/ns/istio-system/sa/default");
    const bytes = Buffer.from(encodeIstioCertificateRequest({ csr: request.csrPem, validitySeconds: 600 }));
    const client = loopbackClient(secureGrpcPort, grpc.credentials.createSsl(Buffer.from(rootsPem)));
    const answer = await new Promise<Buffer>((resolve, reject) =>
      client.makeUnaryRequest(
        CA_METHOD,
        raw,
        raw,
        bytes,
        headers(token),
        (error, value) => error === null && value !== undefined ? resolve(value) : reject(error),
      )
    );
    client.close();
    const folder = `${this.folder}/certificates`;
    await Deno.mkdir(folder);
    const { certChain } = decodeIstioCertificateResponse(answer);
    await Deno.writeTextFile(`${folder}/cert-chain.pem`, certChain.join(""));
    await Deno.writeTextFile(`${folder}/key.pem`, request.privateKeyPem);
    await Deno.writeTextFile(`${folder}/root-cert.pem`, rootsPem);
  }

  /** What istioctl prints. @throws Error with what it says of a failure. */
  async said(way: "plaintext" | "certificate", ...args: readonly string[]): Promise<string> {
    const { grpcPort, secureGrpcPort } = this.#istiod!;
    const reached = way === "plaintext"
      ? [`--xds-address=127.0.0.1:${grpcPort}`, "--plaintext"]
      : [`--xds-address=localhost:${secureGrpcPort}`, `--cert-dir=${this.folder}/certificates`];
    const command = [...args, ...reached, "--kubeconfig", `${this.folder}/kubeconfig`, "-r", "default"];
    const { success, stdout, stderr } = await new Deno.Command(ISTIOCTL!, { args: command }).output();
    if (!success) throw new Error(new TextDecoder().decode(stderr));
    return new TextDecoder().decode(stdout);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await Promise.all([this.#ztunnel, this.#istiod?.done]);
    await Deno.remove(this.folder, { recursive: true });
  }
}

Deno.test({
  name: "istioctl asks our istiod for proxy-status, version and debug pages (CP-018, CP-021)",
  ignore: ISTIOCTL === undefined,
}, async (t) => {
  await using rig = await Rig.start();
  const columns = (text: string) => text.trimEnd().split("\n").map((line) => line.split(/ {2,}/));
  await t.step("proxy-status, once the ztunnel has acknowledged", async () => {
    let row: readonly string[] = [];
    for (let tries = 0; tries < 20 && !row.includes("2 (WDS,WADS)"); tries++) {
      row = columns(await rig.said("plaintext", "proxy-status"))[1] ?? [];
    }
    assertEquals([row[0], row[1], row[2], row[3]], ["ztunnel-1.istio-system", "Kubernetes", Deno.hostname(), "1.31.0"]);
  });
  for (const way of ["plaintext", "certificate"] as const) {
    await t.step(`${way}: every type's status`, async () => {
      const [, row] = columns(await rig.said(way, "proxy-status", "-v", "1"));
      assertEquals(row!.filter((it) => it.startsWith("SYNCED")).length, 2, String(row));
    });
    await t.step(`${way}: x version`, async () => {
      const text = await rig.said(way, "x", "version");
      assertStringIncludes(text, "control plane version: 0.1.0");
      assertStringIncludes(text, "data plane version: 1.31.0 (1 proxies)");
    });
    await t.step(`${way}: x internal-debug`, async () => {
      const [row] = JSON.parse(await rig.said(way, "x", "internal-debug", "syncz"));
      assertEquals([row.proxy, row.proxy_type], ["ztunnel-1.istio-system", "ztunnel"]);
      const list = JSON.parse(await rig.said(way, "x", "internal-debug", "--list")) as string[];
      assertEquals(list.includes("ambientz"), true);
      const dump = await rig.said(way, "x", "internal-debug", "config_dump?proxyID=ztunnel-1.istio-system");
      assertEquals(JSON.parse(dump).configs[0].workload.name, "cart-1");
      const elsewhere = await rig.said(way, "x", "internal-debug", "config_dump?proxyID=nobody.shop");
      assertStringIncludes(elsewhere, "Proxy not connected to this Pilot instance");
    });
  }
});
