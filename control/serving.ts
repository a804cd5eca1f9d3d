/** The listeners: plain HTTP for probes, metrics and debug pages; gRPC over TLS for xDS and certificates. */
import { VERSION } from "../base/version.ts";
import { listenOn } from "./listening.ts";
import { type Authenticator, NO_AUTHENTICATION } from "./ca/caller.ts";
import type { IstiodConfig } from "./config.ts";
import { GrpcMetrics } from "./grpc/metrics.ts";
import { GrpcServer } from "./grpc/server.ts";
import type { DebugAccessRules } from "./debug/access.ts";
import { serveHttp } from "./debug/listener.ts";
import { DebugPages } from "./debug/pages.ts";
import type { Metrics } from "../base/metrics.ts";
import type { Part, Role } from "./role.ts";
import { type Signing, signingMethod } from "./signing.ts";
import type { Source } from "./source.ts";
import { AdsService } from "./xds/ads_service.ts";
import { Debouncer } from "./xds/debounce.ts";
import type { ResourceChange } from "./xds/resources.ts";

const IDLE_QUIET_MS = 10; // a folder pass commits at once; this joins what the next turn still brings (CP-440)
const STREAMS_PER_SECOND_BASE = 15; // CP-400, with the next two
const STREAMS_PER_SECOND_PER_CPU = 5;
const STREAMS_PER_SECOND_MAX = 100;
const CONNECTION_AGE_GRACE_MS = 10_000; // CP-009
/** A client of which no byte was taken for so long is as good as gone: keepalive would find that out as soon. */
const STALL_MS_MAX = 60_000;
const DEBOUNCE_SECONDS = [0.01, 0.1, 0.5, 1, 3, 5, 10, 20, 30]; // CP-022

/** xDS without a listener yet: who is subscribed, and what changes are on their way to them. */
export interface Xds {
  readonly ads: AdsService;
  readonly pages: DebugPages;
  /** Ends all streams and forgets what was to be pushed. */
  close(): void;
}

/** Ties the index to the streams, which {@link startGrpc} lets in. */
export function openXds(role: Role, authenticator: Authenticator, source: Source, leaders: () => unknown): Xds {
  const { config, self, index, mesh, metrics, log } = role;
  const ads = new AdsService({
    view: index,
    authenticator: config.xdsAuthentication ? authenticator : NO_AUTHENTICATION,
    metrics,
    log: log.child("xds"),
    newStreamsPerSecond: config.newStreamsPerSecond ?? defaultStreamsPerSecond(),
    trustedNodeAccounts: config.trustedNodeAccounts,
    requestBytesMax: config.grpcRequestBytesMax,
    identityCheck: config.identityCheck,
    ambient: config.ambient,
    controlPlane: JSON.stringify({ Component: "istiod", ID: self.podName, Info: { version: VERSION } }),
    debugRules: () => debugRulesOf(role),
    debug: () => pages,
    gathering: (typeUrl) => debouncer.gathering(typeUrl),
    now: Date.now,
  });
  const pages: DebugPages = new DebugPages({
    ads,
    index,
    clusterId: config.clusterId,
    readiness: role.readiness,
    objects: () => source.objects(),
    settings: () => mesh.now,
    clusters: () => [
      { id: config.clusterId, syncStatus: role.readiness.ready ? "synced" : "syncing" },
      ...source.remotes(),
    ],
    leaders,
    disconnects: config.unsafeAdminEndpoints,
  });
  const debouncer: Debouncer = createDebouncer(config, {
    metrics,
    push: (changes, arrivedAtMs) => ads.push(changes, arrivedAtMs),
  });
  const unsubscribe = index.subscribe((change) => debouncer.add(change));
  const close = () => {
    unsubscribe();
    debouncer.stop();
    ads.close();
  };
  return { ads, pages, close };
}

/** The two HTTP listeners. */
export interface HttpPart extends Part {
  readonly httpPort: number;
  readonly monitoringPort: number;
}

/** Opens both HTTP listeners: from here on /ready says 503. @throws MeshError AMB0221 */
export async function startHttp(role: Role, { pages }: Xds, authenticator: Authenticator): Promise<HttpPart> {
  const { config, around, readiness, metrics, signal } = role;
  const sources = {
    ready: () => readiness.ready,
    metrics,
    version: VERSION,
    pages,
    authenticator,
    debugRules: () => debugRulesOf(role),
    debug: config.debugOnHttp,
    localMetrics: config.localMetrics,
    log: role.log.child("http"),
  };
  const http = await serveHttp(listenOn(config.httpAddress, 8080, around), sources, { signal });
  const monitoring = await serveHttp(listenOn(config.monitoringAddress, 15014, around), sources, { signal });
  return {
    httpPort: http.port,
    monitoringPort: monitoring.port,
    stopped: Promise.all([http.stopped, monitoring.stopped]).then(() => {}),
  };
}

/** The gRPC listener. */
export interface GrpcPart {
  readonly secureGrpcPort: number;
  /** Of the plaintext listener; undefined if there is none. */
  readonly grpcPort: number | undefined;
  /** Stops taking calls and waits for those there are, for a while. */
  stop(): Promise<void>;
}

/** Opens 15012 for xDS and certificates, and 15010 for xDS alone if it is asked for (CP-430). @throws MeshError AMB0220 */
export async function startGrpc(role: Role, { ads }: Xds, signing: Signing): Promise<GrpcPart> {
  const { config, around, metrics } = role, now = () => performance.now();
  const limits = {
    streamsMax: config.grpcStreamsMax,
    keepaliveIntervalMs: config.keepaliveIntervalMs,
    keepaliveTimeoutMs: config.keepaliveTimeoutMs,
    ageMsMax: config.connectionAgeMsMax,
    ageGraceMs: CONNECTION_AGE_GRACE_MS,
    stallMsMax: STALL_MS_MAX,
  };
  const options = { limits, metrics: new GrpcMetrics(metrics, now), log: role.log.child("grpc") };
  const secure = new GrpcServer(options), open = new GrpcServer(options);
  for (const method of ads.methods("tls")) secure.add(method);
  for (const method of ads.methods("plaintext")) open.add(method);
  if (config.certificateService) secure.add(signingMethod(role, signing)); // If not, whoever asks hears UNIMPLEMENTED.
  ads.open();
  const secureGrpcPort = await secure.listen(listenOn(config.secureGrpcAddress, 15012, around), signing.credentials);
  const grpcPort = config.grpcAddress && await open.listen(config.grpcAddress);
  const stop = async () => void await Promise.all([secure.stop(config.shutdownMs), open.stop(config.shutdownMs)]);
  return { secureGrpcPort, grpcPort, stop };
}

/** Who may read debug pages: the mesh's own namespaces, and those that a setting adds (CP-017). */
function debugRulesOf({ config, self, mesh }: Role): DebugAccessRules {
  return {
    namespaces: new Set([mesh.now.rootNamespace, self.namespace, ...config.debugNamespaces]),
    enforced: config.debugAuthorization,
  };
}

function defaultStreamsPerSecond(): number {
  const wanted = STREAMS_PER_SECOND_BASE + STREAMS_PER_SECOND_PER_CPU * navigator.hardwareConcurrency;
  return Math.min(wanted, STREAMS_PER_SECOND_MAX);
}

function createDebouncer(
  config: IstiodConfig,
  { metrics, push }: { metrics: Metrics; push: (changes: readonly ResourceChange[], arrivedAtMs: number) => void },
): Debouncer {
  const waited = metrics.histogram(
    "pilot_debounce_time",
    "Seconds that changes waited to be pushed.",
    DEBOUNCE_SECONDS,
  );
  return new Debouncer({
    quietMs: config.debounceQuietMs,
    idleQuietMs: IDLE_QUIET_MS,
    maxMs: config.debounceMaxMs,
    now: () => performance.now(),
    schedule: (callback, ms) => {
      const timer = setTimeout(callback, ms);
      return () => clearTimeout(timer);
    },
    flush: (changes, waitedMs) => {
      waited.observe(waitedMs / 1_000);
      push(changes, performance.now() - waitedMs);
    },
  });
}
