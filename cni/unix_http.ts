/**
 * HTTP over a unix socket, with a signal for each request that says when its caller has gone. `Deno.serve` has one that
 * aborts after every answer as well, and tells the operator so.
 */
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { type Duplex, Readable } from "node:stream";
import { chain, ignore } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import { UnixStream } from "./unix_stream.ts";

/** Answers one request; what it throws ends the process, as a mistake of ours. */
export type UnixHttpHandler = (request: Request, signal: AbortSignal) => Promise<Response>;

export interface UnixHttpServer {
  /** Takes no more, and resolves once those under way have been answered. */
  shutdown(): Promise<void>;
}

const ACCEPT_RETRY_MS = 200; // callers wait in the kernel's queue
const REQUEST_TIMEOUT_MS = 10_000; // for a caller to say what it wants; the answer may take longer

/** Resolves once the socket is there. @throws what the kernel says, by rejection, when it cannot be. */
// deno-lint-ignore require-await -- So that what it throws is a rejection, as of every other server.
export async function serveUnixHttp(path: string, log: Logger, handler: UnixHttpHandler): Promise<UnixHttpServer> {
  const listener = Deno.listen({ transport: "unix", path });
  const open = new Map<Duplex, IncomingMessage | undefined>(); // With what its caller asks, once that has begun.
  let emptied = () => {};
  const server = createServer((incoming, outgoing) => {
    const gone = new AbortController();
    open.set(incoming.socket, incoming);
    outgoing.on("close", () => {
      if (!outgoing.writableFinished) gone.abort();
    });
    void answer(incoming, outgoing, { handler, signal: gone.signal });
  });
  const accepting = acceptAll(listener, log, (connection) => {
    const stream = new UnixStream(connection);
    open.set(stream, undefined);
    const late = setTimeout(() => {
      if (!open.get(stream)?.complete) stream.destroy();
    }, REQUEST_TIMEOUT_MS);
    stream.on("error", (error) => ignore(error, "whoever asked has gone, which the close that follows says"));
    stream.on("close", () => {
      clearTimeout(late);
      open.delete(stream);
      if (open.size === 0) emptied();
    });
    server.emit("connection", stream);
  });
  return {
    shutdown: async () => {
      const ended = new Promise<void>((resolve) => emptied = resolve);
      listener.close();
      await accepting;
      for (const [stream, request] of open) if (request === undefined) stream.destroy();
      if (open.size > 0) await ended;
    },
  };
}

/**
 * Takes callers until the listener is closed. What keeps it from taking one now, such as that no descriptor is left, passes;
 * it must not end who serves.
 */
export async function acceptAll<Connection>(
  listener: { accept(): Promise<Connection> },
  log: Logger,
  onConnection: (connection: Connection) => void,
  retryMs: number = ACCEPT_RETRY_MS,
): Promise<void> {
  for (;;) {
    let connection: Connection;
    try {
      connection = await listener.accept();
    } catch (error) {
      if (error instanceof Deno.errors.BadResource || error instanceof Deno.errors.Interrupted) return;
      log.warn("a caller cannot be let in now", { error: chain(error) });
      await new Promise((resolve) => setTimeout(resolve, retryMs));
      continue;
    }
    onConnection(connection);
  }
}

async function answer(
  incoming: IncomingMessage,
  outgoing: ServerResponse,
  { handler, signal }: { handler: UnixHttpHandler; signal: AbortSignal },
): Promise<void> {
  const { method = "GET", url = "/" } = incoming, hasBody = method !== "GET" && method !== "HEAD";
  const body = hasBody ? Readable.toWeb(incoming) as ReadableStream<Uint8Array<ArrayBuffer>> : null;
  const target = URL.parse(url, "http://localhost/") ?? new URL("http://localhost/");
  let text: string, response: Response;
  try {
    response = await handler(new Request(target, { method, body }), signal);
    text = await response.text();
  } catch (error) {
    const reset = (error as { code?: unknown }).code === "ECONNRESET"; // Even of a request that is here as a whole.
    if (incoming.complete && !signal.aborted && !reset) throw error;
    return; // Whoever asked has gone in the middle of what he said, or of our work for him.
  }
  if (signal.aborted) return;
  // One request a connection: its caller's next one may come to our successor.
  outgoing.writeHead(response.status, { ...Object.fromEntries(response.headers), connection: "close" });
  outgoing.end(text);
}
