/** Everything one worker owns: its reactor, buffers, pods and connections, and its ends of the shared tables. */
import { formatSocketAddress, type IpWords } from "../../base/address.ts";
import { assert } from "../../base/assert.ts";
import type { Field } from "../../base/shm/layout.ts";
import type { Rows } from "../../base/shm/rows.ts";
import { type Identity, principalOf } from "../../mesh/identity.ts";
import { authorize, type Verdict } from "../../mesh/policy.ts";
import { type Workload, WORKLOAD_TYPE_NAMES } from "../../mesh/workload.ts";
import type { Os, Tls } from "../../os/api.ts";
import { type Baggage, formatBaggage } from "../../wire/baggage.ts";
import { HpackDecoder } from "../../wire/h2/hpack_decoder.ts";
import { RequestHead, ResponseHead } from "../../wire/h2/request_check.ts";
import { formatTraceparent } from "../../wire/traceparent.ts";
import { AccessKind, type AccessWriter } from "../tables/access.ts";
import type { FlowTable } from "../tables/flows.ts";
import type { Tables } from "../tables/handles.ts";
import {
  CLOSE_REQUESTED,
  CONNECTION,
  ConnectionState,
  Direction,
  HEADER,
  ResponseFlag,
  WORKER,
} from "../tables/layout.ts";
import type { SnapshotReader } from "../tables/lookup.ts";
import { Buffers, CHUNK_BYTES, PEER_RECORD_BYTES_MAX, STAGE_BYTES } from "./buffers.ts";
import type { Connection } from "./connection.ts";
import { acceptPlaintext } from "./inbound_plain.ts";
import { acceptSession } from "./inbound_hbone.ts";
import { ListenerKind, Parked } from "./listener.ts";
import { routeOutbound } from "./outbound.ts";
import type { Pod } from "./pod.ts";
import { Reactor, type Resumable } from "./reactor.ts";
import { maySpeakSocks, SocksNegotiation } from "./socks5_negotiation.ts";
import { RECORDS_PER_KEY_MAX } from "./record_sender.ts";
import type { ShardOptions } from "./shard_options.ts";

const EINPROGRESS = 115;
/** Shares of the arena: stages to send from, at most 48, and chunks for what applications do not take. */
const STAGES_MAX = 48, STAGES_SHARE = 0.4, CHUNKS_SHARE = 0.5;
const CARRIES_KEPT_MAX = 64;
const PARKED_TIMEOUT_MS = 5_000; // ZT-016
const PARKED_MAX = 4_096;
const JUDGED_PER_TURN_MAX = 256;

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

/** Gives an accepted descriptor to another worker. @returns false if it takes no more just now. */
export type HandOver = (worker: number, pod: Pod, fd: number, kind: number) => boolean;

export class Shard implements Resumable {
  readonly os: Os;
  readonly tls: Tls;
  readonly reactor: Reactor;
  readonly buffers: Buffers;
  readonly tables: Tables;
  readonly connections: Rows<"connection">;
  readonly flows: FlowTable;
  readonly access: AccessWriter;
  readonly view: SnapshotReader;
  readonly pods = new Map<number, Pod>();
  readonly network: string;
  readonly reservedPorts: readonly number[];
  readonly streamsPerSessionMax: number;
  readonly responseBaggage: boolean;
  readonly localhostAppTunnel: boolean;
  readonly recordsPerKey: number;
  readonly requestHead = new RequestHead(65_536);
  readonly responseHead = new ResponseHead(16_384);
  readonly hpackScratch = new Uint8Array(HpackDecoder.scratchBytesFor(4096, 65_536));
  /** One header block on its way out. */
  readonly headerScratch = new Uint8Array(8192);
  readonly random: () => number;
  draining = false;
  readonly #options: ShardOptions;
  readonly #handOver: HandOver;
  readonly #byRow: (Connection | null)[] = [];
  readonly #freeRows: number[] = [];
  #rowsUsed = 0;
  #load = 0;
  readonly #carries: Uint8Array[] = [];
  readonly #baggage = new WeakMap<Workload, string>();
  /** The pod's namespace that this thread is in; -1: its own. */
  #netns = -1;
  readonly #homeNetns: number;
  #parkedCount = 0;
  /** Since when the connection waits that is being tried again; -1: none is. */
  #waitingSinceMs = -1;
  /** Filled anew for each judgement. */
  readonly #facts = {
    identity: undefined as Identity | undefined,
    principal: undefined as string | undefined,
    source0: 0,
    source1: 0,
    source2: 0,
    source3: 0,
    destination0: 0,
    destination1: 0,
    destination2: 0,
    destination3: 0,
    destinationPort: 0,
  };
  /** Next row to be judged again, or -1 when all were judged under the present snapshot. */
  #judgeFrom = -1;
  readonly #unixOffsetMs: number;

  constructor(
    os: Os,
    tls: Tls,
    shared: { tables: Tables; flows: FlowTable; access: AccessWriter; view: SnapshotReader },
    options: ShardOptions,
    handOver: HandOver,
  ) {
    this.os = os;
    this.tls = tls;
    this.reactor = new Reactor(os);
    this.buffers = new Buffers(os.memory, {
      stagesMax: Math.min(STAGES_MAX, Math.floor(os.memory.sizeBytes * STAGES_SHARE / STAGE_BYTES)),
      chunksMax: Math.floor(os.memory.sizeBytes * CHUNKS_SHARE / CHUNK_BYTES),
    });
    this.tables = shared.tables;
    this.connections = shared.tables.connections[options.worker]!;
    this.flows = shared.flows;
    this.access = shared.access;
    this.view = shared.view;
    this.network = options.network;
    this.reservedPorts = options.reservedPorts;
    this.streamsPerSessionMax = options.streamsPerSessionMax;
    this.responseBaggage = options.responseBaggage;
    this.localhostAppTunnel = options.localhostAppTunnel;
    this.recordsPerKey = options.recordsPerKey ?? RECORDS_PER_KEY_MAX;
    this.random = () => os.random32() / 0x100000000;
    this.#options = options;
    this.#handOver = handOver;
    this.#homeNetns = os.ownNetns();
    assert(this.#homeNetns >= 0, "a thread can open its own network namespace");
    this.#unixOffsetMs = os.unixOffsetMs();
  }

  // ---- connections

  /** A row for a connection, state OPENING. @returns -1 when the table is full: the connection is refused, and counted. */
  acquireConnectionRow(podRow: number, direction: number, kind: number): number {
    const { connections } = this;
    let row: number;
    if (this.#freeRows.length > 0) row = this.#freeRows.pop()!;
    else if (this.#rowsUsed < connections.rowCount) row = this.#rowsUsed++;
    else {
      this.countGlitch();
      return -1;
    }
    connections.store(row, CONNECTION.control, 0);
    connections.set(row, CONNECTION.epoch, connections.get(row, CONNECTION.epoch) + 1);
    connections.set(row, CONNECTION.flowRow, -1);
    connections.set(row, CONNECTION.podRow, podRow);
    connections.set(row, CONNECTION.direction, direction);
    connections.set(row, CONNECTION.kind, kind);
    connections.set(row, CONNECTION.hostBytes, 0);
    connections.setF64(row, CONNECTION.openedAtMs, this.unixNowMs());
    connections.setF64(row, CONNECTION.receivedBytes, 0);
    connections.setF64(row, CONNECTION.sentBytes, 0);
    connections.store(row, CONNECTION.state, ConnectionState.OPENING);
    this.#load++;
    this.tables.workers.store(this.#options.worker, WORKER.load, this.#load);
    return row;
  }

  releaseConnectionRow(row: number): void {
    this.connections.store(row, CONNECTION.state, ConnectionState.FREE);
    this.#freeRows.push(row);
    this.#load--;
    this.tables.workers.store(this.#options.worker, WORKER.load, this.#load);
  }

  setSource(row: number, word0: number, word1: number, word2: number, word3: number, port: number): void {
    this.#setIp(row, CONNECTION.sourceIp, word0, word1, word2, word3);
    this.connections.set(row, CONNECTION.sourcePort, port);
  }
  setDestination(row: number, word0: number, word1: number, word2: number, word3: number, port: number): void {
    this.#setIp(row, CONNECTION.destinationIp, word0, word1, word2, word3);
    this.connections.set(row, CONNECTION.destinationPort, port);
  }
  setActual(row: number, word0: number, word1: number, word2: number, word3: number, port: number): void {
    this.#setIp(row, CONNECTION.actualIp, word0, word1, word2, word3);
    this.connections.set(row, CONNECTION.actualPort, port);
  }

  #setIp(
    row: number,
    field: Field<"connection", "u32[]">,
    word0: number,
    word1: number,
    word2: number,
    word3: number,
  ): void {
    const { connections } = this;
    connections.setAt(row, field, 0, word0);
    connections.setAt(row, field, 1, word1);
    connections.setAt(row, field, 2, word2);
    connections.setAt(row, field, 3, word3);
  }

  adopt(connection: Connection): void {
    while (this.#byRow.length <= connection.row) this.#byRow.push(null);
    assert(this.#byRow[connection.row] === null, "a row belongs to one connection");
    this.#byRow[connection.row] = connection;
  }

  disown(connection: Connection): void {
    assert(this.#byRow[connection.row] === connection, "a connection ends in the row it began in");
    this.#byRow[connection.row] = null;
  }

  /** Tells flow and row of a counted connection (ZT-196). */
  countOpened(connection: Connection): void {
    this.flows.countOpened(connection.flow);
    this.connections.set(connection.row, CONNECTION.flowRow, connection.flow);
  }

  /** Connections that are open. */
  get connectionCount(): number {
    return this.#load;
  }

  /** Ends every connection of a pod, or all when `pod` is undefined. */
  endConnections(pod: Pod | undefined, flag: number, reason: string | undefined): void {
    for (const connection of this.#byRow) {
      if (connection !== null && !connection.closed && (pod === undefined || connection.pod === pod)) {
        connection.end(flag, reason);
      }
    }
  }

  // ---- accepting

  /** A new connection of a pod: kept here, or given to a worker that has much less to do. Takes over the descriptor. */
  place(pod: Pod, fd: number, kind: number): void {
    const target = kind === ListenerKind.HBONE ? this.#fewestSessions() : this.#leastLoaded();
    if (target !== this.#options.worker && this.#handOver(target, pod, fd, kind)) return;
    this.take(pod, fd, kind);
  }

  /** Begins to serve an accepted connection. Takes over the descriptor. */
  take(pod: Pod, fd: number, kind: number): void {
    this.count(WORKER.accepted, 1);
    if (pod.removed || this.draining) {
      this.os.close(fd);
      return;
    }
    this.os.tuneAccepted(fd, this.#options.keepalive && kind !== ListenerKind.HBONE);
    this.begin(pod, fd, kind);
  }

  /** As {@link take}, for a connection that may have waited. */
  begin(pod: Pod, fd: number, kind: number): void {
    if (kind === ListenerKind.HBONE) {
      if (pod.identity.tls !== undefined) acceptSession(this, pod, fd);
      else if (pod.identity.failure === undefined) this.park(pod, fd, kind);
      else this.os.close(fd); // The agent has logged why there is no certificate (ZT-082).
      return;
    }
    if (kind === ListenerKind.SOCKS && !maySpeakSocks(this, pod)) {
      this.park(pod, fd, kind);
      return;
    }
    const direction = kind === ListenerKind.PLAINTEXT ? Direction.INBOUND : Direction.OUTBOUND;
    const row = this.acquireConnectionRow(pod.row, direction, 0);
    if (row < 0) {
      this.os.close(fd);
      return;
    }
    const { os } = this, words = os.addressWords;
    if (os.peerAddress(fd) < 0) { // Reset before we came to it.
      this.releaseConnectionRow(row);
      os.close(fd);
      return;
    }
    this.setSource(row, words[0]!, words[1]!, words[2]!, words[3]!, words[4]!);
    if (os.originalDestination(fd) < 0) os.localAddress(fd); // ZT-014: under TPROXY the local address is the real one.
    this.setDestination(row, words[0]!, words[1]!, words[2]!, words[3]!, words[4]!);
    this.setActual(row, words[0]!, words[1]!, words[2]!, words[3]!, words[4]!);
    if (kind === ListenerKind.SOCKS) new SocksNegotiation(this, pod, row, fd).start();
    else if (direction === Direction.OUTBOUND) routeOutbound(this, pod, row, fd);
    else acceptPlaintext(this, pod, row, fd);
  }

  /** Keeps a connection until its workload and certificate are known, for at most 5 s. */
  park(pod: Pod, fd: number, kind: number): void {
    if (this.#parkedCount >= PARKED_MAX) {
      this.os.close(fd);
      this.countGlitch();
      return;
    }
    const nowMs = this.reactor.nowMs, sinceMs = this.#waitingSinceMs < 0 ? nowMs : this.#waitingSinceMs;
    const parked = new Parked(fd, kind as ListenerKind, sinceMs, (it) => {
      pod.parked.delete(it);
      this.#parkedCount--;
      this.#logParkedTimeout(it);
      this.os.close(it.fd);
    });
    pod.parked.add(parked);
    this.#parkedCount++;
    this.reactor.timers.set(parked.deadline, sinceMs + PARKED_TIMEOUT_MS - nowMs, nowMs);
  }

  /** Goes on with what waited for nothing but its workload, and with the rest once there is word of a certificate. */
  unpark(pod: Pod): void {
    if (pod.parked.size === 0) return;
    if (this.view.localWorkload(pod.row) === undefined) return;
    const { identity } = pod, certain = identity.tls !== undefined || identity.failure !== undefined;
    for (const parked of [...pod.parked]) {
      if (parked.kind === ListenerKind.HBONE && !certain) continue;
      pod.parked.delete(parked);
      this.#parkedCount--;
      this.reactor.timers.cancel(parked.deadline);
      this.#waitingSinceMs = parked.sinceMs; // It may have to wait on, and for no longer than if it had not been asked.
      this.begin(pod, parked.fd, parked.kind);
    }
    this.#waitingSinceMs = -1;
  }

  /** Drops what waited: the pod has gone. */
  dropParked(pod: Pod): void {
    for (const parked of pod.parked) {
      this.reactor.timers.cancel(parked.deadline);
      this.os.close(parked.fd);
      this.#parkedCount--;
    }
    pod.parked.clear();
  }

  #logParkedTimeout(parked: Parked): void {
    const outbound = parked.kind === ListenerKind.OUTBOUND || parked.kind === ListenerKind.SOCKS;
    const direction = outbound ? Direction.OUTBOUND : Direction.INBOUND;
    this.access.begin(AccessKind.EARLY, direction, -1, 0, ResponseFlag.CONNECT);
    const { os } = this, words = os.addressWords;
    if (os.peerAddress(parked.fd) >= 0) this.access.source(words[0]!, words[1]!, words[2]!, words[3]!, words[4]!);
    if (os.originalDestination(parked.fd) >= 0) {
      this.access.destination(words[0]!, words[1]!, words[2]!, words[3]!, words[4]!);
    }
    this.access.error("failed to fetch information about local workload or its certificate within 5 s");
    this.access.push();
  }

  #leastLoaded(): number {
    const { workers } = this.tables, own = this.#options.worker;
    let best = own, least = this.#load;
    if (least < 2) return own;
    for (let worker = 0; worker < workers.rowCount; worker++) {
      const load = worker === own ? this.#load : workers.load(worker, WORKER.load);
      if (load < least) {
        least = load;
        best = worker;
      }
    }
    // Moving a connection costs a wake-up: only a clear difference is worth it.
    return this.#load > 2 * least + 1 ? best : own;
  }

  #fewestSessions(): number {
    const { workers } = this.tables, own = this.#options.worker;
    let best = own, fewest = workers.getF64(own, WORKER.downstreamSessions);
    for (let worker = 0; worker < workers.rowCount; worker++) {
      const sessions = workers.getF64(worker, WORKER.downstreamSessions);
      if (sessions < fewest) {
        fewest = sessions;
        best = worker;
      }
    }
    return best;
  }

  // ---- sockets of a pod

  /**
   * A connecting socket in the pod's namespace, carrying our mark (ZT-173).
   * @param source bound as the source address, transparently (ZT-094); undefined: the kernel's choice.
   * @returns Descriptor or -errno.
   */
  connectFrom(
    pod: Pod,
    word0: number,
    word1: number,
    word2: number,
    word3: number,
    port: number,
    source: IpWords | undefined,
  ): number {
    const { os } = this;
    if (pod.netnsFd >= 0 && this.#netns !== pod.netnsFd) {
      const entered = os.enterNetns(pod.netnsFd);
      if (entered < 0) return entered;
      this.#netns = pod.netnsFd;
    }
    const ipv6 = !(word0 === 0 && word1 === 0 && word2 === 0xffff);
    const fd = os.openStream(ipv6, this.#options.packetMark, this.#options.keepalive);
    if (fd < 0) return fd;
    const self = source !== undefined && source[0] === word0 && source[1] === word1 && source[2] === word2 &&
      source[3] === word3;
    if (source !== undefined && !self) os.bindSource(fd, source[0], source[1], source[2], source[3]); // Best effort (ZT-094).
    const connected = os.connect(fd, word0, word1, word2, word3, port);
    if (connected < 0 && connected !== -EINPROGRESS) {
      os.close(fd);
      return connected;
    }
    return fd;
  }

  /** Leaves a pod's namespace, which this thread would keep alive, and whose descriptor's number may be used anew. */
  leaveNetns(): void {
    if (this.#netns < 0) return;
    this.os.enterNetns(this.#homeNetns);
    this.#netns = -1;
  }

  /** The other end of a connected socket. */
  peerOf(fd: number): { ip: IpWords; port: number } | undefined {
    const { os } = this, words = os.addressWords;
    if (os.peerAddress(fd) < 0) return undefined;
    return { ip: [words[0]!, words[1]!, words[2]!, words[3]!], port: words[4]! };
  }

  // ---- policy

  /** Moves to the newest snapshot, once a turn; what it changes for open and waiting connections follows. */
  refresh(): void {
    if (!this.view.refresh()) return;
    for (const pod of this.pods.values()) this.unpark(pod);
    this.judgeAgain();
  }

  /** Looks at every open connection again: at the policies in force, and whether its end was asked for. */
  judgeAgain(): void {
    if (this.#judgeFrom < 0) this.reactor.resumeLater(this);
    this.#judgeFrom = 0;
  }

  /** Judges open inbound connections again, some of them each turn (ZT-120). */
  onResume(): void {
    let left = JUDGED_PER_TURN_MAX;
    while (this.#judgeFrom < this.#byRow.length && left > 0) {
      const connection = this.#byRow[this.#judgeFrom++]!;
      if (connection === null || connection.closed) continue;
      left--;
      if ((this.connections.load(connection.row, CONNECTION.control) & CLOSE_REQUESTED) !== 0) {
        connection.end(ResponseFlag.CONNECT, "closed on request");
      } else this.#judge(connection);
    }
    if (this.#judgeFrom < this.#byRow.length) this.reactor.resumeLater(this);
    else this.#judgeFrom = -1;
  }

  #judge(connection: Connection): void {
    const { facts, row } = connection;
    if (facts === undefined) return;
    // The workload as it is now: a policy that names it only since yesterday holds for open connections too.
    const workload = this.view.localWorkload(connection.pod.row) ?? facts.workload;
    const verdict = this.verdictOn(row, workload, facts.identity);
    if (!verdict.allowed) connection.end(ResponseFlag.DENY, `connection closed due to policy change: ${verdict.by}`);
  }

  /** What the policies in force for `workload` say of the connection whose addresses stand in the row (ZT-093, ZT-100). */
  verdictOn(row: number, workload: Workload, identity: Identity | undefined): Verdict {
    const { connections } = this, facts = this.#facts, from = CONNECTION.sourceIp, to = CONNECTION.destinationIp;
    facts.identity = identity;
    facts.principal = identity === undefined ? undefined : principalOf(identity);
    facts.source0 = connections.getAt(row, from, 0);
    facts.source1 = connections.getAt(row, from, 1);
    facts.source2 = connections.getAt(row, from, 2);
    facts.source3 = connections.getAt(row, from, 3);
    facts.destination0 = connections.getAt(row, to, 0);
    facts.destination1 = connections.getAt(row, to, 1);
    facts.destination2 = connections.getAt(row, to, 2);
    facts.destination3 = connections.getAt(row, to, 3);
    facts.destinationPort = connections.get(row, CONNECTION.destinationPort);
    const verdict = authorize(this.view.policiesFor(workload), facts);
    if (verdict.allowed) connections.set(row, CONNECTION.policyGeneration, this.view.generation);
    return verdict;
  }

  // ---- texts and counters

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

  addressText(ip: IpWords, port: number): string {
    return formatSocketAddress(ip, port);
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

  get reportsOpened(): boolean {
    return this.tables.header.load(0, HEADER.accessOpened) === 1;
  }

  count(field: Field<"worker", "f64">, amount: number): void {
    this.tables.workers.addF64(this.#options.worker, field, amount);
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
