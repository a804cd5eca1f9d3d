/** A control plane on loopback with resources made by the test, and raw gRPC calls to it. */
import { Buffer } from "node:buffer";
import * as grpc from "@grpc/grpc-js";
import { Logger } from "../../base/log.ts";
import { CertificateAuthority } from "../../control/ca/authority.ts";
import { certificateMethod } from "../../control/ca/ca_grpc.ts";
import { Authenticator } from "../../control/ca/caller.ts";
import { CallerClusters } from "../../control/ca/caller_clusters.ts";
import { CertificateService } from "../../control/ca/certificate_service.ts";
import { ClientCertificateWay } from "../../control/ca/client_certificate.ts";
import { loadSelfSigned } from "../../control/ca/self_signed_folder.ts";
import { NodeAuthorizer } from "../../control/ca/node_authorizer.ts";
import { OwnTokenWay } from "../../control/ca/own_token.ts";
import { openStateFolder } from "../../control/ca/state_files.ts";
import { ListenerCredentials } from "../../control/grpc/listener_credentials.ts";
import { GrpcMetrics } from "../../control/grpc/metrics.ts";
import { GrpcServer } from "../../control/grpc/server.ts";
import { Metrics } from "../../base/metrics.ts";
import type { PodObject } from "../../control/objects.ts";
import { TokenIssuer } from "../../control/tokens.ts";
import { AdsService } from "../../control/xds/ads_service.ts";
import { REQUEST_BYTES_MAX } from "../../mesh/proto/discovery_codec.ts";
import { HeldPort } from "../../os/held_port_testing.ts";
import type { Resource, ResourceView } from "../../control/xds/resources.ts";
import type { ControlEndpoint } from "../../dataplane/agent/control_channel.ts";

export const TRUST_DOMAIN = "cluster.local";
export const ADS_METHOD = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
export const CA_METHOD = "/istio.v1.auth.IstioCertificateService/CreateCertificate";
export const raw = (bytes: Buffer): Buffer => bytes;
/** Who a server of these tests is: by the name that istiod has everywhere, and as it is called here. */
export const SERVER_NAMES = ["localhost", "127.0.0.1", "istiod.istio-system.svc"];

/**
 * A channel to a port of loopback, with TLS. By its number: `localhost` has a second address on many machines, which a
 * channel tries when the first is slow, and whose refusal it goes on counting after it was closed.
 */
export function loopbackClient(
  port: number,
  credentials: grpc.ChannelCredentials,
  options: grpc.ClientOptions = {},
): grpc.Client {
  return new grpc.Client(`127.0.0.1:${port}`, credentials, {
    "grpc.ssl_target_name_override": "localhost",
    "grpc.use_local_subchannel_pool": 1,
    ...options,
  });
}

/** A channel's timer for pings goes when its session has closed, which may be after the channel's own close, and the test. */
const NO_PINGS = { intervalMs: -1, timeoutMs: 1 };

/** Resources by type, set by the test. */
export class TestMesh implements ResourceView {
  readonly types = new Map<string, Map<string, Resource>>();
  generation = 0;

  all(typeUrl: string): Iterable<Resource> {
    return this.types.get(typeUrl)?.values() ?? [];
  }
  lookup(typeUrl: string, name: string): Resource[] {
    return [...this.all(typeUrl)].filter((it) => it.name === name || it.aliases.includes(name));
  }
  workloadsOnNode(): Resource[] {
    return [];
  }
  set(typeUrl: string, resource: Resource): void {
    const map = this.types.get(typeUrl) ?? new Map<string, Resource>();
    this.types.set(typeUrl, map.set(resource.name, resource));
    this.generation++;
  }
}

export function podObject(name: string, part: Partial<PodObject> & { namespace?: string; uid?: string }): PodObject {
  const { namespace = "shop", uid = "uid-1", ...rest } = part;
  return {
    kind: "Pod",
    meta: {
      name,
      namespace,
      uid,
      labels: new Map(),
      annotations: new Map(),
      generation: 0,
      createdAtMs: 0,
      deleting: false,
      generateName: "",
      controller: undefined,
    },
    serviceAccountName: "default",
    nodeName: "node-1",
    hostNetwork: false,
    containerPorts: [],
    phase: "Running",
    podIps: [],
    ready: "true",
    ...rest,
  };
}

/** A running control plane; dispose it to stop it. */
export class ControlRig implements AsyncDisposable {
  readonly mesh = new TestMesh();
  readonly clusters = new CallerClusters("Kubernetes");
  readonly pods = this.clusters.set("Kubernetes");
  readonly metrics = new Metrics();
  readonly logLines: string[] = [];
  readonly stateDir: string;
  readonly authority: CertificateAuthority;
  readonly tokens: TokenIssuer;
  ads: AdsService;
  port = 0;
  /** Of a second listener, without TLS. */
  plainPort = 0;
  credentials: ListenerCredentials;
  /** How far the clock that tokens are held to is ahead. */
  tokensAheadMs = 0;
  #server: GrpcServer;
  #plainServer: GrpcServer;
  #connectionAgeMs = 0;
  #keepaliveIntervalMs = 0;
  readonly #held = new HeldPort();
  #toClients = { identityCheck: true, ambient: true };

  private constructor(stateDir: string, authority: CertificateAuthority, tokens: TokenIssuer) {
    this.stateDir = stateDir;
    this.authority = authority;
    this.tokens = tokens;
    this.ads = undefined!;
    this.credentials = undefined!;
    this.#server = undefined!;
    this.#plainServer = undefined!;
  }

  static async start(
    { connectionAgeMs = 3_600_000, keepaliveIntervalMs = 30_000, ...toClients }: {
      connectionAgeMs?: number;
      keepaliveIntervalMs?: number;
      identityCheck?: boolean;
      ambient?: boolean;
    } = {},
  ): Promise<ControlRig> {
    const stateDir = await Deno.makeTempDir({ prefix: "control-rig-" });
    await openStateFolder(stateDir);
    const authority = await CertificateAuthority.create(await loadSelfSigned(stateDir, TRUST_DOMAIN, Date.now()));
    const rig = new ControlRig(stateDir, authority, await TokenIssuer.open(stateDir));
    rig.#connectionAgeMs = connectionAgeMs;
    rig.#keepaliveIntervalMs = keepaliveIntervalMs;
    rig.#toClients = { ...rig.#toClients, ...toClients };
    await Deno.writeTextFile(`${stateDir}/root.pem`, authority.material.rootsPem);
    await rig.listen();
    return rig;
  }

  /** Serves, on the same port each time; the mesh is kept. */
  async listen(): Promise<void> {
    const log = new Logger("rig", { sink: (line) => this.logLines.push(line) });
    const metrics = this.metrics;
    const isOurs = (trustDomain: string) => trustDomain === TRUST_DOMAIN;
    const authenticator = new Authenticator([
      new ClientCertificateWay(isOurs, { firstOf: () => undefined }),
      new OwnTokenWay({
        tokens: this.tokens,
        trustDomain: () => TRUST_DOMAIN,
        clusterId: "Kubernetes",
        now: () => Date.now() + this.tokensAheadMs,
      }),
    ]);
    const limits = {
      keepaliveIntervalMs: this.#keepaliveIntervalMs,
      keepaliveTimeoutMs: 10_000,
      ageMsMax: this.#connectionAgeMs,
      ageGraceMs: 200,
      streamsMax: 1_000,
      stallMsMax: 60_000,
    };
    const options = { limits, metrics: new GrpcMetrics(metrics, () => performance.now()), log };
    this.#server = new GrpcServer(options);
    this.#plainServer = new GrpcServer(options);
    this.ads = new AdsService({
      view: this.mesh,
      authenticator,
      metrics,
      log,
      newStreamsPerSecond: 10_000,
      trustedNodeAccounts: ["istio-system/ztunnel"],
      ...this.#toClients,
      controlPlane: "{}",
      requestBytesMax: REQUEST_BYTES_MAX,
      debugRules: () => ({ namespaces: new Set(["istio-system"]), enforced: true }),
      debug: () => ({ page: (name) => `page ${name}`, clients: () => [], configOf: () => undefined }),
      now: Date.now,
    });
    for (const method of this.ads.methods("tls")) this.#server.add(method);
    for (const method of this.ads.methods("plaintext")) this.#plainServer.add(method);
    this.ads.open();
    const service = new CertificateService({
      authority: this.authority,
      authenticator,
      authorizer: new NodeAuthorizer({
        clusters: this.clusters,
        trustedAccounts: new Set(["istio-system/ztunnel"]),
        isOurs,
      }),
      defaultTtlMs: 86_400_000,
      maxTtlMs: 90 * 86_400_000,
      metrics,
      log,
    });
    this.#server.add(certificateMethod(service, log));
    const certificate = await this.authority.issueServer(SERVER_NAMES);
    const address = { host: "127.0.0.1", port: this.#held.port };
    this.credentials = new ListenerCredentials({ ...certificate, rootsPem: this.authority.material.rootsPem });
    this.port = await this.#server.listen(address, this.credentials);
    this.plainPort = await this.#plainServer.listen({ host: "127.0.0.1", port: 0 });
  }

  async stopServing(): Promise<void> {
    this.ads.close();
    await Promise.all([this.#server.stop(300), this.#plainServer.stop(300)]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stopServing();
    this.#held[Symbol.dispose]();
    await Deno.remove(this.stateDir, { recursive: true });
  }

  setPod(pod: PodObject): void {
    this.pods.apply({ kind: "Pod", key: `Pod/${pod.meta.namespace}/${pod.meta.name}`, object: pod });
  }

  /** A token for a pod; by default the node proxy of node-1. */
  token(
    part: { namespace?: string; serviceAccount?: string; pod?: string; podUid?: string; node?: string } = {},
    { ttlMs = 3_600_000, audience = "istio-ca" } = {},
  ): Promise<string> {
    const proxy = {
      namespace: "istio-system",
      serviceAccount: "ztunnel",
      pod: "ztunnel-1",
      podUid: "",
      node: "node-1",
    };
    return this.tokens.mint({ ...proxy, ...part }, { ttlMs, audience, nowMs: Date.now() });
  }

  endpoint(token: string): ControlEndpoint {
    return {
      address: `https://127.0.0.1:${this.port}`,
      roots: { kind: "file", path: `${this.stateDir}/root.pem` },
      token: { kind: "static", token },
      clusterId: "Kubernetes",
      alternativeHostname: "",
      tls12: false,
      headers: {},
      pings: NO_PINGS,
    };
  }

  /** A client of the listener without TLS. */
  plainClient(): grpc.Client {
    return new grpc.Client(`127.0.0.1:${this.plainPort}`, grpc.credentials.createInsecure(), {
      "grpc.use_local_subchannel_pool": 1,
    });
  }

  /** A plain gRPC client, ours only in its certificates. */
  client(certificate?: { chainPem: string; keyPem: string }): grpc.Client {
    const bytes = (pem: string | undefined) => pem === undefined ? null : Buffer.from(pem);
    const roots = Buffer.from(this.authority.material.rootsPem);
    const credentials = grpc.credentials.createSsl(roots, bytes(certificate?.keyPem), bytes(certificate?.chainPem));
    return loopbackClient(this.port, credentials, { "grpc.max_receive_message_length": -1 });
  }
}

/** Metadata with a token and further headers. */
export function headers(token: string | undefined, more: Record<string, string> = {}): grpc.Metadata {
  const metadata = new grpc.Metadata();
  if (token !== undefined) metadata.set("authorization", `Bearer ${token}`);
  for (const [name, value] of Object.entries(more)) metadata.set(name, value);
  return metadata;
}

/** Polls until the condition holds. @throws Error after `ms`. */
export async function until(condition: () => boolean, what: string, ms = 60_000): Promise<void> {
  const deadlineMs = performance.now() + ms;
  while (!condition()) {
    if (performance.now() > deadlineMs) throw new Error(`not within ${ms} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
