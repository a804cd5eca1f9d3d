/** Connections of another process made ours: everything is checked and built first, and nothing is touched before {@link Adoption.goLive}. */
import type { IpWords } from "../../../base/address.ts";
import { parseIdentity } from "../../../mesh/identity.ts";
import { decodeAddress } from "../../../mesh/proto/workload_codec.ts";
import { WireFormatError } from "../../../mesh/proto/wire_format_error.ts";
import type { Workload } from "../../../mesh/workload.ts";
import type { Fd } from "../../../os/api.ts";
import { HBONE_STREAM_WINDOW_BYTES } from "../../../wire/h2/settings.ts";
import { CLOSE_REQUESTED, CONNECTION, ConnectionKind, ConnectionState, Direction } from "../../tables/layout.ts";
import {
  type ConnectionState as ConnectionRecord,
  type RelayState,
  type SessionState,
  type TunnelState,
  type UpstreamState,
  WORKER_STATE_CODEC,
  type WorkerState,
} from "../../tables/takeover_format.ts";
import type { Connection } from "../connection.ts";
import { ClientSession, type Upstream } from "../hbone_pool.ts";
import { InboundTunnel, ServerSession } from "../inbound_hbone.ts";
import { Listener, ListenerKind } from "../listener.ts";
import { OutboundTunnel } from "../outbound.ts";
import type { Pod } from "../pod.ts";
import { Relay } from "../relay.ts";
import { SessionPhase } from "../session.ts";
import type { Shard } from "../shard.ts";
import type { Tunnel } from "../tunnel.ts";

const STREAM_ID_MAX = 0x7fffffff, PORT_MAX = 0xffff;
const WAITED_MS_MAX = 60_000;

/** A state that is none of ours: the takeover is refused, and the predecessor goes on. */
class RefusedState extends Error {
  override readonly name = "RefusedState";
}

function check(condition: boolean, claim: string): asserts condition {
  if (!condition) throw new RefusedState(claim);
}

/** A refusal of the kernel's is known before anything is ours. */
function watched(success: boolean): void {
  check(success, "the kernel watches every descriptor");
}

function ipOf(words: readonly number[]): IpWords {
  check(words.length === 4, "an address has four words");
  return [words[0]!, words[1]!, words[2]!, words[3]!];
}

function upstreamOf({ ip, port, identities }: UpstreamState): Upstream {
  check(port >= 1 && port <= PORT_MAX && identities.length >= 1, "an upstream has a port and an identity");
  return { ip: ipOf(ip), port, identities };
}

/** What a shard has taken over, and not yet touched. */
export class Adoption {
  readonly #shard: Shard;
  readonly #podOf: ReadonlyMap<number, Pod>;
  readonly #handles: readonly Fd[];
  readonly #used: Uint8Array;
  readonly #workloads: Workload[] = [];
  readonly #sessions: (ClientSession | ServerSession)[] = [];
  readonly #connections: Connection[] = [];
  readonly #waiting: OutboundTunnel[] = [];
  readonly #relays: Relay[] = [];
  readonly #listeners: Listener[] = [];
  readonly #parked: { readonly pod: Pod; readonly fd: Fd; readonly kind: number; readonly waitedMs: number }[] = [];

  private constructor(shard: Shard, podOf: ReadonlyMap<number, Pod>, handles: readonly Fd[]) {
    this.#shard = shard;
    this.#podOf = podOf;
    this.#handles = handles;
    this.#used = new Uint8Array(handles.length);
  }

  /**
   * Builds what the bytes say. Takes over the handles, which are closed after a refusal.
   * @param handles descriptors of ours, in the order of the state's list. @param podOf by the predecessor's row.
   * @returns What was built, or why it is refused.
   */
  static read(
    shard: Shard,
    bytes: Uint8Array,
    handles: readonly Fd[],
    podOf: ReadonlyMap<number, Pod>,
  ): Adoption | string {
    const state = WORKER_STATE_CODEC.decode(bytes), adoption = new Adoption(shard, podOf, handles);
    if (state === undefined) {
      adoption.discard();
      return "the state is malformed";
    }
    try {
      adoption.#build(state);
    } catch (error) {
      if (!(error instanceof RefusedState)) throw error;
      adoption.discard();
      return error.message;
    }
    return adoption;
  }

  /** Sessions and connections that were built. */
  get counts(): { readonly sessions: number; readonly connections: number } {
    let connections = this.#waiting.length + this.#relays.length;
    for (const session of this.#sessions) connections += session.tunnels.size;
    return { sessions: this.#sessions.length, connections };
  }

  /** The sockets that pods' connections come to. */
  get listening(): { readonly pod: number; readonly fd: Fd }[] {
    return this.#listeners.map(({ pod, fd }) => ({ pod: pod.row, fd }));
  }

  /** The connections are ours alone now; what came meanwhile, the kernel tells in the next turn. */
  goLive(): void {
    const shard = this.#shard;
    for (const session of this.#sessions) {
      session.goLive();
      for (const tunnel of session.tunnels.values()) if (!tunnel.closed) tunnel.goLive();
      // Of a predecessor without revocation lists: whoever comes later gets a session whose peer was held against ours.
      if (shard.tls.revocation === null || session.peerPath !== null) continue;
      session instanceof ClientSession ? session.retire() : session.drain();
    }
    for (const relay of this.#relays) relay.goLive();
    for (const tunnel of this.#waiting) {
      if (!tunnel.closed) tunnel.startAgain();
    }
    for (const { pod, fd, kind, waitedMs } of this.#parked) shard.waiting.parkAgain(pod, fd, kind, waitedMs);
    for (const listener of this.#listeners) listener.pod.listeners.push(listener);
    for (const pod of shard.pods.values()) shard.waiting.retry(pod);
    shard.judge.again(); // Policies may have changed since the predecessor looked.
  }

  /** Forgets all of it and closes our duplicates, without a byte to anybody: the connections are another's. */
  discard(): void {
    for (const connection of this.#connections) connection.leaveBehind();
    for (const session of this.#sessions) {
      if (session.phase === SessionPhase.OPEN) session.release();
      else session.die({ reason: "the takeover was refused", stage: "closed" });
    }
    for (const listener of this.#listeners) listener.close();
    for (const { fd } of this.#parked) this.#shard.os.close(fd);
    for (const [at, fd] of this.#handles.entries()) if (this.#used[at] === 0) this.#shard.os.close(fd);
  }

  #build(state: WorkerState): void {
    for (const bytes of state.workloads) this.#workloads.push(workloadOf(bytes));
    for (const it of state.sessions) this.#session(it, state.issuers);
    for (const it of state.waiting) this.#waiting.push(this.#outbound(it));
    for (const it of state.relays) this.#relay(it);
    for (const { pod, fd, kind, waitedMs } of state.parked) {
      check(
        kind <= ListenerKind.SOCKS && waitedMs >= 0 && waitedMs < WAITED_MS_MAX,
        "a waiting connection is of a known kind",
      );
      this.#parked.push({ pod: this.#pod(pod), fd: this.#handle(fd), kind, waitedMs });
    }
    for (const { pod, fd, kind } of state.listeners) {
      check(kind <= ListenerKind.SOCKS, "a listener is of a known kind");
      this.#listeners.push(new Listener(this.#shard, this.#pod(pod), this.#handle(fd), kind as ListenerKind));
    }
    check(this.#used.every((used) => used === 1), "every descriptor belongs to something");
    for (const list of [this.#sessions, this.#waiting, this.#relays]) for (const it of list) watched(it.watchEarly());
    for (const { tunnels } of this.#sessions) for (const tunnel of tunnels.values()) watched(tunnel.watchEarly());
    for (const listener of this.#listeners) watched(listener.watch());
  }

  #pod(row: number): Pod {
    const pod = this.#podOf.get(row);
    check(pod !== undefined, "every connection is of a known pod");
    return pod;
  }

  /** Checked before anything is built around it: see {@link Adoption.#row}. */
  #free(at: number): void {
    check(at < this.#handles.length && this.#used[at] === 0, "a descriptor belongs to one connection");
  }

  #handle(at: number): Fd {
    this.#free(at);
    this.#used[at] = 1;
    return this.#handles[at]!;
  }

  #session(state: SessionState, issuers: readonly Uint8Array[]): void {
    const shard = this.#shard, pod = this.#pod(state.pod), { inbound, outbound } = state;
    let session: ClientSession | ServerSession;
    if (outbound !== undefined) {
      check(inbound === undefined, "a session has one direction");
      const upstream = upstreamOf(outbound.upstream), fd = this.#handle(state.fd);
      session = new ClientSession(shard, pod, pod.pool.entryOf(upstream), fd);
      this.#sessions.push(session);
      check(session.importRecords(state), "a session's records can be gone on with");
      check(session.importOutbound(outbound), "a session's next stream is free");
    } else {
      check(inbound !== undefined && inbound.peerPort <= PORT_MAX, "a session has a direction");
      const { peerPort } = inbound, peerIp = ipOf(inbound.peerIp), localIp = ipOf(inbound.localIp);
      session = new ServerSession(shard, pod, this.#handle(state.fd), null, { peerIp, peerPort, localIp });
      this.#sessions.push(session);
      check(session.importRecords(state), "a session's records can be gone on with");
      check(session.importInbound(inbound), "a session's identity is one");
    }
    const { peerPath } = state, { revocation } = shard.tls;
    if (peerPath !== undefined && revocation !== null) {
      check(peerPath.issuers.every((at) => at < issuers.length), "a peer's issuers are listed");
      const { serial, negative } = peerPath, chain = peerPath.issuers.map((at) => issuers[at]!);
      session.peerPath = revocation.resumePath({ serial, negative, issuers: chain });
      check(session.peerPath !== null, "a peer's issuers are certificates");
    }
    for (const it of state.tunnels) this.#tunnel(session, it, state.output.lastStreamId);
    check(session.importFrames(state), "a session's input stands where a session's can");
  }

  #tunnel(session: ClientSession | ServerSession, state: TunnelState, lastStreamId: number): void {
    const { streamId, receiveWindow, creditBytes, kept } = state;
    check((streamId & 1) === 1 && streamId <= Math.min(lastStreamId, STREAM_ID_MAX), "a stream was opened");
    check(!session.tunnels.has(streamId), "a stream belongs to one tunnel");
    const held = receiveWindow + creditBytes + kept.length;
    check(receiveWindow >= 0 && held <= HBONE_STREAM_WINDOW_BYTES, "a stream's bytes stay within its window");
    const pod = this.#pod(state.connection.pod);
    const together = pod.share !== null && session.pod.share !== null; // Of the host's namespace, where one accepts for all.
    check(pod === session.pod || together, "a session and its tunnels are of one pod");
    let tunnel: Tunnel;
    if (session instanceof ServerSession) {
      const { inbound, connection } = state;
      check(inbound !== undefined, "an inbound session's tunnels are inbound");
      const header = inbound.header?.slice(),
        row = this.#row(connection, Direction.INBOUND, ConnectionKind.HBONE, state.fd);
      tunnel = new InboundTunnel(session, pod, row, streamId, this.#handle(state.fd), { ...inbound, header });
      this.#complete(tunnel, connection);
      check(tunnel.facts !== undefined, "an inbound tunnel can be judged again");
    } else {
      tunnel = this.#outbound(state);
      session.attach(tunnel, streamId);
    }
    check(tunnel.importTunnel(state), "there is memory for what applications have not read");
  }

  /** An outbound tunnel, in a session or waiting for one. */
  #outbound(state: TunnelState): OutboundTunnel {
    const { outbound, connection } = state;
    check(outbound !== undefined, "an outbound session's tunnels are outbound");
    const { authority } = connection, { baggage, forwarded } = outbound, pod = this.#pod(connection.pod);
    const upstream = upstreamOf(outbound.upstream),
      row = this.#row(connection, Direction.OUTBOUND, ConnectionKind.HBONE, state.fd);
    const said = { authority, baggage, forwarded };
    const tunnel = new OutboundTunnel(this.#shard, pod, row, this.#handle(state.fd), upstream, said);
    tunnel.answered = outbound.answered;
    this.#complete(tunnel, connection);
    return tunnel;
  }

  #relay(state: RelayState): void {
    const { connection } = state, direction = connection.direction;
    check(direction === Direction.OUTBOUND || direction === Direction.INBOUND, "a connection has a direction");
    const { downstream, upstream } = state, pod = this.#pod(connection.pod);
    check(downstream.fd !== upstream.fd, "a relay has two ends");
    const row = this.#row(connection, direction, ConnectionKind.TCP, downstream.fd, upstream.fd);
    const relay = new Relay(
      this.#shard,
      pod,
      row,
      direction,
      this.#handle(downstream.fd),
      this.#handle(upstream.fd),
    );
    this.#complete(relay, connection);
    check(direction === Direction.OUTBOUND || relay.facts !== undefined, "an inbound connection can be judged again");
    check(relay.importRelay(state), "a relay keeps no more than one read");
    this.#relays.push(relay);
  }

  /** A row, once everything else that a connection needs is known to be there: nothing may fail between it and its owner. */
  #row(state: ConnectionRecord, direction: Direction, kind: number, ...handles: readonly number[]): number {
    for (const handle of handles) this.#free(handle);
    check(state.direction === direction && state.kind === kind, "a connection's kind is that of its session");
    const { rows, connections } = this.#shard, { receivedBytes, sentBytes, openedAtMs } = state;
    check(receivedBytes >= 0 && sentBytes >= 0, "bytes are counted from zero");
    const source = ipOf(state.source), destination = ipOf(state.destination), actual = ipOf(state.actual);
    const row = rows.acquire(this.#pod(state.pod).row, direction, kind, openedAtMs, true);
    check(row >= 0, "there is room for every connection");
    rows.setSource(row, ...source, state.sourcePort & PORT_MAX);
    rows.setDestination(row, ...destination, state.destinationPort & PORT_MAX);
    rows.setActual(row, ...actual, state.actualPort & PORT_MAX);
    if (state.host !== "") rows.setHost(row, state.host);
    connections.setF64(row, CONNECTION.receivedBytes, receivedBytes);
    connections.setF64(row, CONNECTION.sentBytes, sentBytes);
    if (state.closeRequested) connections.or(row, CONNECTION.control, CLOSE_REQUESTED);
    if (state.open) connections.store(row, CONNECTION.state, ConnectionState.OPEN);
    return row;
  }

  /** Flow, facts and authority. The flow's count of opened connections was the predecessor's. */
  #complete(connection: Connection, state: ConnectionRecord): void {
    const { flow, facts } = state, shard = this.#shard;
    this.#connections.push(connection);
    connection.authority = state.authority;
    if (flow !== undefined) {
      connection.flow = shard.flows.acquireText(state.direction, flow);
      check(connection.flow >= 0, "a flow's label fits its row");
      shard.connections.set(connection.row, CONNECTION.flowRow, connection.flow);
    }
    if (facts === undefined) return;
    const workload = this.#workloads[facts.workload], identity = parseIdentity(facts.identityUri);
    check(workload !== undefined, "a connection's workload is listed");
    check(identity !== undefined || facts.identityUri === "", "a connection's identity is one");
    connection.facts = { workload, identity };
  }
}

function workloadOf(bytes: Uint8Array): Workload {
  try {
    const { workload } = decodeAddress(bytes);
    check(workload !== undefined, "a workload's bytes are a workload");
    return workload;
  } catch (error) {
    if (error instanceof WireFormatError) throw new RefusedState(`a workload does not decode: ${error.message}`);
    throw error;
  }
}
