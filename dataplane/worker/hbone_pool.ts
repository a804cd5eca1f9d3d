/** Sessions to upstreams, one pool per pod: many tunnels share a session, sessions with other keys are never shared (ZT-070). */
import { formatSocketAddress } from "../../base/address.ts";
import { assert } from "../../base/assert.ts";
import { Deadline } from "../../base/timer_wheel.ts";
import type { HboneRoute } from "../../mesh/route.ts";
import { H2Error } from "../../wire/h2/frame_rules.ts";
import * as frames from "../../wire/h2/frame_writers.ts";
import { writeConnectBlock } from "../../wire/h2/hpack_encoder.ts";
import { ResponseFlag, WORKER } from "../tables/layout.ts";
import type { OutboundTunnel } from "./outbound.ts";
import type { Pod } from "./pod.ts";
import { POLL_ERROR, POLL_HANGUP, POLL_OUT } from "./reactor.ts";
import { HboneSession, type SessionEnd, SessionPhase } from "./session.ts";
import type { Shard } from "./shard.ts";
import type { SessionState } from "../tables/takeover_format.ts";

/** A session without tunnels that nobody asked for is closed after this time (ZT-074). */
const UNUSED_RELEASE_MS = 300_000;
const STREAM_ID_REUSE_MAX = 0x3fffffff; // Half of all ids: the rest is for streams under way.
/** Tunnels that may wait for one upstream's session; more are refused, so that a dead upstream holds no descriptors. */
const WAITING_MAX = 4096;

/** Where a session leads, and who must answer there. */
export type Upstream = Pick<HboneRoute, "ip" | "port" | "identities">;

/** All sessions of a pod to one upstream: address and the identities it may present. */
class PoolEntry {
  readonly key: string;
  readonly route: Upstream;
  readonly sessions: ClientSession[] = [];
  connecting: ClientSession | null = null;
  waiting: OutboundTunnel[] = [];

  constructor(key: string, route: Upstream) {
    this.key = key;
    this.route = route;
  }
}

export class HbonePool {
  readonly #shard: Shard;
  readonly #pod: Pod;
  readonly #entries = new Map<string, PoolEntry>();

  constructor(shard: Shard, pod: Pod) {
    this.#shard = shard;
    this.#pod = pod;
  }

  /** Opens a stream for the tunnel on a session that has room, or once one has. */
  checkout(tunnel: OutboundTunnel): void {
    const entry = this.entryOf(tunnel.route);
    for (let at = entry.sessions.length - 1; at >= 0; at--) {
      const session = entry.sessions[at]!;
      if (!session.hasRoom) continue;
      session.open(tunnel);
      return;
    }
    if (entry.waiting.length >= WAITING_MAX) {
      tunnel.end(ResponseFlag.CONNECT, "too many connections wait for the upstream");
      return;
    }
    entry.waiting.push(tunnel);
    tunnel.awaits(entry);
    if (entry.connecting === null) this.#dial(entry);
  }

  /** A waiting tunnel has ended. */
  forget(tunnel: OutboundTunnel, entry: PoolEntry): void {
    const at = entry.waiting.indexOf(tunnel);
    if (at >= 0) entry.waiting.splice(at, 1);
  }

  onOpen(session: ClientSession): void {
    const entry = session.entry;
    assert(entry.connecting === session, "one session of an entry connects at a time");
    entry.connecting = null;
    entry.sessions.push(session);
    this.serve(entry);
  }

  /** Gives waiting tunnels to sessions with room; dials when some still wait. */
  serve(entry: PoolEntry): void {
    while (entry.waiting.length > 0) {
      const session = entry.sessions.find((it) => it.hasRoom);
      if (session === undefined) {
        if (entry.connecting === null) this.#dial(entry);
        return;
      }
      session.open(entry.waiting.shift()!);
    }
  }

  onClosed(session: ClientSession, end: SessionEnd): void {
    const entry = session.entry;
    const at = entry.sessions.indexOf(session);
    if (at >= 0) entry.sessions.splice(at, 1);
    if (entry.connecting === session) {
      entry.connecting = null;
      // All of them learn the error at once; each application decides whether to try again (ZT-072).
      const waiting = entry.waiting;
      entry.waiting = [];
      for (const tunnel of waiting) if (!tunnel.closed) tunnel.onDialFailed(end);
    } else this.serve(entry);
    this.#forgetUnused(entry);
  }

  /** The pod's proxy goes: every session is told and closed (ZT-075). */
  close(end: SessionEnd): void {
    for (const entry of [...this.#entries.values()]) {
      for (const session of [...entry.sessions]) session.closeNow(end);
      entry.connecting?.die(end);
    }
  }

  /** No new tunnels: sessions without any close, others when their last tunnel ends. */
  drain(): void {
    for (const entry of [...this.#entries.values()]) for (const session of [...entry.sessions]) session.retire();
  }

  get sessionCount(): number {
    let count = 0;
    for (const entry of this.#entries.values()) count += entry.sessions.length;
    return count;
  }

  /** Takes in a session that another process had opened. */
  adopt(session: ClientSession): void {
    session.entry.sessions.push(session);
  }

  /** A session has gone to another process, or has never come from one. @returns Whether it was in use here. */
  onReleased(session: ClientSession): boolean {
    const { entry } = session, at = entry.sessions.indexOf(session);
    if (at >= 0) entry.sessions.splice(at, 1);
    this.#forgetUnused(entry);
    return at >= 0;
  }

  /** Sessions that are open, for whoever hands them over. */
  *sessions(): Iterable<ClientSession> {
    for (const entry of this.#entries.values()) yield* entry.sessions;
  }

  /** Whoever waits for a session. */
  *waiting(): Iterable<OutboundTunnel> {
    for (const entry of this.#entries.values()) yield* entry.waiting;
  }

  /** Ends dials that nobody waits for any more: who did has gone to another process, which dials anew. */
  dropDials(end: SessionEnd): void {
    for (const entry of [...this.#entries.values()]) if (entry.waiting.length === 0) entry.connecting?.die(end);
  }

  #forgetUnused(entry: PoolEntry): void {
    if (entry.sessions.length > 0 || entry.connecting !== null || entry.waiting.length > 0) return;
    this.#entries.delete(entry.key);
  }

  /** The place of all sessions to one upstream; made on the first call. */
  entryOf(route: Upstream): PoolEntry {
    const key = `${route.ip.join(".")}:${route.port}|${route.identities.join(",")}`;
    let entry = this.#entries.get(key);
    if (entry === undefined) this.#entries.set(key, entry = new PoolEntry(key, route));
    return entry;
  }

  #dial(entry: PoolEntry): void {
    const shard = this.#shard, { ip, port } = entry.route;
    const fd = shard.sockets.connect(this.#pod, ip[0], ip[1], ip[2], ip[3], port, undefined);
    if (fd < 0) {
      const waiting = entry.waiting;
      entry.waiting = [];
      if (entry.sessions.length === 0) this.#entries.delete(entry.key); // Else they must be found when the pod goes.
      const end: SessionEnd = { reason: `connect failed (errno ${-fd})`, stage: "connect" };
      for (const tunnel of waiting) if (!tunnel.closed) tunnel.onDialFailed(end);
      return;
    }
    entry.connecting = new ClientSession(shard, this.#pod, entry, fd);
    entry.connecting.watch();
  }
}

export type { PoolEntry };

/** A session that we opened. */
export class ClientSession extends HboneSession {
  readonly entry: PoolEntry;
  readonly pod: Pod;
  #nextStreamId = 1;
  #connected = false;
  readonly #unused = new Deadline(() => this.retire());

  constructor(shard: Shard, pod: Pod, entry: PoolEntry, fd: number) {
    super(shard, fd, null, false);
    this.pod = pod;
    this.entry = entry;
  }

  /** Whether one more tunnel may be opened (ZT-071); streams that ended free their place. */
  get hasRoom(): boolean {
    const limit = Math.min(this.shard.streamsPerSessionMax, this.announced.concurrentStreamsMax);
    return this.phase === SessionPhase.OPEN && !this.goingAway && this.tunnels.size < limit &&
      this.#nextStreamId < STREAM_ID_REUSE_MAX;
  }

  /** Sends the CONNECT (ZT-052). */
  open(tunnel: OutboundTunnel): void {
    const { shard } = this, block = shard.headerScratch;
    const end = writeConnectBlock(block, 0, tunnel.authority, tunnel.baggage, tunnel.forwarded, shard.traceparent());
    if (end < 0) {
      tunnel.end(ResponseFlag.CONNECT, "the request does not fit: a name in it is too long or not ASCII");
      return;
    }
    const streamId = this.#nextStreamId;
    const at = this.reserveControl(end + 9);
    if (at < 0) {
      if (!tunnel.closed) tunnel.onDialFailed({ reason: "the session ended", stage: "closed" });
      return;
    }
    shard.reactor.timers.cancel(this.#unused);
    this.#nextStreamId += 2;
    this.lastStreamId = streamId;
    this.attach(tunnel, streamId);
    const target = this.controlTarget;
    this.commitControl(at, frames.writeHeaders(target, at, streamId, block, 0, end, false, 16_384));
  }

  /** Takes no new tunnels; closes with the last one. */
  retire(): void {
    if (this.phase !== SessionPhase.OPEN) return;
    this.goingAway = true;
    if (this.tunnels.size === 0) this.closeGracefully({ reason: "unused", stage: "closed" });
  }

  protected override onConnecting(events: number): void {
    if (this.#connected || (events & (POLL_OUT | POLL_ERROR | POLL_HANGUP)) === 0) return;
    const outcome = this.shard.os.socketError(this.fd);
    if (outcome < 0) {
      this.die({ reason: `connect failed (errno ${-outcome})`, stage: "connect" });
      return;
    }
    this.#connected = true;
    const tls = this.pod.identity.tls;
    if (tls === undefined) this.die({ reason: "the certificate is gone", stage: "identity" });
    else this.startHandshake(tls.connect(this.fd));
  }

  protected override timeoutEnd(): SessionEnd {
    if (this.#connected) return super.timeoutEnd();
    const { ip, port } = this.entry.route;
    return {
      reason: `connection timed out, maybe a NetworkPolicy is blocking HBONE port ${port}: ${
        formatSocketAddress(ip, port)
      }`,
      stage: "timeout",
    };
  }

  /** The upstream must present one of the identities that the route accepts (ZT-085). */
  protected override verify(uris: readonly string[]): string | undefined {
    const accepted = this.entry.route.identities;
    if (uris.some((uri) => accepted.includes(uri))) return undefined;
    return `identity verification error: peer did not present the expected SAN (${accepted.join(", ")}), got ${
      uris.join(", ") || "none"
    }`;
  }

  protected override onOpen(): void {
    this.shard.count(WORKER.upstreamSessions, 1);
    this.#setUnused(); // Whoever waited for it may have gone: then no tunnel's end will say that it is unused.
    this.pod.pool.onOpen(this);
  }

  protected override onHeaderBlock(
    streamId: number,
    endStream: boolean,
    bytes: Uint8Array,
    start: number,
    end: number,
  ): number {
    if (streamId > this.lastStreamId || (streamId & 1) === 0) return H2Error.PROTOCOL_ERROR;
    const tunnel = this.tunnels.get(streamId) as OutboundTunnel | undefined;
    if (tunnel === undefined) {
      const wrong = this.skipBlock(bytes, start, end);
      if (wrong === 0) this.glitch();
      return wrong;
    }
    if (tunnel.answered) {
      const wrong = this.skipBlock(bytes, start, end); // Trailers: they can only end the stream.
      if (wrong !== 0) return wrong;
      if (!endStream) tunnel.fail(H2Error.PROTOCOL_ERROR, "receive: trailers that do not end the stream");
      else if (!tunnel.endReceived) tunnel.onEndReceived();
      return 0;
    }
    const head = this.shard.responseHead;
    head.begin();
    const result = this.decoder.decode(bytes, start, end, head);
    if (result < 0) return -result;
    const status = result > 0 ? -H2Error.PROTOCOL_ERROR : head.verdict();
    if (status < 0) tunnel.fail(H2Error.PROTOCOL_ERROR, "receive: a malformed response");
    else if (status >= 200) tunnel.onAnswer(status, endStream);
    else if (endStream) tunnel.fail(H2Error.PROTOCOL_ERROR, "receive: a stream that ends before its answer");
    else this.glitch(); // An interim answer; one in a while is fine.
    return 0;
  }

  protected override onGoaway(lastStreamId: number, error: number): void {
    for (const tunnel of [...this.tunnels.values()]) {
      if (tunnel.streamId <= lastStreamId || tunnel.closed) continue;
      tunnel.onStreamReset(H2Error.REFUSED_STREAM);
    }
    if (this.phase !== SessionPhase.OPEN) return;
    if (this.tunnels.size === 0) {
      this.closeGracefully({ reason: `the peer went away (error ${error})`, stage: "closed" });
    }
  }

  protected override onTunnelGone(): void {
    if (this.tunnels.size > 0) {
      if (this.entry.waiting.length > 0) this.pod.pool.serve(this.entry);
      return;
    }
    if (this.goingAway) {
      this.closeGracefully({ reason: "unused", stage: "closed" });
      return;
    }
    if (this.entry.waiting.length > 0) this.pod.pool.serve(this.entry);
    if (this.tunnels.size === 0) this.#setUnused();
  }

  #setUnused(): void {
    this.shard.reactor.timers.set(this.#unused, UNUSED_RELEASE_MS, this.shard.reactor.nowMs);
  }

  exportOutbound(): NonNullable<SessionState["outbound"]> {
    const { ip, port, identities } = this.entry.route;
    return { upstream: { ip, port, identities }, nextStreamId: this.#nextStreamId };
  }

  /** @returns false if no session of ours can stand there. */
  importOutbound(state: NonNullable<SessionState["outbound"]>): boolean {
    const next = state.nextStreamId;
    if ((next & 1) === 0 || next <= this.lastStreamId || next > STREAM_ID_REUSE_MAX + 2) return false;
    this.#nextStreamId = next;
    this.#connected = true;
    this.shard.count(WORKER.upstreamSessions, 1);
    this.pod.pool.adopt(this);
    return true;
  }

  override goLive(): void {
    super.goLive();
    if (this.phase === SessionPhase.OPEN && this.tunnels.size === 0) this.#setUnused();
  }

  protected override onReleased(): void {
    this.shard.reactor.timers.cancel(this.#unused);
    if (this.pod.pool.onReleased(this)) this.shard.count(WORKER.upstreamSessions, -1);
  }

  protected override onClosed(end: SessionEnd): void {
    this.shard.reactor.timers.cancel(this.#unused);
    if (this.entry.sessions.includes(this)) this.shard.count(WORKER.upstreamSessions, -1);
    this.pod.pool.onClosed(this, end);
  }
}
