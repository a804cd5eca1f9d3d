/**
 * HTTP over a unix socket, with a signal for each request that says when its caller has gone. `Deno.serve` has one that
 * aborts after every answer as well, and tells the operator so.
 */
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { Readable } from "node:stream";

/** Answers one request; what it throws ends the process, as a mistake of ours. */
export type UnixHttpHandler = (request: Request, signal: AbortSignal) => Promise<Response>;

export interface UnixHttpServer {
  /** Takes no more, and resolves once those under way have been answered. */
  shutdown(): Promise<void>;
}

const REQUEST_TIMEOUT_MS = 10_000; // for a caller to say what it wants; the answer may take longer

/** Resolves once the socket is there. Rejects when it cannot be. */
export async function serveUnixHttp(path: string, handler: UnixHttpHandler): Promise<UnixHttpServer> {
  const server = createServer({ requestTimeout: REQUEST_TIMEOUT_MS }, (incoming, outgoing) => {
    const gone = new AbortController();
    outgoing.on("close", () => {
      if (!outgoing.writableFinished) gone.abort();
    });
    void answer(incoming, outgoing, { handler, signal: gone.signal });
  });
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(path, () => {
      server.removeListener("error", reject);
      resolve();
    });
  });
  return {
    shutdown: async () => {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      server.closeIdleConnections(); // Kept for a next request, which is not answered any more.
      await closed;
    },
  };
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
