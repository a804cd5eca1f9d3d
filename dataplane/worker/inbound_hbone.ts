/** Inbound HBONE: a downstream's session, and each CONNECT in it from the request to the application (ZT section 4). */
import { Deadline } from "../../base/timer_wheel.ts";
import type { IpWords } from "../../base/address.ts";
import { formatIdentity, type Identity, parseIdentity } from "../../mesh/identity.ts";
import { resolveInbound } from "../../mesh/inbound.ts";
import { addressName } from "../../mesh/partial_view.ts";
import { inboundService } from "../../mesh/service_label.ts";
import type { Workload } from "../../mesh/workload.ts";
import { parseAuthority } from "../../wire/authority.ts";
import { parseBaggage } from "../../wire/baggage.ts";
import { parseForwardedHost } from "../../wire/forwarded.ts";
import { H2Error } from "../../wire/h2/frame_rules.ts";
import * as frames from "../../wire/h2/frame_writers.ts";
import { writeNoTable, writeResponseBlock } from "../../wire/h2/hpack_encoder.ts";
import { parseTraceparent } from "../../wire/traceparent.ts";
import { ConnectionKind, Direction, ResponseFlag } from "../tables/layout.ts";
import { loopbackOf, proxyHeader, sendHeader } from "./application_tunnel.ts";
import { refuseRequest, reportOpened } from "./close.ts";
import type { Unproven } from "./handshakes.ts";
import { textOf } from "./header_text.ts";
import type { Pod } from "./pod.ts";
import { POLL_BOTH_EDGES } from "./reactor.ts";
import { SocketUse } from "./pod_sockets.ts";
import { CONNECT_TIMEOUT_MS } from "./relay.ts";
import type { SessionState } from "../tables/takeover_format.ts";
import type { TlsHandshake } from "../../os/api.ts";
import { HboneSession, type SessionEnd, SessionPhase } from "./session.ts";
import { PingWord } from "./session_output.ts";
import type { Shard } from "./shard.ts";
import { podOfRequest } from "./shared_pod.ts";
import { Tunnel } from "./tunnel.ts";

/** What we announce as MAX_CONCURRENT_STREAMS (ZT-061). */
const STREAMS_MAX = 200;

/** A session that a downstream opened. */
export class ServerSession extends HboneSession implements Unproven {
  readonly pod: Pod;
  readonly peerIp: IpWords;
  readonly peerPort: number;
  /** The address of ours that the downstream connected to. */
  readonly localIp: IpWords;
  /** undefined: a verified certificate without an identity of the mesh's form (ZT-084). */
  identity: Identity | undefined = undefined;
  identityUri = "";
  /** Said to drain, and the downstream may not have read it: what it still opens is served (ZT-076). */
  #lastStreamOwed = false;
  /** Asked to drain before it was open. */
  #drainOwed = false;
  #draining = false;

  /** @param handshake null for a session that another process had. */
  constructor(
    shard: Shard,
    pod: Pod,
    fd: number,
    handshake: TlsHandshake | null,
    addresses: { peerIp: IpWords; peerPort: number; localIp: IpWords },
  ) {
    super(shard, fd, handshake, true);
    this.pod = pod;
    this.peerIp = addresses.peerIp;
    this.peerPort = addresses.peerPort;
    this.localIp = addresses.localIp;
    pod.sessions.add(this);
    shard.countDownstreamSession(pod.row, 1);
    if (handshake !== null) shard.handshakes.begin(this);
  }

  giveWay(): void {
    this.die({ reason: "the TLS handshake gave way to newer ones: too many are under way", stage: "tls" });
  }

  /** At least one SPIFFE name must be of our own trust domain (ZT-083). */
  protected override verify(uris: readonly string[]): string | undefined {
    this.shard.handshakes.end(this);
    const own = this.pod.identity.identity.trustDomain;
    if (!uris.some((uri) => uri.startsWith(`spiffe://${own}/`))) {
      return `the peer's certificate has no SPIFFE name in trust domain ${own}, only ${uris.join(", ") || "none"}`;
    }
    for (const uri of uris) {
      this.identity = parseIdentity(uri);
      if (this.identity === undefined) continue;
      this.identityUri = uri;
      break;
    }
    return undefined;
  }

  protected override onOpen(): void {
    if (this.#drainOwed) this.drain(); // What the downstream sent with its Finished crosses our GOAWAY.
  }

  override onHeaderBlock(
    streamId: number,
    endStream: boolean,
    bytes: Uint8Array,
    start: number,
    end: number,
  ): number {
    if ((streamId & 1) === 0) return H2Error.PROTOCOL_ERROR;
    if (streamId <= this.lastStreamId) return this.takeTrailers(streamId, endStream, bytes, start, end);
    this.lastStreamId = streamId;
    if (!this.#serves || this.tunnels.size >= STREAMS_MAX) {
      const wrong = this.skipBlock(bytes, start, end);
      if (wrong !== 0) return wrong;
      this.resetStream(streamId, H2Error.REFUSED_STREAM);
      if (this.#serves) this.glitch(); // It was told how many streams there may be.
      return 0;
    }
    const head = this.shard.requestHead;
    head.begin();
    const result = this.decoder.decode(bytes, start, end, head);
    if (result < 0) return -result;
    const verdict = result > 0 ? 400 : head.verdict();
    if (verdict < 0) {
      this.resetStream(streamId, H2Error.PROTOCOL_ERROR);
      this.glitch();
    } else if (verdict === 400) {
      this.refuse(streamId, 400, endStream);
      this.glitch();
    } else acceptRequest(this, streamId, endStream);
    return 0;
  }

  /** Sends the answer to a CONNECT (ZT-059, ZT-060). */
  respond(streamId: number, status: number, baggage: string, endStream: boolean): void {
    const block = this.shard.headerScratch;
    const start = this.announced.tableUpdateDue ? writeNoTable(block, 0) : 0;
    let end = writeResponseBlock(block, start, status, baggage);
    if (end < 0) end = writeResponseBlock(block, start, status, ""); // Baggage that is no header text is left out.
    const at = this.reserveControl(end + 9);
    if (at < 0) return;
    this.announced.blockBegan();
    this.commitControl(at, frames.writeHeaders(this.controlTarget, at, streamId, block, 0, end, endStream, 16_384));
  }

  /** Answers with an error and forgets the stream. */
  refuse(streamId: number, status: number, endStream: boolean): void {
    this.respond(streamId, status, "", true);
    if (!endStream) this.resetStream(streamId, H2Error.NO_ERROR);
  }

  protected override onGoaway(_lastStreamId: number, _error: number): void {
    if (this.tunnels.size === 0) this.closeGracefully({ reason: "the peer went away", stage: "closed" });
  }

  protected override onTunnelGone(): void {
    if (!this.#serves && this.tunnels.size === 0) {
      this.closeGracefully({ reason: "the session is done", stage: "closed" });
    }
  }

  get #serves(): boolean {
    return !this.goingAway || this.#lastStreamOwed;
  }

  protected override stopTaking(): void {
    this.drain();
  }

  /**
   * Soon no new streams; what runs, runs on (ZT-076). Streams that cross the word are served like any, where the original
   * leaves them without an answer: a restart costs no connection then.
   */
  drain(): void {
    if (this.phase !== SessionPhase.OPEN) this.#drainOwed = true;
    if (this.phase !== SessionPhase.OPEN || this.closing || this.#draining) return;
    this.#draining = true; // The last stream that a GOAWAY names may never rise again.
    this.goAway(0x7fffffff, H2Error.NO_ERROR);
    this.#lastStreamOwed = true;
    this.ping(PingWord.DRAIN);
  }

  /** The downstream has read that we drain, and is told which of its streams were looked at (ZT-076). */
  protected override onPingAnswered(word: number): void {
    super.onPingAnswered(word);
    if (word !== PingWord.DRAIN || !this.#lastStreamOwed || this.phase !== SessionPhase.OPEN || this.closing) return;
    this.#lastStreamOwed = false;
    if (this.tunnels.size === 0) this.closeGracefully({ reason: "draining", stage: "drain" }); // Says GOAWAY itself.
    else this.goAway(this.lastStreamId, H2Error.NO_ERROR);
  }

  /** What only the accepting side knows of a session, for another process. */
  exportInbound(): NonNullable<SessionState["inbound"]> {
    const { peerIp, peerPort, localIp, identityUri } = this;
    return { peerIp, peerPort, localIp, identityUri, lastStreamOwed: this.#lastStreamOwed };
  }

  /** Who the peer proved to be, before another process took its session over. @returns false for no identity at all. */
  importInbound(state: NonNullable<SessionState["inbound"]>): boolean {
    this.identityUri = state.identityUri;
    this.identity = parseIdentity(state.identityUri);
    this.#lastStreamOwed = state.lastStreamOwed;
    return this.identity !== undefined || state.identityUri === "";
  }

  protected override onReleased(): void {
    this.shard.handshakes.end(this);
    this.pod.sessions.delete(this);
    this.shard.countDownstreamSession(this.pod.row, -1);
  }

  protected override onClosed(end: SessionEnd): void {
    this.onReleased();
    if (end.stage === "revoked" || end.stage === "tls" || end.stage === "identity" || end.stage === "h2") {
      this.shard.logSessionEnd(this.peerIp, this.peerPort, this.localIp, end.reason);
    }
  }
}

/** The application's side of an inbound tunnel. */
export class InboundTunnel extends Tunnel {
  readonly #endStream: boolean;
  readonly #baggage: string;
  readonly #header: Uint8Array | undefined;
  readonly #deadline = new Deadline(() => this.#refuse("connection timed out"));

  /** @param pod whom it is for: the session's, or one that shares the host's namespace and the identity with it. */
  constructor(
    session: ServerSession,
    pod: Pod,
    row: number,
    streamId: number,
    fd: number,
    options: { endStream: boolean; baggage: string; header: Uint8Array | undefined },
  ) {
    super(session.shard, pod, row, Direction.INBOUND, fd);
    this.#header = options.header;
    this.#endStream = options.endStream;
    this.#baggage = options.baggage;
    this.connecting = true;
    session.attach(this, streamId);
  }

  start(): void {
    const reactor = this.shard.reactor;
    reactor.timers.set(this.#deadline, CONNECT_TIMEOUT_MS, reactor.nowMs);
    if (!this.watchApplication(POLL_BOTH_EDGES)) this.#refuse("the kernel watches no more descriptors");
    else if (this.shard.os.peerAddress(this.fd) >= 0) {
      // Within a node the three segments of a handshake pass during connect(2): it answers now, not a turn later.
      this.connecting = false;
      this.#answer(); // Whoever has a peer is connected: there is no error to ask for.
    }
  }

  protected override onConnected(): void {
    const outcome = this.shard.os.socketError(this.fd);
    if (outcome < 0) this.#refuse(`connect to the application failed (errno ${-outcome})`);
    else this.#answer();
  }

  #answer(): void {
    this.shard.reactor.timers.cancel(this.#deadline);
    this.up = true;
    this.upAtTurn = this.shard.reactor.turns;
    this.markOpen();
    (this.session as ServerSession).respond(this.streamId, 200, this.#baggage, false);
    if (this.closed) return;
    const failed = this.#header === undefined ? 0 : sendHeader(this.shard, this.fd, this.#header);
    if (failed < 0) {
      this.fail(H2Error.CANCEL, `the application took no PROXY header (errno ${-failed})`);
      return;
    }
    this.drain(); // What came before the application was there.
    if (!this.closed && this.#endStream) this.onEndReceived();
  }

  #refuse(reason: string): void {
    if (this.closed) return;
    const session = this.session as ServerSession | null;
    if (session !== null) {
      session.refuse(this.streamId, 503, this.endReceived || this.#endStream);
      if (this.closed) return;
      this.leaveSession();
    }
    this.end(ResponseFlag.CONNECT, reason);
  }

  override exportTunnel(): ReturnType<Tunnel["exportTunnel"]> {
    const inbound = { endStream: this.#endStream, baggage: this.#baggage, header: this.#header };
    return { ...super.exportTunnel(), inbound };
  }

  override goLive(): void {
    super.goLive();
    const { reactor } = this.shard;
    if (!this.closed && this.connecting) reactor.timers.set(this.#deadline, CONNECT_TIMEOUT_MS, reactor.nowMs);
  }

  override leaveBehind(): void {
    this.shard.reactor.timers.cancel(this.#deadline);
    super.leaveBehind();
  }

  override releaseResources(flag: number): void {
    this.shard.reactor.timers.cancel(this.#deadline);
    super.releaseResources(flag);
  }
}

/** Starts serving an accepted TLS connection. Takes over the descriptor. */
export function acceptSession(shard: Shard, pod: Pod, fd: number): void {
  const { os } = shard, words = os.addressWords;
  if (!shard.downstreamSessions.mayTake(pod.row)) {
    shard.countGlitch();
    os.close(fd);
    return;
  }
  if (os.localAddress(fd) < 0) {
    os.close(fd);
    return;
  }
  const localIp: IpWords = [words[0]!, words[1]!, words[2]!, words[3]!];
  const peer = shard.peerOf(fd);
  if (peer === undefined) {
    os.close(fd); // Gone already.
    return;
  }
  const handshake = pod.identity.tls!.accept(fd);
  new ServerSession(shard, pod, fd, handshake, { peerIp: peer.ip, peerPort: peer.port, localIp }).watch();
}

/** Decides on the request that lies in the shard's head, and connects to the application. */
function acceptRequest(session: ServerSession, streamId: number, endStream: boolean): void {
  const { shard } = session, head = shard.requestHead, view = shard.view;
  const text = textOf(head.bytes, head.authorityStart, head.authorityEnd);
  const authority = parseAuthority(text);
  if (authority === undefined) {
    shard.logSessionEnd(session.peerIp, session.peerPort, session.localIp, `no valid authority pseudo header: ${text}`);
    session.refuse(streamId, 400, endStream);
    return;
  }
  const pod = session.pod.share === null ? session.pod : podOfRequest(session, authority);
  if (pod === undefined) {
    const reason = `port ${authority.port} is no workload's of this host that has this identity`;
    shard.logSessionEnd(session.peerIp, session.peerPort, session.localIp, reason);
    session.refuse(streamId, 503, endStream);
    return;
  }
  const local = view.localWorkload(pod.row);
  if (local === undefined) {
    shard.logSessionEnd(session.peerIp, session.peerPort, session.localIp, "the local workload is not known yet");
    session.refuse(streamId, 503, endStream);
    return;
  }
  const { onDemand } = shard;
  onDemand?.view.begin();
  const target = resolveInbound(onDemand === null ? view : onDemand.view, local, {
    connectedIp: session.localIp,
    authority,
    network: shard.network,
    reservedPorts: shard.reservedPorts,
  });
  if (!target.ok && onDemand !== null && onDemand.view.missing !== "") {
    // A stream that waits would hold bytes of the application; whoever is asked to come again finds the name known.
    const reason = `${onDemand.view.missing} is not known yet`;
    onDemand.wish(onDemand.view.missing);
    shard.logSessionEnd(session.peerIp, session.peerPort, session.localIp, reason);
    session.refuse(streamId, 503, endStream);
    return;
  }
  if (!target.ok) {
    shard.logSessionEnd(session.peerIp, session.peerPort, session.localIp, target.reason);
    session.refuse(streamId, target.status, endStream);
    return;
  }
  if (pod.own && !shard.ownPorts.includes(target.connectPort)) {
    shard.logSessionEnd(session.peerIp, session.peerPort, session.localIp, `port ${target.port} is not for others`);
    session.refuse(streamId, 503, endStream);
    return;
  }
  if (pod.share !== null && !pod.share.ports.includes(target.connectPort)) {
    shard.logSessionEnd(session.peerIp, session.peerPort, session.localIp, `port ${target.port} is not the workload's`);
    session.refuse(streamId, 503, endStream);
    return;
  }
  const peer = { ip: session.peerIp, port: session.peerPort }, told = target.proxyDestination;
  const header = told && proxyHeader(peer, told, session.identity === undefined ? "" : session.identityUri);
  if (told !== undefined && header === undefined) {
    shard.logSessionEnd(session.peerIp, session.peerPort, session.localIp, "the identity fits no PROXY header");
    session.refuse(streamId, 503, endStream);
    return;
  }
  const row = shard.rows.acquire(pod.row, Direction.INBOUND, ConnectionKind.HBONE, shard.unixNowMs());
  if (row < 0) {
    session.refuse(streamId, 503, endStream);
    return;
  }
  const forwardedHost = parseForwardedHost(textOf(head.bytes, head.forwardedStart, head.forwardedEnd));
  fillRow(shard, row, session, target.port);
  if (forwardedHost !== undefined) shard.rows.setHost(row, forwardedHost);
  const flow = acquireFlow(session, local, target.port, forwardedHost);
  const trace = shard.tellsPolicies
    ? parseTraceparent(textOf(head.bytes, head.traceparentStart, head.traceparentEnd))
    : undefined;
  const verdict = shard.judge.verdictOn(row, local, session.identity, trace?.traceId);
  if (!verdict.allowed) {
    session.refuse(streamId, 401, endStream);
    const error = `connection closed due to policy rejection: ${verdict.by}`;
    refuseRequest(shard, row, flow, ResponseFlag.DENY, text, error);
    return;
  }
  const byLoopback = header !== undefined && shard.localhostAppTunnel;
  const source = pod.transparent && !byLoopback ? session.peerIp : undefined;
  const ip = byLoopback ? loopbackOf(session.localIp) : session.localIp;
  const application = SocketUse.APPLICATION;
  const fd = shard.sockets.connect(pod, ip[0], ip[1], ip[2], ip[3], target.connectPort, source, application);
  if (fd < 0) {
    session.refuse(streamId, 503, endStream);
    refuseRequest(shard, row, flow, ResponseFlag.CONNECT, text, `connect to the application failed (errno ${-fd})`);
    return;
  }
  const baggage = shard.responseBaggage ? shard.baggageOf(local) : "";
  const tunnel = new InboundTunnel(session, pod, row, streamId, fd, { endStream, baggage, header });
  tunnel.authority = text;
  tunnel.flow = flow;
  tunnel.facts = { workload: local, identity: session.identity };
  shard.flows.countOpened(flow);
  reportOpened(tunnel);
  tunnel.start();
}

function fillRow(shard: Shard, row: number, session: ServerSession, port: number): void {
  const { peerIp, localIp } = session;
  shard.rows.setSource(row, peerIp[0], peerIp[1], peerIp[2], peerIp[3], session.peerPort);
  shard.rows.setDestination(row, localIp[0], localIp[1], localIp[2], localIp[3], port);
  shard.rows.setActual(row, localIp[0], localIp[1], localIp[2], localIp[3], 15008); // ZT-202
}

/** The flow that counts the request (ZT-099, ZT-104). */
function acquireFlow(session: ServerSession, local: Workload, port: number, forwardedHost: string | undefined): number {
  const { shard } = session, head = shard.requestHead, [word0, word1, word2, word3] = session.peerIp;
  const network = textOf(head.bytes, head.networkStart, head.networkEnd);
  const foreign = head.networkSaid && network.toLowerCase() !== shard.network.toLowerCase();
  const source = foreign ? undefined : shard.view.workloadAt(shard.network, word0, word1, word2, word3);
  if (source === undefined && !foreign) shard.onDemand?.wish(addressName(shard.network, word0, word1, word2, word3));
  const baggage = source === undefined && shard.responseBaggage && head.baggageEnd > 0 // One switch for both ways (ZT-056).
    ? parseBaggage(textOf(head.baggageBytes, 0, head.baggageEnd))
    : undefined;
  return shard.flows.acquire(
    Direction.INBOUND,
    true,
    source,
    session.identityUri,
    baggage,
    local,
    formatIdentity(local),
    undefined,
    inboundService(shard.view, local, forwardedHost, port),
  );
}
