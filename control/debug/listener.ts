/** The HTTP listeners: readiness, version, metrics and the debug pages (CP-007, CP-012, CP-016, CP-019). */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import type { ListenAddress } from "../../base/config.ts";
import { chain, MeshError } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import { aborted } from "../../base/waiting.ts";
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
  readonly log: Logger;
}

const METHODS = ["GET", "HEAD"];
const DEBUG = "/debug/";
const LOOPBACK_HOST = /^(localhost|127\.\d+\.\d+\.\d+|\[::1\])$/;

/** How long connections may do nothing, and how long a request may take to be said (CP-007). */
export interface HttpLimits {
  readonly idleMsMax: number;
  readonly requestMsMax: number;
}

export const HTTP_LIMITS: HttpLimits = { idleMsMax: 90_000, requestMsMax: 30_000 };
const CONNECTIONS_MAX = 1_024; // scrapers, probes and a few people

/** A listener that serves. */
export interface HttpListener {
  readonly port: number;
  /** Resolves once it is closed, after the signal. */
  readonly stopped: Promise<void>;
}

/** Starts one HTTP listener; it ends with the signal. @throws MeshError AMB0221 */
export async function serveHttp(
  address: ListenAddress,
  sources: HttpSources,
  { signal, limits = HTTP_LIMITS }: { readonly signal: AbortSignal; readonly limits?: HttpLimits },
): Promise<HttpListener> {
  const { host: hostname, port } = address;
  // The runtime looks for those that are late from time to time; unless told, every 30 s.
  const server = createServer(
    { connectionsCheckingInterval: limits.requestMsMax / 10 },
    (request, response) => void serve(request, response, sources),
  );
  server.keepAliveTimeout = limits.idleMsMax;
  server.headersTimeout = limits.requestMsMax;
  server.requestTimeout = limits.requestMsMax;
  server.maxConnections = CONNECTIONS_MAX;
  const { promise: listening, resolve, reject } = Promise.withResolvers<void>();
  server.once("error", reject);
  server.listen(port, hostname, resolve);
  try {
    await listening;
  } catch (cause) {
    const remedy = "choose another --http-address or --monitoring-address, or stop what listens there";
    throw new MeshError("AMB0221", `cannot listen on ${hostname}:${port} for HTTP`, { remedy, cause });
  }
  return { port: (server.address() as AddressInfo).port, stopped: aborted(signal).then(() => close(server)) };
}

/** What is being answered ends with its connection: pages are made at once, or not at all. */
async function close(server: Server): Promise<void> {
  const closed = new Promise<void>((resolve) => server.close(() => resolve()));
  server.closeAllConnections();
  await closed;
}

async function serve(request: IncomingMessage, response: ServerResponse, sources: HttpSources): Promise<void> {
  const headers = new Headers();
  for (let at = 0; at < request.rawHeaders.length; at += 2) {
    headers.append(request.rawHeaders[at]!, request.rawHeaders[at + 1]!);
  }
  const url = urlOf(request.url, headers.get("host"));
  const peer = request.socket.remoteAddress;
  let answered: Response;
  try {
    if (url === undefined || peer === undefined) answered = plain(400, "bad request\n");
    else answered = await answer({ method: request.method ?? "", headers }, url, peer, sources);
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    sources.log.error("a page could not be made", { path: url?.pathname ?? "", error: chain(error) });
    answered = plain(500, "internal error\n");
  }
  const body = new Uint8Array(await answered.arrayBuffer());
  response.writeHead(answered.status, { ...Object.fromEntries(answered.headers), "content-length": body.length });
  response.end(request.method === "HEAD" ? undefined : body);
}

/** What is asked for, with the host that the caller thinks it is at; undefined if the request names none properly. */
function urlOf(path: string | undefined, host: string | null): URL | undefined {
  const whole = path?.startsWith("/") === true ? `http://${host ?? "unnamed"}${path}` : path ?? "";
  return URL.canParse(whole) ? new URL(whole) : undefined;
}

/** What of a request counts. */
interface Asked {
  readonly method: string;
  readonly headers: Headers;
}

async function answer(request: Asked, url: URL, peer: string, sources: HttpSources): Promise<Response> {
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
  { headers }: Asked,
  peerAddress: string,
  { authenticator, debugRules }: HttpSources,
): Promise<DebugAccess> {
  const values = (name: string) => headers.get(name) === null ? [] : [headers.get(name)!];
  const caller = await authenticator.authenticate({
    certificateUris: undefined,
    certificateChain: [],
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
