/** The HTTP listeners: readiness, version, metrics and the debug pages (CP-012, CP-016, CP-019). */
import type { ListenAddress } from "../../base/config.ts";
import { MeshError } from "../../base/errors.ts";
import type { Authenticator } from "../ca/caller.ts";
import type { Metrics } from "../../base/metrics.ts";
import { ALL_PAGES, type DebugAccess, debugAccess, type DebugAccessRules } from "./access.ts";
import type { DebugPages } from "./pages.ts";

export interface HttpSources {
  readonly ready: () => boolean;
  readonly metrics: Metrics;
  readonly version: string;
  readonly pages: DebugPages;
  /** Whom callers of other machines may turn out to be. */
  readonly authenticator: Authenticator;
  readonly debugRules: () => DebugAccessRules;
  /** Whether debug pages are served here at all; tools reach them through xDS as well. */
  readonly debug: boolean;
  /** Whether only callers on this machine get the metrics. */
  readonly localMetrics: boolean;
}

const METHODS = ["GET", "HEAD"];
const DEBUG = "/debug/";
const LOOPBACK_HOST = /^(localhost|127\.\d+\.\d+\.\d+|\[::1\])$/;

/** Starts one HTTP listener. @throws MeshError AMB0221 */
export function serveHttp(address: ListenAddress, sources: HttpSources, signal: AbortSignal): Deno.HttpServer {
  const { host: hostname, port } = address;
  try {
    return Deno.serve({ hostname, port, signal, onListen: () => {} }, (request, info) => {
      const url = new URL(request.url);
      return answer(request, url, (info.remoteAddr as Deno.NetAddr).hostname, sources);
    });
  } catch (cause) {
    const remedy = "choose another --http-address or --monitoring-address, or stop what listens there";
    throw new MeshError("AMB0221", `cannot listen on ${hostname}:${port} for HTTP`, { remedy, cause });
  }
}

async function answer(request: Request, url: URL, peer: string, sources: HttpSources): Promise<Response> {
  // A browser on this machine may be led here by a name that is not ours: such a request is not of this machine.
  const local = isLoopback(peer) && LOOPBACK_HOST.test(url.hostname);
  const { ready, version, metrics, pages, debug, localMetrics } = sources, path = url.pathname;
  const isDebug = debug && path.startsWith(DEBUG);
  if (!isDebug && !["/ready", "/version", "/metrics"].includes(path)) return plain(404, "not found\n");
  if (!METHODS.includes(request.method)) return plain(405, "only GET\n");
  if (path === "/ready") return new Response(null, { status: ready() ? 200 : 503 });
  if (path === "/version") return plain(200, version);
  if (path === "/metrics") {
    if (localMetrics && !local) return plain(403, "only from this machine\n");
    return new Response(metrics.render(), { headers: { "content-type": "text/plain; version=0.0.4" } });
  }
  const access = local ? ALL_PAGES : await accessOf(request, peer, sources);
  const { status, text, json } = pages.answer(path.slice(DEBUG.length), url.searchParams, access);
  return new Response(text, { status, headers: { "content-type": json ? "application/json" : "text/plain" } });
}

/** By the same ways as over xDS, but that nobody shows a certificate over plain HTTP. */
async function accessOf(
  { headers }: Request,
  peerAddress: string,
  { authenticator, debugRules }: HttpSources,
): Promise<DebugAccess> {
  const values = (name: string) => headers.get(name) === null ? [] : [headers.get(name)!];
  const caller = await authenticator.authenticate({
    certificateUris: undefined,
    authorization: values("authorization"),
    clusterId: values("clusterid"),
    // From this machine under a strange name it may be a browser that was led here: it vouches for nobody.
    forwardedCertificate: isLoopback(peerAddress) ? [] : values("x-forwarded-client-cert"),
    peerAddress,
  });
  return "refused" in caller ? "nobody" : debugAccess(caller.identities, debugRules());
}

function plain(status: number, text: string): Response {
  return new Response(text, { status });
}

function isLoopback(address: string): boolean {
  const host = address.replace(/^::ffff:/, "");
  return host.startsWith("127.") || host === "::1";
}
