/** The HTTP endpoints of ztunnel: admin on loopback, metrics and readiness on every address (ZT section 12.3). */
import { ignore, MeshError } from "../../base/errors.ts";
import { LogFilter, type Logger } from "../../base/log.ts";
import { applyLevels } from "./log_levels.ts";
import { type Answer, type HttpOptions, type HttpServer, serveHttp } from "./http_server.ts";
import { profilePage } from "./profile_pages.ts";
import { Profiler } from "./profiler.ts";
import { Scrapes } from "./scrapes.ts";

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
  readonly configDump: () => string | Promise<string>;
  /** Open connections and flows, for screens that show who talks to whom. */
  readonly traffic: () => unknown;
  /** Names of what is not ready yet; empty when all is. */
  readonly pending: () => readonly string[];
  /** Starts the shutdown (ZT-217). */
  readonly shutDown: () => void;
}

const JSON_TYPE = { "content-type": "application/json" };
const PAGES: readonly (readonly [path: string, what: string])[] = [
  ["config_dump", "what this node knows"],
  ["traffic", "open connections and flows"],
  ["logging", "by POST: log levels, shown and changed"],
  ["quitquitquit", "by POST: shut down"],
  ["debug/pprof/profile", "CPU profile of the agent's thread; seconds (1-300, 10), frequency in Hz (1-1000, 100)"],
  ["debug/pprof/heap", "what the agent's thread has allocated since the sampling began, and still holds"],
  ["debug/pprof/heap/profiling", "whether allocations are sampled; ?activate=true|false"],
];
const INDEX = `<!doctype html><title>ztunnel</title><h1>ztunnel</h1><ul>
${PAGES.map(([path, what]) => `<li><a href="${path}">${path}</a>: ${what}`).join("\n")}</ul>
`;

/** Starts the three servers; the result's promises end with `signal`. @throws MeshError AMB2423 if a port is taken (ZT-004) */
export async function serveAdmin(options: AdminOptions, signal: AbortSignal): Promise<Promise<void>[]> {
  const wildcard = options.ipv6 ? "::" : "0.0.0.0", { log } = options;
  const admin = adminPages(options, signal), scrapes = new Scrapes(options.metrics), finished: Promise<void>[] = [];
  for (const host of adminHosts(options.ipv6, LOOPBACK_IPV6_OFF)) {
    finished.push((await serve(host, options.adminPort, { answer: admin, signal, log })).finished);
  }
  finished.push(
    (await serve(wildcard, options.statsPort, { answer: (it) => scrapes.answer(it), signal, log })).finished,
    (await serve(wildcard, options.readinessPort, { answer: (it) => readinessPage(options, it), signal, log }))
      .finished,
  );
  return finished;
}

const LOOPBACK_IPV6_OFF = "/proc/sys/net/ipv6/conf/lo/disable_ipv6";

/** Where the admin endpoint listens: loopback, of IPv6 too unless the settings or the kernel have it off (ZT-003). */
export function adminHosts(ipv6: boolean, switchPath: string): readonly string[] {
  if (!ipv6) return ["127.0.0.1"];
  try {
    if (Deno.readTextFileSync(switchPath).trim() === "1") return ["127.0.0.1"];
  } catch (error) {
    ignore(error, "what cannot be read is taken for switched on");
  }
  return ["127.0.0.1", "::1"];
}

async function serve(hostname: string, port: number, options: HttpOptions): Promise<HttpServer> {
  try {
    return await serveHttp(hostname, port, options);
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    if ((error as NodeJS.ErrnoException).code === "EADDRINUSE") throw portTaken(hostname, port, error);
    if (hostname !== "::") throw error;
    return await serve("0.0.0.0", port, options); // A kernel without IPv6 has no [::].
  }
}

function portTaken(hostname: string, port: number, cause: Error): MeshError {
  return new MeshError("AMB2423", `cannot serve admin, metrics or readiness at ${hostname} port ${port}`, {
    remedy:
      "see which process holds the port, often another ztunnel; or set --admin-port, --stats-port, --readiness-port",
    cause,
  });
}

/** The pages of the admin endpoint; a profile under way ends with `signal`. */
export function adminPages(options: AdminOptions, signal: AbortSignal): Answer {
  const profiler = new Profiler();
  signal.addEventListener("abort", () => profiler[Symbol.dispose](), { once: true });
  return (request) => {
    const url = new URL(request.url);
    return url.pathname.startsWith("/debug/pprof/")
      ? profilePage(profiler, url, signal)
      : adminPage(options, request, url);
  };
}

async function adminPage(options: AdminOptions, request: Request, url: URL): Promise<Response> {
  switch (url.pathname) {
    case "/":
      return new Response(INDEX, { headers: { "content-type": "text/html; charset=utf-8" } });
    case "/config_dump":
      return new Response(await options.configDump(), { headers: JSON_TYPE });
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
  "\nusage: POST /logging?level={scope1}=<level>,{scope2}=<level>\t(To change specific scopes)" +
  "\n\nhint: level:\terror|warn|info|debug|trace|off\nhint: scope:\taccess, policy, xds, ca, certificates, dns, …\n";

/** ZT-216. A bad level changes nothing, the reset that came with it neither. */
function loggingPage({ filter, defaultLevel }: AdminOptions, request: Request, url: URL): Response {
  if (request.method !== "POST") return new Response(`Invalid HTTP method\n${LOGGING_USAGE}`, { status: 405 });
  const level = url.searchParams.get("level") ?? "";
  const bad = () => new Response(`Invalid level provided: ${level}\n${LOGGING_USAGE}`, { status: 400 });
  if (level !== "" && applyLevels(new LogFilter(), level) !== undefined) return bad();
  if (url.searchParams.has("reset")) resetLevels(filter, defaultLevel);
  if (level !== "") applyLevels(filter, level);
  return new Response(`current log level is ${filter}\n`);
}

function resetLevels(filter: LogFilter, defaultLevel: string): void {
  filter.reset("info");
  applyLevels(filter, defaultLevel);
}

/** ZT-219. */
export function readinessPage({ pending }: Pick<AdminOptions, "pending">, request: Request): Response {
  if (new URL(request.url).pathname !== "/healthz/ready") return new Response("Not Found\n", { status: 404 });
  if (request.method !== "GET") return new Response("Invalid HTTP method\n", { status: 405 });
  const waiting = pending();
  if (waiting.length === 0) return new Response("ready\n");
  return new Response(`not ready, pending: ${[...waiting].sort().join(", ")}\n`, { status: 500 });
}
