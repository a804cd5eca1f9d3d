/** The HTTP endpoints of ztunnel: admin on loopback, metrics and readiness on every address (ZT section 12.3). */
import type { LogFilter, Logger } from "../../base/log.ts";
import { applyLevels } from "./log_levels.ts";
import { contentTypeFor } from "./metrics.ts";

export interface AdminOptions {
  readonly adminPort: number;
  readonly statsPort: number;
  readonly readinessPort: number;
  readonly ipv6: boolean;
  readonly log: Logger;
  readonly filter: LogFilter;
  readonly defaultLevel: string;
  /** The text of all metrics. */
  readonly metrics: () => string;
  /** The dump as JSON text. */
  readonly configDump: () => string;
  /** Open connections and flows, for screens that show who talks to whom. */
  readonly traffic: () => unknown;
  /** Names of what is not ready yet; empty when all is. */
  readonly pending: () => readonly string[];
  /** Starts the shutdown (ZT-217). */
  readonly shutDown: () => void;
}

const JSON_TYPE = { "content-type": "application/json" };
const INDEX = `<!doctype html><title>ztunnel</title><h1>ztunnel</h1><ul>
<li><a href="/config_dump">/config_dump</a>: what this node knows
<li><a href="/traffic">/traffic</a>: open connections and flows
<li>POST /logging: log levels
<li>POST /quitquitquit: shut down</ul>
`;

/** Starts the three servers; they end with `signal`. A port that is taken is an error (ZT-004). */
export function serveAdmin(options: AdminOptions, signal: AbortSignal): Promise<void>[] {
  const wildcard = options.ipv6 ? "::" : "0.0.0.0";
  const servers = [
    serve("127.0.0.1", options.adminPort, (request) => adminPage(options, request), signal),
    serve(wildcard, options.statsPort, (request) => statsPage(options, request), signal),
    serve(wildcard, options.readinessPort, (request) => readinessPage(options, request), signal),
  ];
  return servers.map((server) => server.finished);
}

function serve(hostname: string, port: number, answer: (request: Request) => Response, signal: AbortSignal) {
  try {
    return Deno.serve({ hostname, port, signal, onListen() {} }, answer);
  } catch (error) {
    // A kernel without IPv6 has no [::].
    if (hostname !== "::" || !(error instanceof Error) || error instanceof Deno.errors.AddrInUse) throw error;
    return Deno.serve({ hostname: "0.0.0.0", port, signal, onListen() {} }, answer);
  }
}

function adminPage(options: AdminOptions, request: Request): Response {
  const url = new URL(request.url);
  switch (url.pathname) {
    case "/":
      return new Response(INDEX, { headers: { "content-type": "text/html; charset=utf-8" } });
    case "/config_dump":
      return new Response(options.configDump(), { headers: JSON_TYPE });
    case "/traffic":
      return new Response(JSON.stringify(options.traffic()), { headers: JSON_TYPE });
    case "/logging":
      return loggingPage(options, request, url);
    case "/quitquitquit":
      if (request.method !== "POST") return new Response("Invalid HTTP method\n", { status: 405 });
      options.log.info("shutdown asked for by the admin endpoint");
      options.shutDown();
      return new Response("shutdown now\n");
    default:
      return new Response("Not Found\n", { status: 404 });
  }
}

const LOGGING_USAGE = "\nusage: POST /logging\t\t\t\t\t\t(To list current level)" +
  "\nusage: POST /logging?level=<level>\t\t\t\t(To change global levels)" +
  "\nusage: POST /logging?level={scope1}=<level>,{scope2}=<level>\t(To change specific scopes)\n";

/** ZT-216. */
function loggingPage({ filter, defaultLevel }: AdminOptions, request: Request, url: URL): Response {
  if (request.method !== "POST") return new Response(`Invalid HTTP method${LOGGING_USAGE}`, { status: 405 });
  const level = url.searchParams.get("level"), reset = url.searchParams.has("reset");
  if (level !== null && level !== "") {
    if (reset) resetLevels(filter, defaultLevel);
    const wrong = applyLevels(filter, level);
    if (wrong !== undefined) return new Response(`Invalid level provided: ${wrong}${LOGGING_USAGE}`, { status: 400 });
  } else if (reset) resetLevels(filter, defaultLevel);
  return new Response(`current log level is ${filter}\n`);
}

function resetLevels(filter: LogFilter, defaultLevel: string): void {
  filter.reset("info");
  applyLevels(filter, defaultLevel);
}

function statsPage({ metrics }: AdminOptions, request: Request): Response {
  const { pathname } = new URL(request.url);
  if (pathname !== "/metrics" && pathname !== "/stats/prometheus") return new Response("Not Found\n", { status: 404 });
  return new Response(metrics(), { headers: { "content-type": contentTypeFor(request.headers.get("accept") ?? "") } });
}

/** ZT-219. */
function readinessPage({ pending }: AdminOptions, request: Request): Response {
  if (new URL(request.url).pathname !== "/healthz/ready") return new Response("Not Found\n", { status: 404 });
  if (request.method !== "GET") return new Response("Invalid HTTP method\n", { status: 405 });
  const waiting = pending();
  if (waiting.length === 0) return new Response("ready\n");
  return new Response(`not ready, pending: ${[...waiting].sort().join(", ")}\n`, { status: 500 });
}
