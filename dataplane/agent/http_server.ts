/** HTTP/1.1 for a few small pages, on ports that anybody on the network may reach: bounded in size, time and number. */
import { Buffer } from "node:buffer";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { assert } from "../../base/assert.ts";
import { chain } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";

export type Answer = (request: Request) => Response | Promise<Response>;

/** What a caller may cost us (ZT-207 for the first). */
const HEAD_MS_MAX = 2_000, HEAD_BYTES_MAX = 8 * 1024, CONNECTIONS_MAX = 256;
/** How long an answer under way may still take once the server ends. */
const ENDING_MS_MAX = 1_000;

/** A server that listens. */
export interface HttpServer {
  readonly port: number;
  /** Resolves once the server has ended with its signal, and its last connection with it. */
  readonly finished: Promise<void>;
}

export interface HttpOptions {
  readonly answer: Answer;
  readonly signal: AbortSignal;
  readonly log: Logger;
}

/** Serves until `signal` aborts; the port is free at once then. @throws Error, by rejection, if it cannot listen there. */
export async function serveHttp(hostname: string, port: number, options: HttpOptions): Promise<HttpServer> {
  const { signal } = options;
  const server = createServer({
    headersTimeout: HEAD_MS_MAX,
    requestTimeout: HEAD_MS_MAX,
    connectionsCheckingInterval: HEAD_MS_MAX / 4,
    maxHeaderSize: HEAD_BYTES_MAX,
  }, (incoming, outgoing) => void respond(incoming, outgoing, options));
  server.maxConnections = CONNECTIONS_MAX;
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen({ host: hostname, port }, resolve);
  });
  const finished = new Promise<void>((resolve) => {
    const end = () => {
      const cut = setTimeout(() => server.closeAllConnections(), ENDING_MS_MAX);
      server.close(() => {
        clearTimeout(cut);
        resolve();
      });
      server.closeIdleConnections();
    };
    if (signal.aborted) end();
    else signal.addEventListener("abort", end, { once: true });
  });
  const address = server.address();
  assert(address !== null && typeof address === "object", "a server of TCP has a port");
  return { port: address.port, finished };
}

async function respond(
  incoming: IncomingMessage,
  outgoing: ServerResponse,
  { answer, log }: HttpOptions,
): Promise<void> {
  try {
    const request = requestOf(incoming);
    const response = request === undefined ? new Response("Bad Request\n", { status: 400 }) : await answer(request);
    const body = Buffer.from(await response.arrayBuffer());
    outgoing.writeHead(response.status, { ...Object.fromEntries(response.headers), "content-length": body.length });
    outgoing.end(body);
  } catch (error) {
    // A page that fails must not end what carries traffic.
    log.error("a page failed", { error: error instanceof Error ? chain(error) : String(error) });
    if (!outgoing.headersSent) outgoing.writeHead(500);
    outgoing.end();
  }
}

/** @returns undefined for what is no request for a page, such as a full URL for a proxy or TRACE. */
function requestOf({ method = "", url = "", headers }: IncomingMessage): Request | undefined {
  if (!url.startsWith("/") || !["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"].includes(method)) {
    return undefined;
  }
  const target = URL.parse(`http://localhost${url}`);
  if (target === null) return undefined;
  // The pages read no other headers, and no bodies.
  const kept = new Headers();
  for (const name of ["accept", "accept-encoding"] as const) {
    const value = headers[name];
    if (value !== undefined) kept.set(name, String(value));
  }
  return new Request(target, { method, headers: kept });
}
