/** What istiod says of itself over plain HTTP: readiness, metrics, who is connected and how far (CP-012, CP-016, CP-018). */
import type { ListenAddress } from "../base/config.ts";
import { MeshError } from "../base/errors.ts";
import type { Metrics } from "./metrics.ts";
import type { StreamStatus } from "./xds/ads_service.ts";

export interface DebugSources {
  readonly ready: () => boolean;
  /** What readiness hangs on, line by line. */
  readonly readiness: () => string;
  readonly metrics: Metrics;
  readonly version: string;
  readonly clusterId: string;
  readonly streams: () => readonly StreamStatus[];
  /** Names of the objects that were read, by kind. */
  readonly objects: () => readonly string[];
}

type Page = (url: URL) => Response;
const METHODS = ["GET", "HEAD"];

/** Starts one HTTP listener. @throws MeshError AMB0221 */
export function serveDebugPages(address: ListenAddress, sources: DebugSources, signal: AbortSignal): Deno.HttpServer {
  const pages = pagesOf(sources);
  const { host: hostname, port } = address;
  try {
    return Deno.serve({ hostname, port, signal, onListen: () => {} }, (request, info) => {
      const url = new URL(request.url);
      const page = pages.get(url.pathname);
      if (page === undefined) return new Response("not found\n", { status: 404 });
      if (!METHODS.includes(request.method)) return new Response("only GET\n", { status: 405 });
      // Debug pages name every client and object: for callers on this machine, addressed as such (CP-016).
      const local = isLoopback(info.remoteAddr) && /^(localhost|127\.\d+\.\d+\.\d+|\[::1\])$/.test(url.hostname);
      if (url.pathname.startsWith("/debug/") && !local) {
        return new Response("only from this machine\n", { status: 401 });
      }
      return page(url);
    });
  } catch (cause) {
    const remedy = "choose another --http-address or --monitoring-address, or stop what listens there";
    throw new MeshError("AMB0221", `cannot listen on ${hostname}:${port} for HTTP`, { remedy, cause });
  }
}

function pagesOf(sources: DebugSources): ReadonlyMap<string, Page> {
  const { ready, readiness, metrics, version, streams, objects } = sources;
  return new Map<string, Page>([
    ["/ready", () => new Response(null, { status: ready() ? 200 : 503 })],
    ["/debug/readyz", () => new Response(readiness(), { status: ready() ? 200 : 503 })],
    ["/version", () => new Response(`${version}\n`)],
    ["/metrics", () => new Response(metrics.render(), { headers: { "content-type": "text/plain; version=0.0.4" } })],
    ["/debug/syncz", (url) => json(url, synchronization(streams(), url.searchParams.get("namespace"), sources))],
    ["/debug/connections", (url) =>
      json(url, {
        totalClients: streams().length,
        clients: streams().map(({ connectionId, connectedAt, address }) => ({ connectionId, connectedAt, address })),
      })],
    ["/debug/adsz", (url) => json(url, { totalClients: streams().length, clients: streams() })],
    ["/debug/configz", (url) => json(url, objects())],
    [
      "/debug/list",
      (url) => json(url, ["adsz", "configz", "connections", "readyz", "syncz"].map((it) => `/debug/${it}`)),
    ],
  ]);
}

/** One row per client: what was sent and acknowledged of each type, and the last refusal (CP-018, CP-020). */
function synchronization(streams: readonly StreamStatus[], namespace: string | null, sources: DebugSources): unknown {
  return streams.filter(({ node }) => namespace === null || node.namespace === namespace).map(({ node, watches }) => ({
    cluster_id: node.clusterId || sources.clusterId,
    proxy: node.name,
    proxy_type: node.type,
    istio_version: node.version,
    resources: Object.fromEntries(watches.map((watch) => [watch.typeUrl, {
      sent: watch.sentNonce,
      acked: watch.acknowledgedNonce,
      lastError: watch.lastError,
      waiting: watch.waiting,
    }])),
  }));
}

function json(url: URL, value: unknown): Response {
  const text = JSON.stringify(value, undefined, url.searchParams.has("pretty") ? 2 : undefined);
  return new Response(`${text}\n`, { headers: { "content-type": "application/json" } });
}

function isLoopback(address: Deno.Addr): boolean {
  return address.transport === "tcp" && (address.hostname.startsWith("127.") || address.hostname === "::1");
}
