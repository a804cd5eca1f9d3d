/** ADS over gRPC: delta streams of data planes and the questions of tools, each at its client's own pace (CP-400 to CP-445). */
import type { Logger } from "../../base/log.ts";
import { decodeDeltaDiscoveryRequest, type DeltaDiscoveryRequest } from "../../mesh/proto/discovery_codec.ts";
import { AUTHORIZATION_TYPE_URL } from "../../mesh/proto/authorization_codec.ts";
import { ADDRESS_TYPE_URL } from "../../mesh/proto/workload_codec.ts";
import type { AuthenticationWay, Caller } from "../ca/caller.ts";
import type { GrpcCall } from "../grpc/call.ts";
import type { Peer } from "../grpc/carrier.ts";
import type { Method } from "../grpc/methods.ts";
import { ALL_PAGES, type DebugAccess, debugAccess, type DebugAccessRules } from "../debug/access.ts";
import type { Metrics } from "../../base/metrics.ts";
import { serveCall } from "./ads_call.ts";
import { type DebugSource, isDebugType } from "./debug_types.ts";
import { awaitBoth, type Waiting } from "./expected_types.ts";
import { type ClientNode, identityFits, parseNode } from "./node.ts";
import {
  NONE,
  type Resource,
  type ResourceChange,
  type ResourceView,
  SERVED_TYPES,
  WORKLOAD_TYPE_URL,
} from "./resources.ts";
import { PushMetrics, type PushReason } from "./push_metrics.ts";
import { ResponseEncoder } from "./response.ts";
import { ResponseWriter, type WrittenResponse } from "./response_writer.ts";
import { ServedView } from "./served_view.ts";
import { SharedResponses } from "./shared_responses.ts";
import { DeltaSession, type Outgoing } from "./session.ts";
import { DebugDesk, type StreamStatus } from "./stream.ts";
import { StreamGate, type Transport } from "./stream_gate.ts";
import { serveTools } from "./tool_streams.ts";

export interface AdsServiceOptions {
  readonly view: ResourceView;
  readonly authenticator: AuthenticationWay;
  readonly metrics: Metrics;
  readonly log: Logger;
  readonly newStreamsPerSecond: number;
  /** Accounts that may impersonate; a ztunnel of another one is warned of, since it will get no certificates. */
  readonly trustedNodeAccounts: readonly string[];
  /** Whether a client must be of the namespace and account that it says it is (CP-431). */
  readonly identityCheck: boolean;
  /** Whether ztunnels are served at all (CP-014). */
  readonly ambient: boolean;
  /** `control_plane.identifier` of every response: JSON, as tools parse it (CP-021). */
  readonly controlPlane: string;
  /** Who may ask for which debug page. */
  readonly debugRules: () => DebugAccessRules;
  /** What of a type has changed in the view and is not handed to {@link AdsService.push} yet; none unless said. */
  readonly gathering?: (typeUrl: string) => Iterable<Resource>;
  /** The longest request that is taken. */
  readonly requestBytesMax: number;
  /** What the debug types are answered from; asked for with each stream and question. */
  readonly debug: () => DebugSource;
  readonly now: () => number;
}

/** A response on its way, and since when. */
interface Sent extends WrittenResponse {
  /** Empty for the answer to a tool. */
  readonly typeUrl: string;
  readonly madeAtMs: number;
  readonly writtenAtMs: number;
  /** Of the oldest change in it, if nothing of what has changed waits behind it. */
  readonly arrivedAtMs: number | undefined;
}

interface Stream {
  readonly id: string;
  readonly connectedAtMs: number;
  readonly call: GrpcCall;
  readonly node: ClientNode;
  readonly session: DeltaSession;
  readonly desk: DebugDesk;
  readonly writer: ResponseWriter<Sent>;
  /** By type, when its last response went out. */
  readonly sentAtMs: Map<string, number>;
  /** For the types that it has not asked for yet. */
  readonly awaiting: Waiting | undefined;
  /** Of the oldest change that it has not been handed: when that arrived, and when it was this stream's turn to wait. */
  news: { readonly arrivedAtMs: number; readonly queuedAtMs: number } | undefined;
}

const ADS = "/envoy.service.discovery.v3.AggregatedDiscoveryService";
const HEALTH_INFORMATION = /HealthInformation$/;
const SETTLE_MS_MAX = 5 * 60_000; // a client that holds changes up for this long is blind: reconnecting may cure it

export class AdsService {
  readonly #options: AdsServiceOptions;
  readonly #view: ServedView;
  readonly #streams = new Set<Stream>();
  readonly #responses: SharedResponses;
  readonly #gate: StreamGate;
  readonly #metrics: PushMetrics;
  #connections = 0;

  constructor(options: AdsServiceOptions) {
    this.#options = options;
    const { view, metrics } = options;
    this.#view = new ServedView(view);
    const startedAt = new Date(options.now()).toISOString();
    this.#responses = new SharedResponses(new ResponseEncoder(options.controlPlane), startedAt);
    this.#gate = new StreamGate(options);
    this.#metrics = new PushMetrics(metrics);
    metrics.gauge("pilot_xds", "Connected xDS clients, by their version.", () => this.#clientsByVersion());
    metrics.gauge(
      "pilot_xds_waiting_changes",
      "Changes that wait for slow clients, over all streams.",
      () => this.status().reduce((sum, stream) => sum + stream.watches.reduce((part, it) => part + it.waiting, 0), 0),
    );
  }

  /** Both methods, for a server. Over plaintext nobody is authenticated, and tools are told nothing but on this machine. */
  methods(transport: Transport): readonly Method[] {
    const kind = "bidi_stream", messageBytesMax = this.#options.requestBytesMax;
    const delta = (call: GrpcCall) => this.#onCall(call, transport);
    const tools = (call: GrpcCall) =>
      serveTools(call, {
        admit: () => this.#gate.admit(call, transport),
        refuse: (status, details) => this.#gate.refuse(call, status, details),
        accessOf: (caller) => this.#accessOf(call, caller),
        debug: this.#options.debug(),
        controlPlane: this.#options.controlPlane,
        nextNonce: () => this.#responses.nextNonce(),
        onFailure: (error) => this.#onFailure(error),
      });
    return [
      { path: `${ADS}/DeltaAggregatedResources`, kind, messageBytesMax, serve: delta },
      { path: `${ADS}/StreamAggregatedResources`, kind, messageBytesMax, serve: tools },
    ];
  }

  /** Lets streams in: the state they are served from is complete (CP-013). */
  open(): void {
    this.#gate.open();
  }

  /**
   * Hands changes to every stream.
   * @param arrivedAtMs when the first of them came, by `performance.now()`: what convergence is measured from (CP-025).
   */
  push(changes: readonly ResourceChange[], arrivedAtMs = performance.now(), reason: PushReason = "ambient"): void {
    this.#responses.begin();
    this.#metrics.triggered(reason);
    const news = { arrivedAtMs, queuedAtMs: performance.now() };
    const asWorkloads = [...this.#streams].some(({ session }) => session.watches(WORKLOAD_TYPE_URL)); // Few clients do.
    const all = changes.flatMap((change) =>
      asWorkloads && change.typeUrl === ADDRESS_TYPE_URL ? [change, this.#view.workloadChange(change)] : [change]
    );
    for (const stream of this.#streams) {
      try {
        for (const change of all) stream.session.push(change);
      } catch (error) { // Our own mistake, and one stream's: the others hear of the change all the same.
        this.#fail(stream, error);
        continue;
      }
      if (stream.session.waiting) stream.news ??= news;
      if (this.#isBlind(stream)) {
        this.#metrics.timedOut();
        this.#options.log.warn("xds client does not acknowledge", { connection: stream.id });
        this.#forget(stream);
        this.#gate.refuse(stream.call, "DEADLINE_EXCEEDED", "a response stayed unacknowledged");
      } else stream.writer.pump();
    }
  }

  /** Ends one stream for a mistake of ours; its client comes back and is told everything anew. */
  #fail(stream: Stream, error: unknown): void {
    this.#onFailure(error);
    this.#forget(stream);
    this.#gate.refuse(stream.call, "INTERNAL", "internal error");
  }

  #isBlind({ session, sentAtMs }: Stream): boolean {
    if (session.settled) return false; // As most are.
    const oldestMs = this.#options.now() - SETTLE_MS_MAX;
    return session.someUnsettled((type) => (sentAtMs.get(type) ?? Infinity) < oldestMs);
  }

  /** Ends every stream; clients go to another replica, or come back. */
  close(): void {
    for (const stream of [...this.#streams]) {
      this.#forget(stream);
      stream.call.finish("OK");
    }
    this.#gate.close();
  }

  /** What a change of the whole mesh's settings sends: every policy; addresses come as changes of their own (CP-416, CP-425). */
  pushAll(): number {
    this.push(
      [{
        typeUrl: AUTHORIZATION_TYPE_URL,
        updated: [...this.#view.all(AUTHORIZATION_TYPE_URL)],
        removed: [],
      }],
      performance.now(),
      "debug",
    );
    return this.#streams.size;
  }

  /** What a client would be sent of a type, were it to ask anew; nothing of what it does not watch. */
  resourcesOf(connectionId: string, typeUrl: string): readonly Resource[] {
    const stream = [...this.#streams].find(({ id }) => id === connectionId);
    return stream === undefined ? [] : stream.session.watched(typeUrl);
  }

  /** Ends one stream; its client comes back. @returns Whether there is one of that id. */
  disconnect(connectionId: string): boolean {
    const stream = [...this.#streams].find(({ id }) => id === connectionId);
    if (stream === undefined) return false;
    this.#forget(stream);
    stream.call.finish("OK");
    return true;
  }

  status(): StreamStatus[] {
    return [...this.#streams].map(({ id, connectedAtMs, call, node, session, sentAtMs }) => ({
      connectionId: id,
      connectedAtMs,
      address: formatPeer(call.peer),
      node,
      watches: session.status().map((watch) => ({ ...watch, sentAtMs: sentAtMs.get(watch.typeUrl) })),
    }));
  }

  #forget(stream: Stream): boolean {
    stream.writer.end();
    stream.awaiting?.cancel();
    this.#gate.leave(stream.call);
    return this.#streams.delete(stream);
  }

  /** A caller on this machine may read everything over plaintext, as over HTTP (CP-016). */
  #accessOf(call: GrpcCall, { identities }: Caller): DebugAccess {
    return identities.length === 0 && isLoopback(call.peer.host)
      ? ALL_PAGES
      : debugAccess(identities, this.#options.debugRules());
  }

  #onCall(call: GrpcCall, transport: Transport): void {
    let stream: Stream | undefined;
    serveCall(call, {
      admit: () => this.#gate.admit(call, transport),
      refuse: (status, details) => this.#gate.refuse(call, status, details),
      decode: (bytes) => {
        this.#metrics.received(bytes.length);
        return decodeDeltaDiscoveryRequest(bytes);
      },
      onRequest: (request, caller) => {
        if (stream === undefined && HEALTH_INFORMATION.test(request.typeUrl)) return;
        stream ??= this.#open(call, request, caller);
        if (stream !== undefined) this.#onRequest(stream, request);
      },
      onEnd: () => {
        if (stream !== undefined && this.#forget(stream)) {
          this.#options.log.info("xds stream ended", { connection: stream.id });
        }
      },
      onFailure: (error) => this.#onFailure(error),
    });
  }

  #onFailure(error: unknown): void {
    this.#metrics.internalError();
    this.#options.log.error("xds stream failed", { error: String(error) });
  }

  /** CP-400, steps 4 to 6: the first request says who the client is. */
  #open(call: GrpcCall, request: DeltaDiscoveryRequest, caller: Caller): Stream | undefined {
    const node = parseNode(request.node);
    if ("invalid" in node) return this.#gate.refuse(call, "INVALID_ARGUMENT", node.invalid);
    const { log, now, identityCheck } = this.#options, { identities, token } = caller;
    if (identityCheck && identities.length > 0 && !identityFits(node, identities)) { // Nobody is asked over plaintext.
      log.warn("xds stream refused", { node: node.name, caller: identities.join(","), reason: "not its identity" });
      return this.#gate.refuse(call, "PERMISSION_DENIED", `no identity of ${node.name} was presented`);
    }
    const enforces = node.type === "ztunnel";
    if (enforces && !this.#options.ambient) { // Not UNKNOWN, as in Istio: after that, ztunnels come back at once.
      return this.#gate.refuse(call, "FAILED_PRECONDITION", "ambient mode is off: PILOT_ENABLE_AMBIENT is false here");
    }
    const session = new DeltaSession({
      view: this.#view,
      nextNonce: (body) => this.#responses.nonceOf(body),
      node: node.node,
      enforces,
      gathering: () => this.#options.gathering?.(AUTHORIZATION_TYPE_URL) ?? NONE,
    });
    const id = `${node.name}-${++this.#connections}`; // CP-402
    const desk = new DebugDesk(this.#accessOf(call, caller));
    const writer = new ResponseWriter<Sent>(call, {
      next: () => this.#next(stream),
      onTaken: (sent) => this.#onTaken(sent),
      onFailure: (error) => this.#fail(stream, error),
    });
    const giveUp = () => {
      log.debug("a ztunnel asks for addresses or for policies alone", { connection: id });
      session.expectNoMore();
      writer.pump();
    };
    const stream: Stream = {
      id,
      connectedAtMs: now(),
      call,
      node,
      session,
      desk,
      writer,
      sentAtMs: new Map(),
      awaiting: enforces ? awaitBoth(() => session.expectsBoth, giveUp, schedule) : undefined,
      news: undefined,
    };
    this.#streams.add(stream); // Before its first answer is made, so that no change falls between (CP-445).
    if (enforces && token !== undefined) {
      const account = `${token.namespace}/${token.serviceAccount}`;
      const untrusted = !this.#options.trustedNodeAccounts.includes(account);
      // One that serves a single pod needs no trust, but for a shared one this is the commonest mistake of all.
      if (untrusted) log.warn("a ztunnel's account is not among CA_TRUSTED_NODE_ACCOUNTS", { connection: id, account });
    }
    log.info("xds stream opened", { connection: id, address: formatPeer(call.peer), node: node.node, type: node.type });
    return stream;
  }

  #onRequest(stream: Stream, request: DeltaDiscoveryRequest): void {
    const { session, id, call, desk, writer } = stream;
    if (isDebugType(request.typeUrl)) {
      const question = { typeUrl: request.typeUrl, names: request.resourceNamesSubscribe };
      desk.receive(question, { nonce: request.responseNonce, rejects: request.errorDetail !== undefined });
      writer.pump();
      return;
    }
    const type = SERVED_TYPES.get(request.typeUrl) ?? "other";
    const outcome = session.receive(request);
    if (outcome === "rejected") {
      this.#metrics.rejected(request.typeUrl);
      const error = (request.errorDetail?.message ?? "").slice(0, 1_000);
      this.#options.log.warn("response refused by the client", { connection: id, type, error });
    } else if (outcome === "stale") this.#metrics.expiredNonce(request.typeUrl);
    else if (outcome === "unknown-type") {
      this.#options.log.debug("type not served", { connection: id, typeUrl: request.typeUrl.slice(0, 200) });
    }
    if (session.exhausted) {
      this.#forget(stream);
      this.#gate.refuse(call, "RESOURCE_EXHAUSTED", "too many names on one stream");
      return;
    }
    writer.pump();
  }

  /** The next response of a stream; which, and whether it is due, the session knows (CP-441, CP-442). */
  #next(stream: Stream): Sent | undefined {
    const outgoing = stream.session.next();
    if (outgoing === undefined) return stream.desk.asked ? this.#nextAnswer(stream) : undefined;
    const { typeUrl } = outgoing, madeAtMs = performance.now(), message = this.#responses.messageOf(outgoing);
    this.#notePush(stream, outgoing, message.byteLength);
    const arrivedAtMs = this.#newsIn(stream, outgoing, madeAtMs);
    // A push is made once for all streams; it is answers that take time to be made.
    return { message, typeUrl, madeAtMs, writtenAtMs: outgoing.answers ? performance.now() : madeAtMs, arrivedAtMs };
  }

  /** What a tool that asks beside, or instead, is told. */
  #nextAnswer(stream: Stream): Sent | undefined {
    const answer = stream.desk.next(this.#options.debug(), () => this.#responses.nextNonce());
    if (answer === undefined) return undefined;
    if ("status" in answer) {
      this.#forget(stream);
      return this.#gate.refuse(stream.call, answer.status, answer.details);
    }
    const message = this.#responses.debugMessage(answer);
    return { message, typeUrl: "", madeAtMs: 0, writtenAtMs: 0, arrivedAtMs: undefined };
  }

  #onTaken({ typeUrl, madeAtMs, writtenAtMs, arrivedAtMs }: Sent): void {
    if (typeUrl === "") return;
    const nowMs = performance.now();
    this.#metrics.taken(typeUrl, nowMs - madeAtMs, nowMs - writtenAtMs);
    if (arrivedAtMs !== undefined) this.#metrics.converged(nowMs - arrivedAtMs);
  }

  #notePush(stream: Stream, { typeUrl, resources, removed, answers }: Outgoing, bytes: number): void {
    stream.sentAtMs.set(typeUrl, this.#options.now());
    this.#metrics.made(typeUrl, bytes);
    if (!this.#options.log.writes("debug")) return;
    const type = SERVED_TYPES.get(typeUrl) ?? "other";
    const facts = { connection: stream.id, type, resources: resources.length, removed: removed.length, bytes, answers };
    this.#options.log.debug("response sent", facts);
  }

  /** @returns Since when the changes in a push were on their way, if it is the last of them. */
  #newsIn(stream: Stream, { answers }: Outgoing, nowMs: number): number | undefined {
    const { news, session } = stream;
    if (news === undefined || session.waiting) return undefined;
    stream.news = undefined;
    if (answers) return undefined; // A question's answer had it all.
    this.#metrics.dequeued(nowMs - news.queuedAtMs);
    return news.arrivedAtMs;
  }

  #clientsByVersion(): number | [{ version: string }, number][] {
    const counts = new Map<string, number>();
    for (const { node: { version } } of this.#streams) counts.set(version, (counts.get(version) ?? 0) + 1);
    return counts.size === 0 ? 0 : [...counts].map(([version, count]) => [{ version }, count]);
  }
}

function schedule(callback: () => void, ms: number): () => void {
  const timer = setTimeout(callback, ms);
  return () => clearTimeout(timer);
}

function formatPeer({ host, port }: Peer): string {
  return `${host.includes(":") ? `[${host}]` : host}:${port}`;
}

function isLoopback(host: string): boolean {
  return /^(::ffff:)?127\.\d+\.\d+\.\d+$/.test(host) || host === "::1";
}
