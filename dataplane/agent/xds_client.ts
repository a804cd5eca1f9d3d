/** The ADS client: two subscriptions on one stream, kept up for ever; what arrives goes to the mesh state (ZT-123 to ZT-133). */
import { Buffer } from "node:buffer";
import * as grpc from "@grpc/grpc-js";
import { chain, MeshError } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import { pause } from "../../base/waiting.ts";
import { AUTHORIZATION_TYPE_URL } from "../../mesh/proto/authorization_codec.ts";
import {
  decodeDeltaDiscoveryResponse,
  type DeltaDiscoveryRequest,
  type DeltaDiscoveryResponse,
  type DiscoveryNode,
  encodeDeltaDiscoveryRequest,
} from "../../mesh/proto/discovery_codec.ts";
import { WireFormatError } from "../../mesh/proto/wire_format_error.ts";
import { ADDRESS_TYPE_URL } from "../../mesh/proto/workload_codec.ts";
import { callMetadata, connectChannel, type ControlEndpoint, rawBytes, readRoots } from "./control_channel.ts";

/** A resource as it came, not decoded; `bytes` is valid during the call only. */
export interface ReceivedResource {
  readonly name: string;
  readonly version: string;
  readonly bytes: Uint8Array;
}

/** A resource that was not taken: the older one, if any, stays in force (ZT-130). */
export interface RejectedResource {
  readonly name: string;
  readonly reason: string;
}

/** Where updates go. */
export interface XdsState {
  /** Applies updates in order, then removals; names it does not hold are no error (ZT-131, ZT-135). Never throws on bad bytes. */
  apply(
    typeUrl: string,
    resources: readonly ReceivedResource[],
    removed: readonly string[],
  ): { readonly rejected: readonly RejectedResource[] };
}

/** Why a connection or stream ended; the label of `istio_xds_connection_terminations_total`. */
export type TerminationReason = "ConnectionError" | "Reconnect" | "Error" | "Complete";

export interface XdsClientOptions {
  readonly endpoint: ControlEndpoint;
  readonly node: DiscoveryNode;
  readonly state: XdsState;
  /** Addresses are asked for one by one, by {@link XdsClient.request} (ZT-127). */
  readonly onDemand: boolean;
  readonly log: Logger;
  /** For tests; {@link WAITERS_MAX}, {@link NAMES_MAX} and {@link ANSWER_MS_MAX} otherwise. */
  readonly waitersMax?: number;
  readonly namesMax?: number;
  readonly answerMsMax?: number;
  readonly onTermination?: (reason: TerminationReason) => void;
  /** Called for each message received, with its resources and bytes. */
  readonly onMessage?: (typeUrl: string, facts: { resources: number; bytes: number }) => void;
}

/** Who wait for one name. */
interface Waiter {
  readonly promise: Promise<boolean>;
  readonly resolve: (answered: boolean) => void;
  readonly timer: ReturnType<typeof setTimeout>;
}

/** What carries requests to istiod: a gRPC stream, or a simulated one. */
export interface XdsStream {
  write(bytes: Buffer): unknown;
}

const METHOD = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
const TYPES = [ADDRESS_TYPE_URL, AUTHORIZATION_TYPE_URL]; // In this order (ZT-125).
const BACKOFF_MIN_MS = 10; // ZT-132, with the next
const BACKOFF_MAX_MS = 15_000;
const WILDCARD = "*";
/** Names that may wait for an answer at once; a workload that scans addresses must not fill our memory. */
const WAITERS_MAX = 10_000;
/** Names asked for that are kept up. Past it the oldest is given up, and istiod told so: it would be asked for again. */
const NAMES_MAX = 100_000;
/** Nobody waits for longer (the workers' own patience), and a name that stays unanswered may be asked for again. */
const ANSWER_MS_MAX = 10_000;

export class XdsClient {
  readonly #options: XdsClientOptions;
  /** By type, what the state holds: name and version, empty where a newer one was rejected or none came yet. */
  readonly #versions = new Map(TYPES.map((type) => [type, new Map<string, string>()]));
  readonly #waiters = new Map<string, Waiter>();
  /** Names that were asked for, in the order of their last asking. */
  readonly #asked = new Set<string>();
  readonly #pendingTypes: Set<string>;
  readonly #ready = Promise.withResolvers<void>();
  #stream: XdsStream | undefined;
  #delivered = false;

  constructor(options: XdsClientOptions) {
    this.#options = options;
    this.#pendingTypes = new Set(options.onDemand ? [AUTHORIZATION_TYPE_URL] : TYPES);
  }

  /** Resolves once the first response of each type that is not on demand was applied (ZT-221). */
  get ready(): Promise<void> {
    return this.#ready.promise;
  }

  /** Whether a stream stands. While none does, the state serves on as it is (ZT-133). */
  get connected(): boolean {
    return this.#stream !== undefined;
  }

  /**
   * Asks for one name, on demand (ZT-127). Resolves once the state knows it, or knows that there is none. @returns false if
   * istiod has not answered in 10 s. @throws MeshError AMB0305, by rejection, when too many names wait already.
   */
  request(name: string): Promise<boolean> {
    const versions = this.#versions.get(ADDRESS_TYPE_URL)!;
    const waiting = this.#waiters.get(name);
    if (waiting !== undefined) return waiting.promise;
    if (this.#waiters.size >= (this.#options.waitersMax ?? WAITERS_MAX)) {
      const remedy = "find the workload that connects to very many addresses";
      return Promise.reject(new MeshError("AMB0305", `${this.#waiters.size} on-demand names wait already`, { remedy }));
    }
    const { promise, resolve } = Promise.withResolvers<boolean>();
    const timer = setTimeout(() => this.#settle(name, false), this.#options.answerMsMax ?? ANSWER_MS_MAX);
    this.#waiters.set(name, { promise, resolve, timer });
    if (!versions.has(name)) versions.set(name, ""); // Asked for again after a reconnect.
    this.#send({
      ...emptyRequest(ADDRESS_TYPE_URL),
      resourceNamesSubscribe: [name],
      resourceNamesUnsubscribe: this.#keepUp(name, versions),
    });
    return promise;
  }

  /** Notes that a name was asked for. @returns The name that is given up for it, if there are too many. */
  #keepUp(name: string, versions: Map<string, string>): readonly string[] {
    this.#asked.delete(name);
    this.#asked.add(name);
    if (this.#asked.size <= (this.#options.namesMax ?? NAMES_MAX)) return [];
    const [oldest] = this.#asked;
    this.#asked.delete(oldest!);
    if (versions.get(oldest!) !== "") return []; // A resource that we hold is kept up under its own name.
    versions.delete(oldest!);
    return [oldest!];
  }

  /** Connects, and reconnects, until aborted. Only our own mistakes make it throw. */
  async run({ signal }: { signal: AbortSignal }): Promise<void> {
    const { log, endpoint } = this.#options;
    let backoffMs = BACKOFF_MIN_MS;
    while (!signal.aborted) {
      this.#delivered = false;
      const end = await this.#connectAndStream(signal);
      if (signal.aborted) break;
      this.#options.onTermination?.(end.reason);
      if (this.#delivered) backoffMs = BACKOFF_MIN_MS;
      // A stream that ends cleanly is opened again at once, unless it ended before it was of any use.
      const sleepMs = end.reason === "Reconnect"
        ? BACKOFF_MIN_MS
        : end.reason === "Complete" && this.#delivered
        ? 0
        : Math.min(BACKOFF_MAX_MS, backoffMs * 2);
      const facts = { address: endpoint.address, reason: end.reason, error: end.text, retryMs: sleepMs };
      if (sleepMs <= BACKOFF_MIN_MS) log.debug("xds stream ended", facts);
      else {
        backoffMs = sleepMs;
        log.warn("xds connection lost", facts);
      }
      await pause(sleepMs, signal);
    }
    for (const name of [...this.#waiters.keys()]) this.#settle(name, false);
  }

  async #connectAndStream(signal: AbortSignal): Promise<{ reason: TerminationReason; text: string }> {
    const { endpoint, log } = this.#options;
    let client: grpc.Client | undefined;
    try {
      client = await connectChannel(endpoint, await readRoots(endpoint.roots));
      const metadata = await callMetadata(endpoint);
      if (signal.aborted) return { reason: "Complete", text: "" };
      log.info("xds connected", { address: endpoint.address });
      return await this.#runStream(client, metadata, signal);
    } catch (error) {
      if (!(error instanceof MeshError)) throw error;
      return { reason: "ConnectionError", text: `${chain(error)} (${error.remedy})` };
    } finally {
      this.#stream = undefined;
      client?.close();
    }
  }

  async #runStream(
    client: grpc.Client,
    metadata: grpc.Metadata,
    signal: AbortSignal,
  ): Promise<{ reason: TerminationReason; text: string }> {
    const stream = client.makeBidiStreamRequest(METHOD, rawBytes, rawBytes, metadata);
    const { promise, resolve, reject } = Promise.withResolvers<{ reason: TerminationReason; text: string }>();
    const stop = () => stream.cancel();
    signal.addEventListener("abort", stop, { once: true });
    stream.on("data", (bytes: Buffer) => {
      try {
        this.receive(bytes);
      } catch (error) {
        stream.cancel();
        if (error instanceof WireFormatError) resolve({ reason: "Error", text: error.message });
        else reject(error);
      }
    });
    stream.on("error", (error: grpc.ServiceError) => resolve(classify(error.code, error.details)));
    stream.on("end", () => resolve({ reason: "Complete", text: "" }));
    this.begin(stream);
    try {
      return await promise;
    } finally {
      signal.removeEventListener("abort", stop);
      this.end();
    }
  }

  // What a stream is, apart from how it is carried: begin, receive as often as it brings something, end. None waits.

  /** Subscribes on a new stream, naming what is held. */
  begin(stream: XdsStream): void {
    this.#stream = stream;
    for (const type of TYPES) this.#send(this.#initialRequest(type));
  }

  /** Nothing more comes of the stream. What was received stays in force. */
  end(): void {
    this.#stream = undefined;
  }

  #initialRequest(typeUrl: string): DeltaDiscoveryRequest {
    const none = typeUrl === ADDRESS_TYPE_URL && this.#options.onDemand ? [WILDCARD] : []; // "subscribe to nothing"
    return {
      ...emptyRequest(typeUrl),
      node: this.#options.node,
      resourceNamesSubscribe: none,
      resourceNamesUnsubscribe: none,
      initialResourceVersions: new Map(this.#versions.get(typeUrl)),
    };
  }

  /** Takes a response: applies it, and acknowledges it or says what was refused. Throws WireFormatError. */
  receive(bytes: Uint8Array): void {
    const response = decodeDeltaDiscoveryResponse(bytes);
    const { typeUrl, nonce, resources } = response;
    this.#delivered = true;
    this.#options.onMessage?.(typeUrl, { resources: resources.length, bytes: bytes.length });
    const acknowledgement = { ...emptyRequest(typeUrl), responseNonce: nonce };
    const versions = this.#versions.get(typeUrl);
    if (versions === undefined) { // ZT-129
      this.#options.log.warn("xds response of an unknown type", { typeUrl: typeUrl.slice(0, 200) });
      this.#send(acknowledgement);
      return;
    }
    const rejected = this.#apply(response, versions);
    if (rejected.length === 0) this.#send(acknowledgement);
    else {
      const message = rejected.map(({ name, reason }) => `${name}: ${reason}`).join("; ");
      this.#options.log.warn("xds resources rejected", { typeUrl, nonce, error: message.slice(0, 2_000) });
      this.#send({ ...acknowledgement, errorDetail: { code: 0, message } });
    }
    // What was refused in part is no complete state: readiness waits for a clean answer (ZT-223).
    if (rejected.length > 0) return;
    if (this.#pendingTypes.delete(typeUrl) && this.#pendingTypes.size === 0) this.#ready.resolve();
  }

  /** State first, then versions, then whoever waits: a waiter sees the new state (ZT-131). */
  #apply(response: DeltaDiscoveryResponse, versions: Map<string, string>): readonly RejectedResource[] {
    const { typeUrl, resources, removedResources } = response;
    const foreign = resources.filter((resource) => resource.typeUrl !== typeUrl);
    const own = foreign.length === 0 ? resources : resources.filter((resource) => resource.typeUrl === typeUrl);
    const { rejected } = this.#options.state.apply(typeUrl, own, removedResources);
    const all = [
      ...foreign.map(({ name, typeUrl: type }) => ({ name, reason: `body is of type ${type}` })),
      ...rejected,
    ];
    const refused = new Set(all.map(({ name }) => name));
    for (const { name, version } of resources) {
      if (!refused.has(name)) versions.set(name, version);
      // An older one that is still in force is named without a version: a reconnect brings the new one, or its removal.
      else if (versions.has(name)) versions.set(name, "");
    }
    for (const name of removedResources) {
      if (typeUrl === ADDRESS_TYPE_URL && this.#asked.has(name)) versions.set(name, ""); // Still asked for.
      else versions.delete(name);
    }
    if (typeUrl !== ADDRESS_TYPE_URL) return all;
    for (const { name, aliases } of resources) for (const known of [name, ...aliases]) this.#settle(known, true);
    for (const name of removedResources) this.#settle(name, true);
    return all;
  }

  #settle(name: string, answered: boolean): void {
    const waiter = this.#waiters.get(name);
    if (waiter === undefined) return;
    this.#waiters.delete(name);
    clearTimeout(waiter.timer);
    waiter.resolve(answered);
  }

  #send(request: DeltaDiscoveryRequest): void {
    const bytes = encodeDeltaDiscoveryRequest(request);
    this.#stream?.write(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length));
  }
}

function emptyRequest(typeUrl: string): DeltaDiscoveryRequest {
  return {
    typeUrl,
    resourceNamesSubscribe: [],
    resourceNamesUnsubscribe: [],
    initialResourceVersions: new Map(),
    responseNonce: "",
  };
}

/** ZT-132: which ends are a server's ordinary going away. */
function classify(code: grpc.status, details: string): { reason: TerminationReason; text: string } {
  const leaving = code === grpc.status.UNKNOWN || code === grpc.status.CANCELLED ||
    code === grpc.status.DEADLINE_EXCEEDED ||
    (code === grpc.status.UNAVAILABLE && /transport is closing|received prior goaway/.test(details));
  return { reason: leaving ? "Reconnect" : "Error", text: `${grpc.status[code]}: ${details}` };
}
