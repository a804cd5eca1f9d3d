/** The Kubernetes API over HTTP: one API server, as one access sees it. */
import { chain } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import { VERSION } from "../base/version.ts";
import type { KubeAccess } from "./access.ts";
import {
  type KubeApi,
  KubeError,
  type KubeObject,
  KubeUnreachable,
  type ListPage,
  type ObjectPlace,
  type ResourceType,
  type Scope,
  type WatchEvent,
  type WatchOptions,
} from "./api.ts";
import { sleep } from "./backoff.ts";
import { parseJson, readList, readObject, readObjectProto, readStatus } from "./decode.ts";
import { LineEventReader, ProtoEventReader } from "./event_readers.ts";
import { acceptOf, collectionPath, isAccepted, isJson, isProto, objectPath, scopeQuery, withQuery } from "./paths.ts";
import { listFieldsOf } from "./proto_answers.ts";
import type { ProtoFields } from "./proto_fields.ts";
import { RateLimit } from "./rate_limit.ts";
import { type HttpAnswer, type HttpRequest, Transport } from "./transport.ts";

export interface ClientLimits {
  readonly perSecond: number;
  readonly burst: number;
  /** A whole call, retries and all, a watch excepted. */
  readonly callMs: number;
  readonly answerBytesMax: number;
  /** One object in a watch. */
  readonly lineBytesMax: number;
  /** A watch in which nothing comes, not even a bookmark, is opened anew: its connection may be dead. */
  readonly watchSilenceMs: number;
  /** How long the server is asked to keep a watch open: so long, up to twice that. */
  readonly watchSeconds: number;
}

const LIMITS: ClientLimits = {
  perSecond: 80, // CP-010
  burst: 160,
  callMs: 120_000,
  answerBytesMax: 256 << 20, // A page of 500 objects; etcd takes 1.5 MiB for one, and they are far smaller.
  lineBytesMax: 16 << 20,
  watchSilenceMs: 150_000, // API servers send a bookmark about once a minute.
  watchSeconds: 300,
};
const RETRIES_MAX = 5;
const RETRY_WAIT_MAX_SECONDS = 30;
/** An answer other than 2xx is read this far, for its reason. */
const STATUS_BYTES_MAX = 1 << 20;
const utf8 = new TextDecoder();

export interface ClientOptions {
  readonly log: Logger;
  readonly limits?: Partial<ClientLimits>;
  readonly random?: () => number;
  readonly sleep?: (ms: number, signal: AbortSignal) => Promise<void>;
}

/** A client of an API server; connects with its first call. Whoever opens it closes it. */
export interface OpenKubeApi extends KubeApi {
  close(): void;
}

export function openKubeApi(access: KubeAccess, options: ClientOptions): OpenKubeApi {
  if (access.insecure) {
    options.log.warn("the API server's certificate is not verified: whoever answers is believed", {
      source: access.source,
    });
  }
  if (access.server.protocol === "http:") {
    options.log.warn("the API server is asked without TLS", { source: access.source });
  }
  return new Client(access, options);
}

class Client implements OpenKubeApi {
  readonly #access: KubeAccess;
  readonly #limits: ClientLimits;
  readonly #transport: Transport;
  readonly #rate: RateLimit;
  readonly #log: Logger;
  /** Types of which something came in protobuf that we cannot read. */
  readonly #unreadable = new Set<ResourceType>();
  readonly #random: () => number;
  readonly #sleep: (ms: number, signal: AbortSignal) => Promise<void>;

  constructor(access: KubeAccess, options: ClientOptions) {
    this.#access = access;
    this.#log = options.log;
    this.#limits = { ...LIMITS, ...options.limits };
    this.#transport = new Transport(access, `ambit/${VERSION}`);
    this.#rate = new RateLimit(this.#limits);
    this.#random = options.random ?? Math.random;
    this.#sleep = options.sleep ?? sleep;
  }

  close(): void {
    this.#transport.close();
  }

  async get(type: ResourceType, place: ObjectPlace): Promise<KubeObject | undefined> {
    try {
      return readObject(await this.#call({ method: "GET", path: objectPath(type, place) }));
    } catch (error) {
      if (error instanceof KubeError && error.status === 404) return undefined;
      throw error;
    }
  }

  async list(type: ResourceType, scope: Scope, page: { limit: number; continueToken?: string }): Promise<ListPage> {
    const query = {
      ...scopeQuery(scope),
      limit: page.limit > 0 ? page.limit : undefined,
      continue: page.continueToken,
    };
    const path = withQuery(collectionPath(type, scope.namespace), query), fields = this.#protoFieldsOf(type, scope);
    const request = { method: "GET", path, accept: acceptOf("list", { ...scope, fields }) } as const;
    if (fields === undefined) return readList(await this.#call(request));
    return await this.#readingProto(type, async () => readList(await this.#call(request, listFieldsOf(fields))));
  }

  async create(
    type: ResourceType,
    namespace: string,
    object: object,
    options: { dryRun?: boolean } = {},
  ): Promise<KubeObject> {
    const path = withQuery(collectionPath(type, namespace), options.dryRun === true ? { dryRun: "All" } : {});
    return readObject(await this.#call({ method: "POST", path, body: JSON.stringify(typed(type, object)) }));
  }

  async replace(type: ResourceType, place: ObjectPlace, object: object): Promise<KubeObject> {
    return readObject(
      await this.#call({ method: "PUT", path: objectPath(type, place), body: JSON.stringify(typed(type, object)) }),
    );
  }

  async apply(
    type: ResourceType,
    place: ObjectPlace,
    object: object,
    options: { fieldManager: string; force: boolean },
  ): Promise<KubeObject> {
    const path = withQuery(objectPath(type, place), { fieldManager: options.fieldManager, force: options.force });
    const contentType = "application/apply-patch+yaml", body = JSON.stringify(typed(type, object)); // JSON is YAML.
    return readObject(await this.#call({ method: "PATCH", path, contentType, body }));
  }

  async patch(type: ResourceType, place: ObjectPlace, patch: object): Promise<KubeObject> {
    const contentType = Array.isArray(patch) ? "application/json-patch+json" : "application/merge-patch+json";
    const request = {
      method: "PATCH",
      path: objectPath(type, place),
      contentType,
      body: JSON.stringify(patch),
    } as const;
    return readObject(await this.#call(request));
  }

  async delete(
    type: ResourceType,
    place: ObjectPlace,
    guard?: { uid?: string; resourceVersion?: string },
  ): Promise<void> {
    const options = {
      apiVersion: "v1",
      kind: "DeleteOptions",
      ...(guard === undefined ? {} : { preconditions: guard }),
    };
    try {
      await this.#call({ method: "DELETE", path: objectPath(type, place), body: JSON.stringify(options) });
    } catch (error) {
      if (!(error instanceof KubeError) || error.status !== 404) throw error;
    }
  }

  async *watch(type: ResourceType, scope: Scope, options: WatchOptions): AsyncGenerator<WatchEvent> {
    const silent = new AbortController();
    const signal = AbortSignal.any([options.signal, silent.signal]);
    const query = {
      ...scopeQuery(scope),
      watch: 1,
      allowWatchBookmarks: true,
      timeoutSeconds: Math.round(this.#limits.watchSeconds * (1 + this.#random())),
      resourceVersion: options.resourceVersion,
      ...(options.initialEvents === true ? { sendInitialEvents: true, resourceVersionMatch: "NotOlderThan" } : {}),
    };
    // One timer for all: a timer a chunk would cost as much as reading it.
    let limitMs = this.#limits.callMs, heardAtMs = performance.now(), isOpen = false;
    const timer = setInterval(() => {
      if (performance.now() - heardAtMs >= limitMs) silent.abort();
    }, Math.min(this.#limits.callMs, this.#limits.watchSilenceMs) / 4);
    try {
      const path = withQuery(collectionPath(type, scope.namespace), query), fields = this.#protoFieldsOf(type, scope);
      const answer = await this.#send({ method: "GET", path, accept: acceptOf("watch", { ...scope, fields }) }, signal);
      isOpen = true;
      limitMs = this.#limits.watchSilenceMs;
      heardAtMs = performance.now();
      options.onOpen?.();
      const proto = fields !== undefined && isProto(answer.contentType), bytesMax = this.#limits.lineBytesMax;
      const reader = proto ? new ProtoEventReader(fields, bytesMax) : new LineEventReader(bytesMax);
      for await (const chunk of answer.chunks) {
        heardAtMs = performance.now();
        yield* proto ? this.#noting(type, reader.push(chunk)) : reader.push(chunk);
        if (signal.aborted) return;
      }
      // A server that closes a watch does it between events.
      if (reader.pendingBytes > 0) throw new KubeUnreachable("a watch was cut off within an event");
    } catch (error) {
      if (!signal.aborted) throw error;
      if (!isOpen && !options.signal.aborted) throw this.#noAnswer();
    } finally {
      clearInterval(timer);
    }
  }

  /** What is read of a type where it may come as protobuf; undefined: it is to come as JSON. */
  #protoFieldsOf(type: ResourceType, { fields }: Scope): ProtoFields | undefined {
    return fields === undefined || this.#unreadable.has(type) ? undefined : fields;
  }

  /** Does it; what cannot be read for its encoding is JSON the next time it is asked for. */
  async #readingProto<T>(type: ResourceType, read: () => Promise<T>): Promise<T> {
    try {
      return await read();
    } catch (error) {
      throw this.#noted(type, error);
    }
  }

  *#noting(type: ResourceType, events: Iterable<WatchEvent>): Generator<WatchEvent> {
    try {
      yield* events;
    } catch (error) {
      throw this.#noted(type, error);
    }
  }

  #noted(type: ResourceType, error: unknown): unknown {
    if (error instanceof KubeUnreachable && error.undecodable && !this.#unreadable.has(type)) {
      this.#unreadable.add(type);
      this.#log.warn("a kind cannot be read in protobuf; from here on it is asked for in JSON", {
        kind: type.kind,
        group: type.group,
        error: chain(error),
      });
    }
    return error;
  }

  /** A call with an answer in bounded time and bytes. @param fields what is read of an answer in protobuf. */
  async #call(request: HttpRequest, fields?: ProtoFields): Promise<unknown> {
    const deadline = new AbortController(), timer = setTimeout(() => deadline.abort(), this.#limits.callMs);
    try {
      const answer = await this.#send(request, deadline.signal),
        bytes = await bytesOf(answer, this.#limits.answerBytesMax);
      return fields !== undefined && isProto(answer.contentType)
        ? readObjectProto(bytes, fields)
        : parseJson(utf8.decode(bytes));
    } catch (error) {
      throw deadline.signal.aborted ? this.#noAnswer() : error;
    } finally {
      clearTimeout(timer);
    }
  }

  #noAnswer(): KubeUnreachable {
    return new KubeUnreachable(`no answer from ${this.#access.server.host} within ${this.#limits.callMs / 1_000} s`);
  }

  /** Sends until it is answered with 2xx: again after a renewed credential, or when the server asks for patience. */
  async #send(request: HttpRequest, signal: AbortSignal): Promise<HttpAnswer> {
    for (let tries = 0, renewed = false, revived = false;; tries++) {
      await this.#rate.take(signal);
      const credential = await this.#credential(signal);
      let answer: HttpAnswer;
      try {
        answer = await this.#transport.send(request, credential, signal);
      } catch (error) {
        // A connection kept from before may have ended just then. Reading twice harms nobody.
        if (revived || request.method !== "GET" || !isReset(error)) throw error;
        revived = true;
        continue;
      }
      if (answer.status >= 200 && answer.status < 300 && isAccepted(answer.contentType, request.accept)) return answer;
      const error = await errorOf(answer);
      if (answer.status === 401 && !renewed) {
        renewed = true;
        this.#access.credentials.refused(credential);
        if (await this.#credential(signal) !== credential) continue;
      }
      const { retryAfterSeconds } = answer,
        retries = answer.status === 429 || answer.status >= 500 && retryAfterSeconds !== undefined;
      if (!retries || tries >= RETRIES_MAX) throw error;
      const seconds = Math.min(retryAfterSeconds ?? 1, RETRY_WAIT_MAX_SECONDS);
      await this.#sleep(seconds * 1_000 * (1 + this.#random() / 4), signal);
    }
  }

  async #credential(signal: AbortSignal) {
    try {
      return await this.#access.credentials.current(signal);
    } catch (error) {
      signal.throwIfAborted();
      throw new KubeUnreachable(chain(error), { cause: error });
    }
  }
}

/** The server tells kinds by what the object says. */
function typed(type: ResourceType, object: object): object {
  return { apiVersion: type.group === "" ? type.version : `${type.group}/${type.version}`, kind: type.kind, ...object };
}

function isReset(error: unknown): boolean {
  return error instanceof KubeUnreachable && error.cause instanceof Error && "code" in error.cause &&
    (error.cause.code === "ECONNRESET" || error.cause.code === "EPIPE");
}

async function bytesOf(answer: HttpAnswer, bytesMax: number): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of answer.chunks) {
    bytes += chunk.length;
    if (bytes > bytesMax) throw new KubeUnreachable(`an answer of more than ${bytesMax} bytes`);
    parts.push(chunk);
  }
  return concatenated(parts, bytes);
}

function concatenated(parts: readonly Uint8Array[], bytes: number): Uint8Array {
  if (parts.length === 1) return parts[0]!;
  const whole = new Uint8Array(bytes);
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** Why an answer is none. */
async function errorOf(answer: HttpAnswer): Promise<KubeError | KubeUnreachable> {
  const bytes = await bytesOf(answer, STATUS_BYTES_MAX);
  const { status, contentType } = answer;
  if (status < 300) {
    return new KubeUnreachable(`an answer of type "${contentType}" instead of JSON: that is no API server`, {
      undecodable: true,
    });
  }
  if (status < 400) return new KubeUnreachable(`a redirection (${status}), which an API server does not use`);
  try {
    if (isProto(contentType)) return readStatus(readObjectProto(bytes, []), status);
    return readStatus(isJson(contentType) ? parseJson(utf8.decode(bytes)) : undefined, status);
  } catch (error) {
    if (!(error instanceof KubeUnreachable)) throw error;
    return readStatus(undefined, status); // A proxy's page, or half of one: its status is what there is.
  }
}
