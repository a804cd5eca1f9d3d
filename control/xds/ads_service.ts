/** Delta ADS over gRPC: streams in and out of sessions, each at its client's own pace (CP-400 to CP-445). */
import { Buffer } from "node:buffer";
import * as grpc from "@grpc/grpc-js";
import { assert } from "../../base/assert.ts";
import type { Logger } from "../../base/log.ts";
import { decodeDeltaDiscoveryRequest, type DeltaDiscoveryRequest } from "../../mesh/proto/discovery_codec.ts";
import { WireFormatError } from "../../mesh/proto/wire_format_error.ts";
import type { Authenticator, Caller } from "../ca/caller.ts";
import type { Metrics } from "../metrics.ts";
import { type ClientNode, identityFits, parseNode } from "./node.ts";
import { type ResourceChange, type ResourceView, SERVED_TYPES } from "./resources.ts";
import { ResponseEncoder } from "./response.ts";
import { credentialsOf } from "./secure_server.ts";
import { DeltaSession, type Outgoing, type WatchStatus } from "./session.ts";
import { StreamLimit } from "./stream_limit.ts";

type Call = grpc.ServerDuplexStream<Buffer, Buffer>;

export interface AdsServiceOptions {
  readonly view: ResourceView;
  readonly authenticator: Authenticator;
  readonly metrics: Metrics;
  readonly log: Logger;
  readonly newStreamsPerSecond: number;
  /** Accounts that may impersonate; a ztunnel of another one is warned of, since it will get no certificates. */
  readonly trustedNodeAccounts: readonly string[];
  /** `control_plane.identifier` of every response: JSON, as tools parse it (CP-021). */
  readonly controlPlane: string;
  readonly now: () => number;
}

/** A connected client, for the debug pages. */
export interface StreamStatus {
  readonly connectionId: string;
  readonly connectedAt: string;
  readonly address: string;
  readonly node: ClientNode;
  readonly watches: readonly WatchStatus[];
}

interface Stream {
  readonly id: string;
  readonly connectedAtMs: number;
  readonly call: Call;
  readonly node: ClientNode;
  readonly session: DeltaSession;
  /** By type, when its last response went out. */
  readonly sentAtMs: Map<string, number>;
  writing: boolean;
}

const ADS = "/envoy.service.discovery.v3.AggregatedDiscoveryService";
const raw = (bytes: Buffer) => bytes;
const bidirectional = {
  requestStream: true,
  responseStream: true,
  requestSerialize: raw,
  requestDeserialize: raw,
  responseSerialize: raw,
  responseDeserialize: raw,
};
const SERVICE = { deltaAggregatedResources: { path: `${ADS}/DeltaAggregatedResources`, ...bidirectional } };
const HEALTH_INFORMATION = /HealthInformation$/;
const STREAMS_MAX = 20_000; // CP-658's storm, twice over
const SETTLE_MS_MAX = 5 * 60_000; // a client that holds changes up for this long is blind: reconnecting may cure it
const NEW_STREAM_WAIT_MS_MAX = 1_000; // CP-400

export class AdsService {
  readonly #options: AdsServiceOptions;
  readonly #streams = new Set<Stream>();
  readonly #encoder: ResponseEncoder;
  readonly #limit: StreamLimit;
  readonly #counters;
  readonly #nonceSuffix = crypto.randomUUID(); // Nonces of another replica or an earlier run are never ours (CP-412).
  readonly #startedAt: string;
  #nonces = 0;
  #connections = 0;
  #pushes = 0;
  #ready = false;

  constructor(options: AdsServiceOptions) {
    this.#options = options;
    this.#encoder = new ResponseEncoder(options.controlPlane);
    this.#startedAt = new Date(options.now()).toISOString();
    this.#limit = new StreamLimit({
      perSecond: options.newStreamsPerSecond,
      waitMsMax: NEW_STREAM_WAIT_MS_MAX,
      now: options.now,
    });
    const { metrics } = options;
    this.#counters = { // Names of CP-022.
      pushes: metrics.counter("pilot_xds_pushes", "Responses sent, by type.", { labelled: true }),
      rejects: metrics.counter("pilot_total_xds_rejects", "Responses that clients refused, by type.", {
        labelled: true,
      }),
      expiredNonces: metrics.counter("pilot_xds_expired_nonce", "Requests with a nonce that is not the last one sent."),
      timeouts: metrics.counter("pilot_xds_write_timeout", "Streams ended because responses stayed unacknowledged."),
      refused: metrics.counter("pilot_xds_refused_streams", "Streams refused, by status.", { labelled: true }),
    };
    metrics.gauge("pilot_xds", "Connected xDS clients.", () => this.#streams.size);
    metrics.gauge(
      "pilot_xds_waiting_changes",
      "Changes that wait for slow clients, over all streams.",
      () => this.status().reduce((sum, stream) => sum + stream.watches.reduce((part, it) => part + it.waiting, 0), 0),
    );
  }

  addTo(server: grpc.Server): void {
    server.addService(SERVICE, { deltaAggregatedResources: (call: Call) => this.#onCall(call) });
  }

  /** Lets streams in: the state they are served from is complete (CP-013). */
  open(): void {
    this.#ready = true;
  }

  /** Hands a change to every stream. */
  push(changes: readonly ResourceChange[]): void {
    this.#pushes++;
    for (const stream of this.#streams) {
      for (const change of changes) stream.session.push(change);
      if (this.#isBlind(stream)) {
        this.#counters.timeouts.increment();
        this.#options.log.warn("xds client does not acknowledge", { connection: stream.id });
        this.#streams.delete(stream);
        this.#refuse(stream.call, "DEADLINE_EXCEEDED", "a response stayed unacknowledged");
      } else this.#pump(stream);
    }
  }

  #isBlind({ session, sentAtMs }: Stream): boolean {
    const oldestMs = this.#options.now() - SETTLE_MS_MAX;
    return session.unsettledTypes().some((type) => (sentAtMs.get(type) ?? Infinity) < oldestMs);
  }

  /** Ends every stream; clients go to another replica, or come back. */
  close(): void {
    this.#ready = false;
    for (const stream of this.#streams) stream.call.end();
    this.#streams.clear();
  }

  status(): StreamStatus[] {
    return [...this.#streams].map(({ id, connectedAtMs, call, node, session }) => ({
      connectionId: id,
      connectedAt: new Date(connectedAtMs).toISOString(),
      address: call.getPeer(),
      node,
      watches: session.status(),
    }));
  }

  #onCall(call: Call): void {
    let stream: Stream | undefined, caller: Caller | undefined;
    let over = false; // What is still buffered of a call that is over must not open a stream that nobody ends.
    const leave = () => {
      over = true;
      if (stream === undefined || !this.#streams.delete(stream)) return;
      this.#options.log.info("xds stream ended", { connection: stream.id });
    };
    call.on("cancelled", leave);
    call.on("error", leave); // Ours (a refusal), or the transport's: the client sees its connection end.
    call.on("end", () => {
      leave();
      call.end();
    });
    const onData = (bytes: Buffer) => {
      if (over) return;
      const request = this.#decode(call, bytes);
      if (request === undefined || (stream === undefined && HEALTH_INFORMATION.test(request.typeUrl))) return;
      assert(caller !== undefined, "a stream is read only once its caller is known");
      stream ??= this.#open(call, request, caller);
      if (stream !== undefined) this.#onRequest(stream, request);
    };
    this.#admit(call).then(
      (admitted) => {
        caller = admitted;
        if (admitted !== undefined) call.on("data", onData); // Nothing is read before.
      },
      (error) => {
        this.#options.log.error("xds stream failed", { error: String(error) });
        call.emit("error", { code: grpc.status.INTERNAL, details: "internal error" });
      },
    );
  }

  /** CP-400, steps 1 to 3. @returns The caller, or undefined if the stream was refused. */
  async #admit(call: Call): Promise<Caller | undefined> {
    if (!this.#ready) return this.#refuse(call, "UNAVAILABLE", "the server is not ready"); // CP-013
    if (this.#streams.size >= STREAMS_MAX) return this.#refuse(call, "RESOURCE_EXHAUSTED", "too many streams");
    const waitMs = this.#limit.take();
    if (waitMs === undefined) return this.#refuse(call, "RESOURCE_EXHAUSTED", "too many new streams");
    if (waitMs > 0) await new Promise((resolve) => setTimeout(resolve, waitMs));
    const caller = await this.#options.authenticator.authenticate(credentialsOf(call));
    if (!("refused" in caller)) return caller;
    this.#options.log.warn("xds stream refused", { address: call.getPeer(), reason: caller.refused });
    return this.#refuse(call, caller.unavailable ? "UNAVAILABLE" : "UNAUTHENTICATED", "authentication failure");
  }

  #decode(call: Call, bytes: Buffer): DeltaDiscoveryRequest | undefined {
    try {
      return decodeDeltaDiscoveryRequest(bytes);
    } catch (error) {
      if (!(error instanceof WireFormatError)) throw error;
      return this.#refuse(call, "INVALID_ARGUMENT", error.message);
    }
  }

  /** CP-400, steps 4 to 6: the first request says who the client is. */
  #open(call: Call, request: DeltaDiscoveryRequest, caller: Caller): Stream | undefined {
    const node = parseNode(request.node);
    if ("invalid" in node) return this.#refuse(call, "INVALID_ARGUMENT", node.invalid);
    const { log, view, now } = this.#options;
    if (!identityFits(node, caller.identities)) {
      log.warn("xds stream refused", {
        node: node.name,
        caller: caller.identities.join(","),
        reason: "not its identity",
      });
      return this.#refuse(call, "PERMISSION_DENIED", `no identity of ${node.name} was presented`);
    }
    const nextNonce = () => `${++this.#nonces}-${this.#nonceSuffix}`;
    const session = new DeltaSession({ view, nextNonce, node: node.node });
    const id = `${node.name}-${++this.#connections}`; // CP-402
    const stream = { id, connectedAtMs: now(), call, node, session, sentAtMs: new Map(), writing: false };
    this.#streams.add(stream); // Before its first answer is made, so that no change falls between (CP-445).
    const { token } = caller;
    if (node.type === "ztunnel" && token !== undefined) {
      const account = `${token.namespace}/${token.serviceAccount}`;
      const untrusted = !this.#options.trustedNodeAccounts.includes(account);
      // One that serves a single pod needs no trust, but for a shared one this is the commonest mistake of all.
      if (untrusted) log.warn("a ztunnel's account is not among CA_TRUSTED_NODE_ACCOUNTS", { connection: id, account });
    }
    log.info("xds stream opened", { connection: id, address: call.getPeer(), node: node.node, type: node.type });
    return stream;
  }

  #onRequest(stream: Stream, request: DeltaDiscoveryRequest): void {
    const { session, id, call } = stream;
    const type = SERVED_TYPES.get(request.typeUrl) ?? "other";
    const outcome = session.receive(request);
    if (outcome === "rejected") {
      this.#counters.rejects.increment({ type });
      const error = (request.errorDetail?.message ?? "").slice(0, 1_000);
      this.#options.log.warn("response refused by the client", { connection: id, type, error });
    } else if (outcome === "stale") this.#counters.expiredNonces.increment();
    else if (outcome === "unknown-type") {
      this.#options.log.debug("type not served", { connection: id, typeUrl: request.typeUrl.slice(0, 200) });
    }
    if (session.exhausted) {
      this.#streams.delete(stream);
      this.#refuse(call, "RESOURCE_EXHAUSTED", "too many names on one stream");
      return;
    }
    this.#pump(stream);
  }

  /** Writes one response at a time; which is next, and whether it is due, the session knows (CP-441). */
  #pump(stream: Stream): void {
    if (stream.writing || !this.#streams.has(stream)) return;
    const outgoing = stream.session.next();
    if (outgoing === undefined) return;
    const bytes = this.#encoder.encode(outgoing, `${this.#startedAt}/${this.#pushes}`);
    this.#countPush(stream, outgoing, bytes.length);
    stream.writing = true;
    stream.sentAtMs.set(outgoing.typeUrl, this.#options.now());
    stream.call.write(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length), (error?: Error | null) => {
      stream.writing = false;
      if (error) this.#streams.delete(stream);
      else this.#pump(stream);
    });
  }

  #countPush(stream: Stream, { typeUrl, resources, removed, answers }: Outgoing, bytes: number): void {
    const type = SERVED_TYPES.get(typeUrl) ?? "other";
    this.#counters.pushes.increment({ type });
    const facts = { resources: resources.length, removed: removed.length, bytes, answers };
    this.#options.log.debug("response sent", { connection: stream.id, type, ...facts });
  }

  #refuse(call: Call, status: keyof typeof grpc.status, details: string): undefined {
    this.#counters.refused.increment({ status });
    call.emit("error", { code: grpc.status[status], details });
  }
}
