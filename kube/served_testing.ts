/** For tests: the API in memory over real HTTP or HTTPS, and a server that answers any bytes at all. */
import { createServer as createPlain, type IncomingMessage, type ServerResponse } from "node:http";
import { createServer as createTls, type ServerOptions } from "node:https";
import { Logger } from "../base/log.ts";
import { fixedCredentials, type KubeAccess } from "./access.ts";
import { KubeError, type KubeObject, KubeUnreachable, type ResourceType } from "./api.ts";
import { type ClientOptions, type OpenKubeApi, openKubeApi } from "./client.ts";
import * as types from "./resource_types.ts";
import type { InMemoryKubeApi } from "./testing.ts";

const TYPES = Object.values(types) as readonly ResourceType[];

/** Access to a server of a test. */
export function accessTo(port: number, more: Partial<KubeAccess> = {}): KubeAccess {
  return {
    server: new URL(`http://127.0.0.1:${port}`),
    ca: undefined,
    serverName: undefined,
    insecure: false,
    credentials: fixedCredentials({}),
    headers: {},
    namespace: "",
    source: "test",
    ...more,
  };
}

/** A client that waits for nothing between tries. */
export function clientOf(access: KubeAccess, options: Partial<ClientOptions> = {}): OpenKubeApi & Disposable {
  const client = openKubeApi(access, {
    log: new Logger("kube", { sink: () => {} }),
    sleep: () => Promise.resolve(),
    ...options,
  });
  return Object.assign(client, { [Symbol.dispose]: () => client.close() });
}

export interface ServedOptions {
  readonly tls?: ServerOptions;
  /** The only bearer token that is let in. */
  readonly token?: () => string;
  readonly port?: number;
}

/** An API server. */
export class ServedKubeApi implements AsyncDisposable {
  readonly port: number;
  /** Method and path of each request, and its headers. */
  readonly requests: { readonly line: string; readonly headers: IncomingMessage["headers"] }[] = [];
  readonly #close: () => Promise<void>;

  private constructor(port: number, close: () => Promise<void>) {
    this.port = port;
    this.#close = close;
  }

  static async start(api: InMemoryKubeApi, options: ServedOptions = {}): Promise<ServedKubeApi> {
    const answer = (request: IncomingMessage, response: ServerResponse) => {
      served.requests.push({ line: `${request.method} ${request.url}`, headers: request.headers });
      const token = options.token?.();
      if (token !== undefined && request.headers.authorization !== `Bearer ${token}`) {
        return fail(response, new KubeError(401, "Unauthorized", "Unauthorized"));
      }
      serve(api, request, response).catch((error) => {
        const gone = !request.complete || (error as { code?: unknown }).code === "ECONNRESET";
        if (!gone) fail(response, error); // Else the client went in the middle of what it said.
      });
    };
    const server = options.tls === undefined ? createPlain(answer) : createTls(options.tls, answer);
    await new Promise<void>((resolve) => server.listen(options.port ?? 0, "127.0.0.1", resolve));
    const close = () =>
      new Promise<void>((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      });
    const served = new ServedKubeApi((server.address() as { port: number }).port, close);
    return served;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#close();
  }
}

function fail(response: ServerResponse, error: unknown): void {
  if (error instanceof KubeUnreachable || response.headersSent) return void response.destroy();
  if (!(error instanceof KubeError)) throw error;
  const { status: code, reason, message } = error;
  response.writeHead(code, { "content-type": "application/json" });
  response.end(JSON.stringify({ kind: "Status", apiVersion: "v1", status: "Failure", message, reason, code }));
}

async function serve(api: InMemoryKubeApi, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const url = new URL(request.url ?? "", "http://x"), query = url.searchParams;
  const path = url.pathname.split("/").slice(1).map(decodeURIComponent);
  const [group, version, rest] = path[0] === "api"
    ? ["", path[1]!, path.slice(2)]
    : [path[1]!, path[2]!, path.slice(3)];
  const inNamespace = rest[0] === "namespaces" && rest.length > 2;
  const namespace = inNamespace ? rest[1]! : "";
  const [plural, name, subresource] = inNamespace ? rest.slice(2) : rest;
  const type = TYPES.find((it) => it.group === group && it.version === version && it.plural === plural);
  if (type === undefined) throw new KubeError(404, "NotFound", "the server could not find the requested resource");
  let text = "";
  for await (const chunk of request) text += chunk;
  const body = text === "" ? undefined : JSON.parse(text);
  const send = (value: object, code = 200) => {
    response.writeHead(code, { "content-type": "application/json" });
    response.end(JSON.stringify(value));
  };
  const scope = {
    namespace: namespace === "" ? undefined : namespace,
    labelSelector: query.get("labelSelector") ?? undefined,
    fieldSelector: query.get("fieldSelector") ?? undefined,
    metadataOnly: request.headers.accept?.includes("as=PartialObjectMetadata"),
  };
  if (["1", "true"].includes(query.get("watch") ?? "")) return await watch(api, type, scope, query, response);
  const place = { namespace, name: name ?? "", subresource };
  const contentType = request.headers["content-type"] ?? "";
  if (request.method === "POST") {
    return send(await api.create(type, namespace, body, { dryRun: query.get("dryRun") === "All" }), 201);
  }
  if (request.method === "PUT") return send(await api.replace(type, place, body));
  if (request.method === "DELETE") {
    await api.delete(type, place, body.preconditions);
    return send({ kind: "Status", status: "Success" });
  }
  if (request.method === "PATCH") {
    if (!contentType.startsWith("application/apply-patch")) return send(await api.patch(type, place, body));
    const options = { fieldManager: query.get("fieldManager") ?? "", force: query.get("force") === "true" };
    return send(await api.apply(type, place, body, options));
  }
  if (name !== undefined) {
    const object: KubeObject | undefined = await api.get(type, place);
    if (object === undefined) throw new KubeError(404, "NotFound", "not found");
    return send(object);
  }
  const page = await api.list(type, scope, {
    limit: Number(query.get("limit") ?? 0),
    continueToken: query.get("continue") ?? "",
  });
  send({
    kind: `${type.kind}List`,
    metadata: { resourceVersion: page.resourceVersion, continue: page.continueToken },
    items: page.items,
  });
}

async function watch(
  api: InMemoryKubeApi,
  type: ResourceType,
  scope: object,
  query: URLSearchParams,
  response: ServerResponse,
): Promise<void> {
  const stop = new AbortController();
  response.on("close", () => stop.abort());
  const options = {
    resourceVersion: query.get("resourceVersion") ?? "",
    initialEvents: query.get("sendInitialEvents") === "true",
    signal: stop.signal,
    onOpen: () => {
      response.writeHead(200, { "content-type": "application/json" });
      response.flushHeaders();
    },
  };
  try {
    for await (const event of api.watch(type, scope, options)) {
      // What clients of other makes tell a kind by, in the midst of a stream.
      const apiVersion = type.group === "" ? type.version : `${type.group}/${type.version}`;
      const object = event.type !== "BOOKMARK" ? { apiVersion, kind: type.kind, ...event.object } : {
        apiVersion,
        kind: type.kind,
        metadata: {
          resourceVersion: event.resourceVersion,
          ...(event.initialEventsEnd ? { annotations: { "k8s.io/initial-events-end": "true" } } : {}),
        },
      };
      response.write(JSON.stringify({ type: event.type, object }) + "\n");
    }
    response.end();
  } catch (error) {
    // As the real one says it once the watch is open.
    if (!(error instanceof KubeError) || !response.headersSent) throw error;
    const { status: code, reason, message } = error;
    response.end(JSON.stringify({ type: "ERROR", object: { kind: "Status", code, reason, message } }) + "\n");
  }
}

/** A server of raw bytes: what a script writes for each request, then the end of the connection. */
export class RawServer implements AsyncDisposable {
  readonly #listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  readonly #open = new Set<Deno.Conn>();
  readonly #running: Promise<void>;
  requests = 0;

  constructor(script: (write: (text: string | Uint8Array) => Promise<void>, head: string) => Promise<void>) {
    this.#running = this.#run(script);
  }

  get port(): number {
    return (this.#listener.addr as Deno.NetAddr).port;
  }

  async #run(
    script: (write: (text: string | Uint8Array) => Promise<void>, head: string) => Promise<void>,
  ): Promise<void> {
    const connections: Promise<void>[] = [];
    for await (const connection of this.#listener) {
      this.#open.add(connection);
      connections.push(this.#serve(connection, script));
    }
    await Promise.all(connections);
  }

  async #serve(
    connection: Deno.Conn,
    script: (write: (text: string | Uint8Array) => Promise<void>, head: string) => Promise<void>,
  ): Promise<void> {
    try {
      const head = new Uint8Array(65_536), count = await connection.read(head);
      if (count === null) return;
      this.requests++;
      const write = async (text: string | Uint8Array) => {
        const bytes = typeof text === "string" ? new TextEncoder().encode(text) : text;
        for (let at = 0; at < bytes.length;) at += await connection.write(bytes.subarray(at));
      };
      await script(write, new TextDecoder().decode(head.subarray(0, count)));
    } catch (error) {
      if (
        !(error instanceof Deno.errors.BrokenPipe || error instanceof Deno.errors.ConnectionReset ||
          error instanceof Deno.errors.BadResource || error instanceof Deno.errors.Interrupted)
      ) throw error;
    } finally {
      this.#open.delete(connection);
      closeOnce(connection);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#listener.close();
    for (const connection of this.#open) closeOnce(connection);
    await this.#running;
  }
}

function closeOnce(connection: Deno.Conn): void {
  try {
    connection.close();
  } catch (error) {
    if (!(error instanceof Deno.errors.BadResource)) throw error; // The test ended it, or the script did.
  }
}
