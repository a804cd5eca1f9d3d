/** Sessions to upstreams, one pool per pod: many tunnels share a session, sessions with other keys are never shared (ZT-070). */
import { formatSocketAddress } from "../../base/address.ts";
import { assert } from "../../base/assert.ts";
import { Deadline } from "../../base/timer_wheel.ts";
import type { HboneRoute } from "../../mesh/route.ts";
import { ResponseFlag, WORKER } from "../tables/layout.ts";
import type { ClientTunnel } from "./client_tunnel.ts";
import type { NestedSession } from "./nested_session.ts";
import type { Pod, PodIdentity } from "./pod.ts";
import { SocketUse } from "./pod_sockets.ts";
import { POLL_ERROR, POLL_HANGUP, POLL_OUT } from "./reactor.ts";
import { type SessionEnd, SessionPhase } from "./session.ts";
import type { Shard } from "./shard.ts";
import { STREAM_ID_REUSE_MAX, UpstreamSession } from "./upstream_session.ts";
import type { SessionState } from "../tables/takeover_format.ts";

/** A session without tunnels that nobody asked for is closed after this time (ZT-074). */
export const UNUSED_RELEASE_MS = 300_000;
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
  waiting: ClientTunnel[] = [];

  constructor(key: string, route: Upstream) {
    this.key = key;
    this.route = route;
  }
}

export class HbonePool {
  readonly #shard: Shard;
  readonly #pod: Pod;
  readonly #entries = new Map<string, PoolEntry>();
  /** Sessions inside a gateway's: never shared, each gone with its one connection (ZT-046). */
  readonly nested = new Set<NestedSession>();

  constructor(shard: Shard, pod: Pod) {
    this.#shard = shard;
    this.#pod = pod;
  }

  /** Opens a stream for the tunnel on a session that has room, or once one has. */
  checkout(tunnel: ClientTunnel): void {
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
  forget(tunnel: ClientTunnel, entry: PoolEntry): void {
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
    for (const session of [...this.nested]) session.die(end); // Those whose stream had ended before.
  }

  /** No new tunnels: sessions without any close, others when their last tunnel ends. */
  drain(): void {
    for (const entry of [...this.#entries.values()]) for (const session of [...entry.sessions]) session.retire();
  }

  get sessionCount(): number {
    let count = this.nested.size;
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
  *waiting(): Iterable<ClientTunnel> {
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
    const fd = shard.sockets.connect(this.#pod, ip[0], ip[1], ip[2], ip[3], port, undefined, SocketUse.HBONE);
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

/** A session to an upstream, shared by all tunnels that lead there. */
export class ClientSession extends UpstreamSession {
  readonly entry: PoolEntry;
  readonly pod: Pod;
  #connected = false;
  /** In whose name the handshake was made; null for a session that another process opened. */
  #identity: PodIdentity | null = null;
  readonly #unused = new Deadline(() => this.retire());

  constructor(shard: Shard, pod: Pod, entry: PoolEntry, fd: number) {
    super(shard, fd);
    this.pod = pod;
    this.entry = entry;
  }

  override open(tunnel: ClientTunnel): void {
    this.shard.reactor.timers.cancel(this.#unused);
    super.open(tunnel);
    if (this.tunnels.size === 0 && this.phase === SessionPhase.OPEN) this.#setUnused(); // It could not be asked for.
  }

  /** A stream that carries another session ends here, and with it all of its session: two levels are not written down. */
  override get transferable(): boolean {
    for (const tunnel of this.tunnels.values()) if (tunnel.row < 0) return false;
    return super.transferable;
  }

  protected override stopTaking(): void {
    this.retire();
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
    const { identity } = this.pod, { tls } = identity;
    this.#identity = identity;
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

  protected override verify(uris: readonly string[]): string | undefined {
    return this.expect(this.entry.route.identities, uris);
  }

  protected override onOpen(): void {
    this.shard.count(WORKER.upstreamSessions, 1);
    this.#setUnused(); // Whoever waited for it may have gone: then no tunnel's end will say that it is unused.
    const former = this.#identity !== this.pod.identity;
    if (former) this.goingAway = true; // Whoever waits waits on, for one in the pod's own name.
    this.pod.pool.onOpen(this);
    if (former || this.shard.draining) this.retire();
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
    this.shard.reactor.timers.set(this.#unused, this.shard.unusedReleaseMs, this.shard.reactor.nowMs);
  }

  exportOutbound(): NonNullable<SessionState["outbound"]> {
    const { ip, port, identities } = this.entry.route;
    return { upstream: { ip, port, identities }, nextStreamId: this.nextStreamId };
  }

  /** @returns false if no session of ours can stand there. */
  importOutbound(state: NonNullable<SessionState["outbound"]>): boolean {
    const next = state.nextStreamId;
    if ((next & 1) === 0 || next <= this.lastStreamId || next > STREAM_ID_REUSE_MAX + 2) return false;
    this.nextStreamId = next;
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
