/** The listeners: plain HTTP for probes, metrics and debug pages; gRPC over TLS for xDS and certificates. */
import { VERSION } from "../base/version.ts";
import { listenOn } from "./listening.ts";
import type { Authenticator } from "./ca/caller.ts";
import type { IstiodConfig } from "./config.ts";
import { serveDebugPages } from "./debug_pages.ts";
import type { Metrics } from "./metrics.ts";
import type { Part, Role } from "./role.ts";
import { addSigning, type Signing } from "./signing.ts";
import { AdsService } from "./xds/ads_service.ts";
import { Debouncer } from "./xds/debounce.ts";
import type { ResourceChange } from "./xds/resources.ts";
import { createServer, listenSecure, stopServer } from "./xds/secure_server.ts";

const IDLE_QUIET_MS = 10; // a folder pass commits at once; this joins what the next turn still brings (CP-440)
const STREAMS_PER_SECOND_BASE = 15; // CP-400, with the next two
const STREAMS_PER_SECOND_PER_CPU = 5;
const STREAMS_PER_SECOND_MAX = 100;
const CONVERGENCE_SECONDS = [0.1, 0.5, 1, 3, 5, 10, 20, 30]; // CP-025

/** xDS without a listener yet: who is subscribed, and what changes are on their way to them. */
export interface Xds {
  readonly ads: AdsService;
  /** Ends all streams and forgets what was to be pushed. */
  close(): void;
}

/** Ties the index to the streams, which {@link startGrpc} lets in. */
export function openXds({ config, self, index, metrics, log }: Role, authenticator: Authenticator): Xds {
  const ads = new AdsService({
    view: index,
    authenticator,
    metrics,
    log: log.child("xds"),
    newStreamsPerSecond: config.newStreamsPerSecond ?? defaultStreamsPerSecond(),
    trustedNodeAccounts: config.trustedNodeAccounts,
    controlPlane: JSON.stringify({ Component: "istiod", ID: self.podName, Info: { version: VERSION } }),
    now: Date.now,
  });
  const debouncer = createDebouncer(config, { metrics, push: (changes) => ads.push(changes) });
  const unsubscribe = index.subscribe((change) => debouncer.add(change));
  const close = () => {
    unsubscribe();
    debouncer.stop();
    ads.close();
  };
  return { ads, close };
}

/** The two HTTP listeners. */
export interface HttpPart extends Part {
  readonly httpPort: number;
  readonly monitoringPort: number;
}

/** Opens both HTTP listeners: from here on /ready says 503. @throws MeshError AMB0221 */
export function startHttp(role: Role, ads: AdsService, objects: () => readonly string[]): HttpPart {
  const { config, around, readiness, metrics, signal } = role;
  const pages = {
    ready: () => readiness.ready,
    readiness: () => readiness.describe(),
    metrics,
    version: VERSION,
    clusterId: config.clusterId,
    streams: () => ads.status(),
    objects,
  };
  const http = serveDebugPages(listenOn(config.httpAddress, 8080, around), pages, signal);
  const monitoring = serveDebugPages(listenOn(config.monitoringAddress, 15014, around), pages, signal);
  return {
    httpPort: (http.addr as Deno.NetAddr).port,
    monitoringPort: (monitoring.addr as Deno.NetAddr).port,
    stopped: Promise.all([http.finished, monitoring.finished]).then(() => {}),
  };
}

/** The gRPC listener. */
export interface GrpcPart {
  readonly secureGrpcPort: number;
  /** Stops taking calls and waits for those there are, for a while. */
  stop(): Promise<void>;
}

/** Opens 15012 for xDS and certificates. @throws MeshError AMB0220 */
export async function startGrpc(role: Role, { ads }: Xds, signing: Signing): Promise<GrpcPart> {
  const server = createServer(role.config);
  ads.addTo(server);
  addSigning(server, role, signing);
  ads.open();
  const address = listenOn(role.config.secureGrpcAddress, 15012, role.around);
  const secureGrpcPort = await listenSecure(server, address, signing.credentials);
  return { secureGrpcPort, stop: () => stopServer(server, role.config.shutdownMs) };
}

function defaultStreamsPerSecond(): number {
  const wanted = STREAMS_PER_SECOND_BASE + STREAMS_PER_SECOND_PER_CPU * navigator.hardwareConcurrency;
  return Math.min(wanted, STREAMS_PER_SECOND_MAX);
}

function createDebouncer(
  config: IstiodConfig,
  { metrics, push }: { metrics: Metrics; push: (changes: readonly ResourceChange[]) => void },
): Debouncer {
  const waited = metrics.histogram(
    "pilot_debounce_time",
    "Seconds that changes waited to be pushed.",
    CONVERGENCE_SECONDS,
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
      push(changes);
    },
  });
}
