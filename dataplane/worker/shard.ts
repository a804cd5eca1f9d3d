/** Everything one worker owns: its reactor, buffers, pods and connections, and its ends of the shared tables. */
import type { IpWords } from "../../base/address.ts";
import type { Field } from "../../base/shm/layout.ts";
import type { Rows } from "../../base/shm/rows.ts";
import { type Workload, WORKLOAD_TYPE_NAMES } from "../../mesh/workload.ts";
import type { Os, Tls } from "../../os/api.ts";
import { type Baggage, formatBaggage } from "../../wire/baggage.ts";
import { HpackDecoder } from "../../wire/h2/hpack_decoder.ts";
import { RequestHead, ResponseHead } from "../../wire/h2/request_check.ts";
import { formatTraceparent } from "../../wire/traceparent.ts";
import { AccessKind, type AccessWriter, LogScope } from "../tables/access.ts";
import type { FlowTable } from "../tables/flows.ts";
import type { Tables } from "../tables/handles.ts";
import { CONNECTION, Direction, HEADER, ResponseFlag, WORKER } from "../tables/layout.ts";
import type { SnapshotReader } from "../tables/lookup.ts";
import type { QuestionWriter } from "../tables/questions.ts";
import { Buffers, CHUNK_BYTES, PEER_RECORD_BYTES_MAX, STAGE_BYTES } from "./buffers.ts";
import type { Connection } from "./connection.ts";
import { ConnectionRows } from "./connection_rows.ts";
import { refuseConnection } from "./close.ts";
import { findDestination } from "./destination.ts";
import { FairShare } from "./fair_share.ts";
import { acceptPlaintext } from "./inbound_plain.ts";
import { acceptSession } from "./inbound_hbone.ts";
import { Handshakes } from "./handshakes.ts";
import { UNUSED_RELEASE_MS } from "./hbone_pool.ts";
import { Judge } from "./judge.ts";
import { ListenerKind } from "./listener.ts";
import { OnDemand } from "./on_demand.ts";
import { routeOutbound } from "./outbound.ts";
import { fewestSessions, leastLoaded } from "./placement.ts";
import type { Pod } from "./pod.ts";
import { PodSockets } from "./pod_sockets.ts";
import { Questions } from "./questions.ts";
import { Reactor, type Resumable } from "./reactor.ts";
import { maySpeakSocks, SocksNegotiation } from "./socks5_negotiation.ts";
import { RECORDS_PER_KEY_MAX } from "./record_sender.ts";
import { RevocationWatch } from "./revocation_watch.ts";
import type { ShardOptions } from "./shard_options.ts";
import { WaitingRoom } from "./waiting_room.ts";

/** Shares of the arena: stages to send from, at most 48, and chunks for what applications do not take. */
const STAGES_MAX = 48, STAGES_SHARE = 0.4, CHUNKS_SHARE = 0.5;
const CARRIES_KEPT_MAX = 64;
/** What relays keep of what their other ends do not take; each a read at most. */
const RELAYS_KEEP_BYTES_MAX = 256 * 1024 * 1024;

/** What we say of a workload to the other end of a tunnel (ZT-055). */
function baggageFor(workload: Workload): Baggage {
  return {
    cluster: workload.clusterId,
    namespace: workload.namespace,
    workloadType: WORKLOAD_TYPE_NAMES[workload.workloadType],
    workloadName: workload.workloadName,
    canonicalName: workload.canonicalName,
    canonicalRevision: workload.canonicalRevision,
    region: workload.locality.region,
    zone: workload.locality.zone,
  };
}

/** Indexes into LEVELS of base/log.ts, for what a worker reports. */
export const LogLevel = { ERROR: 1, WARN: 2 } as const;

/** Gives an accepted descriptor to another worker. @returns false if it takes no more just now. */
export type HandOver = (worker: number, pod: Pod, fd: number, kind: number) => boolean;

export class Shard {
  readonly os: Os;
  readonly tls: Tls;
  readonly reactor: Reactor;
  readonly buffers: Buffers;
  readonly tables: Tables;
  readonly connections: Rows<"connection">;
  readonly rows: ConnectionRows;
  readonly sockets: PodSockets;
  readonly waiting = new WaitingRoom(this);
  readonly questions: Questions;
  readonly judge = new Judge(this);
  readonly revocations = new RevocationWatch(this);
  readonly handshakes = new Handshakes();
  /** Sessions that downstreams have opened here: as many as there may be connections. */
  readonly downstreamSessions: FairShare;
  /** Chunks of the arena that hold what applications do not take from tunnels, and bytes of the heap for relays. */
  readonly keptChunks: FairShare;
  readonly keptByRelays = new FairShare(RELAYS_KEEP_BYTES_MAX);
  readonly flows: FlowTable;
  readonly access: AccessWriter;
  readonly view: SnapshotReader;
  /** null: the whole mesh is known. */
  readonly onDemand: OnDemand | null;
  readonly pods = new Map<number, Pod>();
  readonly network: string;
  readonly reservedPorts: readonly number[];
  readonly ownPorts: readonly number[];
  readonly streamsPerSessionMax: number;
  readonly responseBaggage: boolean;
  readonly localhostAppTunnel: boolean;
  readonly recordsPerKey: number;
  readonly unusedReleaseMs: number;
  readonly requestHead = new RequestHead(65_536);
  readonly responseHead = new ResponseHead(16_384);
  readonly hpackScratch = new Uint8Array(HpackDecoder.scratchBytesFor(4096, 65_536));
  /** One header block on its way out. */
  readonly headerScratch = new Uint8Array(8192);
  readonly random: () => number;
  draining = false;
  readonly #options: ShardOptions;
  readonly #handOver: HandOver;
  readonly #carries: Uint8Array[] = [];
  readonly #baggage = new WeakMap<Workload, string>();
  readonly #goOn: Resumable = { onResume() {} };
  readonly #unixOffsetMs: number;

  constructor(
    os: Os,
    tls: Tls,
    shared: { tables: Tables; flows: FlowTable; access: AccessWriter; view: SnapshotReader; questions: QuestionWriter },
    options: ShardOptions,
    handOver: HandOver,
  ) {
    this.os = os;
    this.tls = tls;
    this.reactor = new Reactor(os);
    this.questions = new Questions(this.reactor, shared.questions);
    const chunksMax = Math.floor(os.memory.sizeBytes * CHUNKS_SHARE / CHUNK_BYTES);
    this.keptChunks = new FairShare(chunksMax);
    this.buffers = new Buffers(os.memory, {
      stagesMax: Math.min(STAGES_MAX, Math.floor(os.memory.sizeBytes * STAGES_SHARE / STAGE_BYTES)),
      chunksMax,
    });
    this.tables = shared.tables;
    this.connections = shared.tables.connections[options.worker]!;
    this.downstreamSessions = new FairShare(this.connections.rowCount);
    this.flows = shared.flows;
    this.access = shared.access;
    this.view = shared.view;
    this.onDemand = options.onDemand ? new OnDemand(this.view, this.reactor, this.questions) : null;
    this.network = options.network;
    this.reservedPorts = options.reservedPorts;
    this.ownPorts = options.ownPorts;
    this.streamsPerSessionMax = options.streamsPerSessionMax;
    this.responseBaggage = options.responseBaggage;
    this.localhostAppTunnel = options.localhostAppTunnel;
    this.unusedReleaseMs = options.unusedReleaseMs ?? UNUSED_RELEASE_MS;
    this.recordsPerKey = options.recordsPerKey ?? RECORDS_PER_KEY_MAX;
    this.random = () => os.random32() / 0x100000000;
    this.#options = options;
    this.#handOver = handOver;
    this.rows = new ConnectionRows(this.connections, this.tables.workers, options.worker);
    this.sockets = new PodSockets(os, options);
    this.#unixOffsetMs = os.unixOffsetMs();
  }

  // ---- accepting

  /** A new connection of a pod: kept here, or given to a worker that has much less to do. Takes over the descriptor. */
  place(pod: Pod, fd: number, kind: number): void {
    const { workers } = this.tables, own = this.#options.worker;
    const target = kind === ListenerKind.HBONE
      ? fewestSessions(workers, own)
      : leastLoaded(workers, own, this.rows.count);
    if (target !== own && this.#handOver(target, pod, fd, kind)) return;
    this.take(pod, fd, kind);
  }

  /** Begins to serve an accepted connection. Takes over the descriptor. */
  take(pod: Pod, fd: number, kind: number): void {
    this.count(WORKER.accepted, 1);
    if (pod.removed) { // In a drain what was accepted before is served like any.
      this.os.close(fd);
      return;
    }
    this.begin(pod, fd, kind);
  }

  /** As {@link take}, for a connection that may have waited. */
  begin(pod: Pod, fd: number, kind: number): void {
    if (kind === ListenerKind.HBONE) {
      if (pod.identity.tls !== undefined) acceptSession(this, pod, fd);
      else if (pod.identity.failure === undefined) this.waiting.park(pod, fd, kind);
      else this.os.close(fd); // The agent has logged why there is no certificate (ZT-082).
      return;
    }
    if (kind === ListenerKind.SOCKS && !maySpeakSocks(this, pod)) {
      this.waiting.park(pod, fd, kind);
      return;
    }
    const direction = kind === ListenerKind.PLAINTEXT ? Direction.INBOUND : Direction.OUTBOUND;
    const row = this.rows.acquire(pod.row, direction, 0, this.unixNowMs());
    if (row < 0) {
      this.os.close(fd);
      return;
    }
    const { os } = this, words = os.addressWords;
    if (os.peerAddress(fd) < 0) { // Reset before we came to it.
      this.rows.release(row);
      os.close(fd);
      return;
    }
    this.rows.setSource(row, words[0]!, words[1]!, words[2]!, words[3]!, words[4]!);
    if (!findDestination(this, pod, fd, kind)) {
      refuseConnection(this, row, direction, fd, "nothing redirected the connection to us");
      return;
    }
    this.rows.setDestination(row, words[0]!, words[1]!, words[2]!, words[3]!, words[4]!);
    this.rows.setActual(row, words[0]!, words[1]!, words[2]!, words[3]!, words[4]!);
    if (kind === ListenerKind.SOCKS) new SocksNegotiation(this, pod, row, fd).start();
    else if (direction === Direction.OUTBOUND) routeOutbound(this, pod, row, fd);
    else acceptPlaintext(this, pod, row, fd);
  }

  /** The other end of a connected socket. */
  peerOf(fd: number): { ip: IpWords; port: number } | undefined {
    const { os } = this, words = os.addressWords;
    if (os.peerAddress(fd) < 0) return undefined;
    return { ip: [words[0]!, words[1]!, words[2]!, words[3]!], port: words[4]! };
  }

  /** Once a turn: moves to the newest snapshot; what it changes for open and waiting connections follows. */
  refresh(): void {
    this.buffers.giveBack(this.reactor.nowMs);
    const moved = this.view.refresh();
    if (this.view.warming) {
      this.reactor.resumeLater(this.#goOn); // The next turn decodes on; nothing is decided by half a change.
      return;
    }
    if (moved) {
      for (const pod of this.pods.values()) this.waiting.retry(pod);
      this.judge.again();
    }
    this.questions.settle(); // An answer is given after the snapshot that it speaks of.
  }

  // ---- texts and counters

  /** Tells flow and row of a counted connection (ZT-196). */
  countOpened(connection: Connection): void {
    this.flows.countOpened(connection.flow);
    this.connections.set(connection.row, CONNECTION.flowRow, connection.flow);
  }

  /** Connections that are open. */
  get connectionCount(): number {
    return this.rows.count;
  }

  baggageOf(workload: Workload): string {
    let text = this.#baggage.get(workload);
    if (text === undefined) this.#baggage.set(workload, text = formatBaggage(baggageFor(workload)));
    return text;
  }

  traceparent(): string {
    const { os } = this;
    return formatTraceparent(
      os.random32(),
      os.random32(),
      os.random32(),
      os.random32(),
      os.random32(),
      os.random32(),
    );
  }

  /** A line about a downstream's session or request that never became a connection. */
  logSessionEnd(peerIp: IpWords, peerPort: number, localIp: IpWords, reason: string): void {
    const { access } = this;
    access.begin(AccessKind.EARLY, Direction.INBOUND, -1, 0, ResponseFlag.CONNECT);
    access.source(peerIp[0], peerIp[1], peerIp[2], peerIp[3], peerPort);
    access.destination(localIp[0], localIp[1], localIp[2], localIp[3], 15008);
    access.error(reason);
    access.push();
  }

  /** A line of the worker's own in the log. */
  report(level: number, text: string): void {
    const { access } = this;
    access.begin(AccessKind.LOG, LogScope.WORKER, -1, 0, level);
    access.error(text);
    access.push();
  }

  /** A line about what policies decided. */
  reportPolicy(level: number, text: string): void {
    const { access } = this;
    access.begin(AccessKind.LOG, LogScope.POLICY, -1, 0, level);
    access.error(text);
    access.push();
  }

  /** Whether somebody reads what policies decide (ZT-206). */
  get tellsPolicies(): boolean {
    return this.tables.header.load(0, HEADER.policyLevel) !== 0;
  }

  get reportsOpened(): boolean {
    return this.tables.header.load(0, HEADER.accessOpened) === 1;
  }

  count(field: Field<"worker", "f64">, amount: number): void {
    this.tables.workers.addF64(this.#options.worker, field, amount);
  }
  /** Counts one, under `reporter`. */
  countByDirection(field: Field<"worker", "f64[]">, direction: number): void {
    this.tables.workers.addF64At(this.#options.worker, field, direction, 1);
  }
  /** A downstream's session has come (1) or gone (-1). */
  countDownstreamSession(podRow: number, change: number): void {
    this.downstreamSessions.take(podRow, change);
    this.count(WORKER.downstreamSessions, change);
    this.tables.workers.addF64At(this.#options.worker, WORKER.socketsOpen, Direction.INBOUND, change);
  }
  countGlitch(): void {
    this.count(WORKER.glitches, 1);
  }
  countHandshake(): void {
    this.count(WORKER.handshakes, 1);
  }
  countHandshakeFailure(): void {
    this.count(WORKER.handshakeFailures, 1);
  }

  /** Unix time as of this turn. */
  unixNowMs(): number {
    return this.reactor.nowMs + this.#unixOffsetMs;
  }

  /** A buffer for the part of a record that has come so far. */
  acquireCarry(): Uint8Array {
    return this.#carries.pop() ?? new Uint8Array(PEER_RECORD_BYTES_MAX);
  }

  releaseCarry(carry: Uint8Array): void {
    if (this.#carries.length < CARRIES_KEPT_MAX) this.#carries.push(carry);
  }
}
