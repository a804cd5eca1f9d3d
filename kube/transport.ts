/** One HTTP request to the API server, over TLS as its access asks; the answer's head, and its bytes as they come. */
import { Agent as PlainAgent, type ClientRequest, type IncomingMessage, request as requestPlain } from "node:http";
import { Agent as TlsAgent, request as requestTls } from "node:https";
import type { Socket } from "node:net";
import { connect as connectTls, type ConnectionOptions as TlsOptions } from "node:tls";
import { KubeUnreachable } from "./api.ts";
import type { Credential, KeyPair, KubeAccess } from "./access.ts";

export interface HttpRequest {
  readonly method: "GET" | "POST" | "PUT" | "PATCH" | "DELETE";
  /** With its query; after the access's own path. */
  readonly path: string;
  readonly contentType?: string;
  readonly body?: string;
  /** What the answer may be; JSON unless said. */
  readonly accept?: string;
}

export interface HttpAnswer {
  readonly status: number;
  readonly contentType: string;
  /** Seconds, if it says how long to wait. */
  readonly retryAfterSeconds: number | undefined;
  /** Ends early, by throwing, if the connection does or the signal is aborted. */
  readonly chunks: AsyncIterable<Uint8Array>;
}

const HEADER_BYTES_MAX = 64 << 10;
/** No answer's head for so long: given up. The API server answers a list only once it has read it all. */
const HEAD_LIMIT_MS = 60_000;
/** Shorter than the 90 s after which an API server closes an idle connection, so that none is used at its end. */
const IDLE_SOCKET_MS = 45_000;

/** Connections to one API server. */
export class Transport {
  readonly #access: KubeAccess;
  readonly #userAgent: string;
  #agent: PlainAgent | TlsAgent | undefined;
  #agentKeyPair: KeyPair | undefined;
  readonly #agents = new Set<PlainAgent | TlsAgent>();
  #closed = new AbortController();

  constructor(access: KubeAccess, userAgent: string) {
    this.#access = access;
    this.#userAgent = userAgent;
  }

  /** @throws KubeUnreachable if no answer comes, the signal's reason if it is aborted. */
  async send(request: HttpRequest, credential: Credential, signal: AbortSignal): Promise<HttpAnswer> {
    signal.throwIfAborted();
    const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
    const sent = this.#open(request, credential);
    const abort = () => sent.destroy(new Error("given up"));
    const timer = setTimeout(
      () => sent.destroy(new Error(`no answer within ${HEAD_LIMIT_MS / 1_000} s`)),
      HEAD_LIMIT_MS,
    );
    signal.addEventListener("abort", abort);
    sent.on("response", resolve);
    // Stays for as long as the request lives: an error after the head is told by the body as well.
    sent.on("error", reject);
    sent.end(request.body);
    try {
      const answer = await promise;
      answer.on("error", reject); // Too late to reject anything, but an error event that nobody hears ends the process.
      return {
        status: answer.statusCode ?? 0,
        contentType: answer.headers["content-type"] ?? "",
        retryAfterSeconds: secondsOf(answer.headers["retry-after"]),
        chunks: chunksOf(answer, sent, signal, abort),
      };
    } catch (error) {
      signal.removeEventListener("abort", abort);
      signal.throwIfAborted();
      throw new KubeUnreachable(`asking ${this.#access.server.host}`, { cause: error });
    } finally {
      clearTimeout(timer);
    }
  }

  /** Closes all connections; requests under way end with an error. */
  close(): void {
    this.#closed.abort();
    this.#closed = new AbortController(); // Whoever asks again gets connections anew.
    for (const agent of this.#agents) agent.destroy();
    this.#agents.clear();
    this.#agent = undefined;
  }

  #open(
    { method, path, contentType, body, accept = "application/json" }: HttpRequest,
    credential: Credential,
  ): ClientRequest {
    const { server, headers, serverName } = this.#access, isTls = server.protocol === "https:";
    const bodyBytes = body === undefined ? undefined : new TextEncoder().encode(body).length;
    const options = {
      method,
      protocol: server.protocol,
      host: server.hostname.replace(/^\[|\]$/g, ""),
      port: server.port === "" ? (isTls ? 443 : 80) : Number(server.port),
      path: server.pathname.replace(/\/$/, "") + path,
      agent: this.#agentFor(credential.keyPair),
      maxHeaderSize: HEADER_BYTES_MAX,
      headers: {
        ...headers,
        accept,
        "user-agent": this.#userAgent,
        ...(credential.token === undefined ? {} : { authorization: `Bearer ${credential.token}` }),
        ...(bodyBytes === undefined
          ? {}
          : { "content-type": contentType ?? "application/json", "content-length": bodyBytes }),
      },
      ...(serverName === undefined ? {} : { servername: serverName }),
    };
    return isTls ? requestTls(options) : requestPlain(options);
  }

  /** A renewed client certificate gets connections of its own; the old ones end when they are idle. */
  #agentFor(keyPair: KeyPair | undefined): PlainAgent | TlsAgent {
    if (this.#agent !== undefined && this.#agentKeyPair === keyPair) return this.#agent;
    const { server, ca, insecure, dial } = this.#access;
    const shared = { keepAlive: true, timeout: IDLE_SOCKET_MS, maxFreeSockets: 8 };
    this.#agent = server.protocol === "http:" ? new PlainAgent(shared) : new TlsAgent({
      ...shared,
      ca,
      cert: keyPair?.certificate,
      key: keyPair?.key,
      rejectUnauthorized: !insecure,
      minVersion: "TLSv1.2",
    });
    if (dial !== undefined) {
      const { signal } = this.#closed;
      openBy((host, port) => dial(host, port, signal), this.#agent, server.protocol === "https:");
    }
    this.#agentKeyPair = keyPair;
    this.#agents.add(this.#agent);
    return this.#agent;
  }
}

/** Has the agent open its connections by a proxy. TLS, if it is spoken, is with the server: to the proxy it is noise. */
function openBy(
  dial: (host: string, port: number) => Promise<Socket>,
  agent: PlainAgent | TlsAgent,
  isTls: boolean,
): void {
  interface Target extends TlsOptions {
    readonly host: string;
    readonly port: number;
  }
  Reflect.set(agent, "createConnection", (target: Target, done: (error: Error | null, socket?: Socket) => void) => {
    dial(target.host, target.port).then(
      (socket) => done(null, isTls ? connectTls({ ...target, socket }) : socket),
      (error) => done(error),
    );
  });
}

async function* chunksOf(
  answer: IncomingMessage,
  sent: ClientRequest,
  signal: AbortSignal,
  abort: () => void,
): AsyncGenerator<Uint8Array> {
  try {
    for await (const chunk of answer) yield chunk as Uint8Array;
    if (!answer.complete) throw new Error("the answer was cut off");
  } catch (error) {
    signal.throwIfAborted();
    throw new KubeUnreachable("reading an answer", { cause: error });
  } finally {
    signal.removeEventListener("abort", abort);
    if (!answer.complete) sent.destroy();
  }
}

function secondsOf(header: string | undefined): number | undefined {
  return header !== undefined && /^\d{1,6}$/.test(header) ? Number(header) : undefined;
}
