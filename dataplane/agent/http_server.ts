/** HTTP/1.1 for a few small pages, on ports that anybody on the network may reach: bounded in size, time and number. */
import { Buffer } from "node:buffer";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { Socket } from "node:net";
import { assert } from "../../base/assert.ts";
import { chain } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";

export type Answer = (request: Request) => Response | Promise<Response>;

/** What a caller may cost us (ZT-207 for the first). */
const HEAD_MS_MAX = 2_000, HEAD_BYTES_MAX = 8 * 1024, CONNECTIONS_MAX = 256;
/** For a caller to take an answer, and what all of them together may leave untaken meanwhile. */
const TAKE_MS_MAX = 30_000, UNTAKEN_BYTES_MAX = 64 * 1024 * 1024;
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
  /** For a caller to take an answer; shorter in tests. */
  readonly takeMsMax?: number;
}

/** Serves until `signal` aborts; the port is free at once then. @throws Error, by rejection, if it cannot listen there. */
export async function serveHttp(hostname: string, port: number, options: HttpOptions): Promise<HttpServer> {
  const { signal } = options, untaken = new UntakenAnswers(options.takeMsMax ?? TAKE_MS_MAX);
  const server = createServer({
    headersTimeout: HEAD_MS_MAX,
    requestTimeout: HEAD_MS_MAX,
    connectionsCheckingInterval: HEAD_MS_MAX / 4,
    maxHeaderSize: HEAD_BYTES_MAX,
  }, (incoming, outgoing) => void respond(incoming, outgoing, untaken, options));
  const connections = new Set<Socket>();
  server.on("connection", (socket) => {
    // Who holds connections to do nothing with them keeps no probe and no scraper out: the oldest gives way.
    if (connections.size >= CONNECTIONS_MAX) connections.values().next().value!.destroy();
    connections.add(socket);
    socket.once("close", () => connections.delete(socket));
  });
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

/** Answers that their callers have not taken whole. Whoever takes too long, or longest when they are too much, is cut off. */
class UntakenAnswers {
  readonly #takeMsMax: number;
  readonly #bytes = new Map<ServerResponse, number>();
  #sum = 0;

  constructor(takeMsMax: number) {
    this.#takeMsMax = takeMsMax;
  }

  /** Right before the answer is sent. */
  add(outgoing: ServerResponse, bytes: number): void {
    for (const oldest of this.#bytes.keys()) {
      if (this.#sum + bytes <= UNTAKEN_BYTES_MAX) break;
      this.#cut(oldest);
    }
    this.#bytes.set(outgoing, bytes);
    this.#sum += bytes;
    const deadline = setTimeout(() => this.#cut(outgoing), this.#takeMsMax);
    const done = () => {
      clearTimeout(deadline);
      this.#forget(outgoing);
    };
    outgoing.once("finish", done);
    outgoing.once("close", done);
  }

  #cut(outgoing: ServerResponse): void {
    this.#forget(outgoing);
    outgoing.socket?.destroy();
  }

  #forget(outgoing: ServerResponse): void {
    this.#sum -= this.#bytes.get(outgoing) ?? 0;
    this.#bytes.delete(outgoing);
  }
}

async function respond(
  incoming: IncomingMessage,
  outgoing: ServerResponse,
  untaken: UntakenAnswers,
  { answer, log }: HttpOptions,
): Promise<void> {
  try {
    const request = requestOf(incoming);
    const response = request === undefined ? new Response("Bad Request\n", { status: 400 }) : await answer(request);
    const body = Buffer.from(await response.arrayBuffer());
    outgoing.writeHead(response.status, { ...Object.fromEntries(response.headers), "content-length": body.length });
    untaken.add(outgoing, body.length);
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
