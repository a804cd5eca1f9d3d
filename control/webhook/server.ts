/** The webhook over HTTPS (CP-690): `/validate` for the API server, `/ready` for probes. */
import { createServer, type Server } from "node:https";
import type { IncomingMessage, ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import type { TLSSocket } from "node:tls";
import type { ListenAddress } from "../../base/config.ts";
import { chain, MeshError } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import type { Counter, Metrics } from "../../base/metrics.ts";
import { suiteProblem, TLS_VERSIONS, type TlsRules } from "../grpc/tls_rules.ts";
import { answerReview } from "./review.ts";

/** What the listener presents; changed live. */
export interface ServerPair {
  readonly chainPem: string;
  readonly keyPem: string;
}

export interface WebhookOptions {
  readonly address: ListenAddress;
  readonly tls: ServerPair;
  readonly rules: TlsRules;
  readonly ready: () => boolean;
  readonly metrics: Metrics;
  readonly log: Logger;
  /** For tests; {@link REQUEST_LIMIT_MS} otherwise. */
  readonly requestLimitMs?: number;
}

/** An object and, for an update, what it was: etcd takes 1.5 MiB of each. */
const BODY_BYTES_MAX = 8 << 20;
/** An API server waits ten seconds for a webhook unless it is told otherwise. */
const REQUEST_LIMIT_MS = 10_000;
const CONNECTIONS_MAX = 256;
const IDLE_MS_MAX = 90_000; // CP-007; the API server keeps its connections

/** What a request is answered with instead of a review. */
class HttpRefusal extends Error {
  readonly status: number;

  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

/** The listener. */
export class WebhookServer {
  readonly #server: Server;
  readonly #options: WebhookOptions;
  readonly #passed: Counter;
  readonly #failed: Counter;
  readonly #httpErrors: Counter;

  constructor(options: WebhookOptions) {
    const { metrics, tls } = options;
    this.#options = options;
    this.#passed = metrics.counter("galley_validation_passed", "Objects that the webhook let in.");
    this.#failed = metrics.counter("galley_validation_failed", "Objects that the webhook refused.");
    const help = "Requests to the webhook that were no reviews, by the status they were answered with.";
    this.#httpErrors = metrics.counter("galley_validation_http_error", help, { labelled: true });
    this.#server = createServer(this.#settings(tls), (request, response) => void this.#serve(request, response));
    this.#server.on("secureConnection", (socket: TLSSocket) => {
      if (suiteProblem(socket, options.rules) !== undefined) socket.destroy();
    });
    this.#server.maxConnections = CONNECTIONS_MAX;
    this.#server.keepAliveTimeout = IDLE_MS_MAX;
    this.#server.requestTimeout = REQUEST_LIMIT_MS;
    this.#server.headersTimeout = REQUEST_LIMIT_MS;
  }

  /** Opens it. @returns The port. @throws MeshError AMB0815 */
  async listen(): Promise<number> {
    const { host, port } = this.#options.address, { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#server.once("error", reject);
    this.#server.listen(port, host, resolve);
    try {
      await promise;
    } catch (cause) {
      throw new MeshError("AMB0815", `cannot listen on ${host}:${port} for the validation webhook`, {
        remedy: "choose another --https-address, or stop what listens there",
        cause,
      });
    }
    return (this.#server.address() as AddressInfo).port;
  }

  /** New handshakes present this from here on; connections that stand are kept (CP-006). */
  present(tls: ServerPair): void {
    this.#server.setSecureContext(this.#settings(tls));
  }

  #settings({ chainPem, keyPem }: ServerPair) {
    return { cert: chainPem, key: keyPem, minVersion: TLS_VERSIONS[this.#options.rules.tlsVersionMin] };
  }

  async close(): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    this.#server.closeAllConnections();
    await closed;
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const timer = setTimeout(() => request.destroy(), this.#options.requestLimitMs ?? REQUEST_LIMIT_MS);
    try {
      const body = JSON.stringify(await this.#answer(request));
      response.writeHead(200, { "content-type": "application/json" }).end(body);
    } catch (error) {
      if (request.destroyed && !request.complete) return; // Gone before it had said all, or too slow.
      const status = error instanceof HttpRefusal ? error.status : 500;
      this.#httpErrors.increment({ status: String(status) });
      if (status === 500) this.#options.log.error("a review could not be answered", { error: chain(error) });
      const message = error instanceof HttpRefusal ? error.message : "internal error";
      response.writeHead(status, { "content-type": "text/plain", connection: "close" }).end(`${message}\n`);
    } finally {
      clearTimeout(timer);
    }
  }

  async #answer(request: IncomingMessage): Promise<object> {
    const path = (request.url ?? "").split("?", 1)[0]!;
    if (path === "/ready") {
      if (!this.#options.ready()) throw new HttpRefusal(503, "not ready");
      return {};
    }
    if (path !== "/validate" && !path.startsWith("/validate/")) throw new HttpRefusal(404, "not found");
    if (request.method !== "POST") throw new HttpRefusal(405, "reviews are posted");
    const text = await textOf(request);
    if (text === "") throw new HttpRefusal(400, "no body");
    const contentType = (request.headers["content-type"] ?? "").split(";", 1)[0]!.trim();
    if (contentType !== "application/json") {
      throw new HttpRefusal(415, `content type "${contentType}", not application/json`);
    }
    const { outcome, body } = answerReview(text);
    (outcome === "allowed" ? this.#passed : this.#failed).increment();
    return body;
  }
}

/** What is sent. More than the bound is read on and thrown away, so that whoever sends it gets an answer. */
async function textOf(request: IncomingMessage): Promise<string> {
  const decoder = new TextDecoder();
  let text = "", bytes = 0;
  for await (const chunk of request as AsyncIterable<Uint8Array>) {
    bytes += chunk.length;
    if (bytes <= BODY_BYTES_MAX) text += decoder.decode(chunk, { stream: true });
    else text = "";
  }
  if (bytes > BODY_BYTES_MAX) throw new HttpRefusal(413, `a body of more than ${BODY_BYTES_MAX} bytes`);
  return text + decoder.decode();
}
