/** One HBONE session: HTTP/2 over mutual TLS with one upstream or downstream, and the tunnels in it. Both sides share this. */
import { assert } from "../../base/assert.ts";
import { Deadline } from "../../base/timer_wheel.ts";
import { HandshakeStep, type RecordOpener, type TlsHandshake } from "../../os/api.ts";
import { readUint31, readUint32 } from "../../wire/bytes.ts";
import { checkGrowth, checkInitialWindowChange } from "../../wire/h2/flow_window.ts";
import { CLIENT_PREFACE, errorName, FrameFlag, FrameType, H2Error } from "../../wire/h2/frame_rules.ts";
import * as frames from "../../wire/h2/frame_writers.ts";
import { HpackDecoder } from "../../wire/h2/hpack_decoder.ts";
import { DISCARD } from "../../wire/h2/request_check.ts";
import {
  AnnouncedSettings,
  HBONE_CLIENT_SETTINGS,
  HBONE_CONNECTION_WINDOW_BYTES,
  HBONE_CONNECTION_WINDOW_GROWTH,
  HBONE_FRAME_PAYLOAD_BYTES_MAX,
  HBONE_SERVER_SETTINGS,
  HBONE_STREAM_WINDOW_BYTES,
  readSettings,
} from "../../wire/h2/settings.ts";
import { GATHER_MAX, PEER_RECORD_BYTES_MAX, RECEIVE_BYTES, RECORD_HEADER_BYTES } from "./buffers.ts";
import { FrameReceiver, type FrameSink } from "./frame_receiver.ts";
import {
  type Flushable,
  POLL_BOTH_EDGES,
  POLL_ERROR,
  POLL_HANGUP,
  POLL_OUT,
  POLL_READ_HANGUP,
  POLL_READABLE,
  type Pollable,
  type Resumable,
} from "./reactor.ts";
import { BLOCKED, RecordSender } from "./record_sender.ts";
import type { Shard } from "./shard.ts";
import type { Tunnel } from "./tunnel.ts";

const EAGAIN = 11;
const HANDSHAKE_RECORD = 22, ALERT_RECORD = 21, APPLICATION_RECORD = 23;
const NEW_SESSION_TICKET = 4, KEY_UPDATE = 24;
/** Alerts (RFC 8446 §6). */
const Alert = { CLOSE_NOTIFY: 0, UNEXPECTED_MESSAGE: 10, BAD_RECORD_MAC: 20, RECORD_OVERFLOW: 22, DECODE_ERROR: 50 };
const ALERT_WARNING = 1, ALERT_FATAL = 2;

/** No handshake takes longer; a silent peer costs one descriptor for this time. */
export const HANDSHAKE_TIMEOUT_MS = 10_000;
const PING_INTERVAL_MS = 10_000, PING_TIMEOUT_MS = 20_000; // ZT-063
/** Legal oddities a peer may show: this many at once, and so many more each second, before it is told to calm down. */
const GLITCHES_MAX = 2_000, GLITCHES_PER_MS = 0.2;
/** Frames that wait for a blocked socket; a peer that provokes more does not read what it asks for. */
const CONTROL_BYTES_MAX = 65_536;
const HEADER_BLOCK_BYTES_MAX = 65_536 + 1024;
const POST_HANDSHAKE_BYTES_MAX = 18_432;
const STREAM_ID_MAX = 0x7fffffff;

export const SessionPhase = { HANDSHAKE: 0, OPEN: 1, CLOSED: 2 } as const;

/** What a session ends with: the text for the log, and whether an error was behind it. */
export interface SessionEnd {
  readonly reason: string;
  readonly stage: "tls" | "identity" | "h2" | "closed" | "timeout" | "connect" | "drain" | "policy";
}

export abstract class HboneSession implements Pollable, Flushable, Resumable, FrameSink {
  readonly shard: Shard;
  readonly fd: number;
  readonly server: boolean;
  readonly tunnels = new Map<number, Tunnel>();
  readonly announced = new AnnouncedSettings();
  phase: number = SessionPhase.HANDSHAKE;
  /** Told or heard that no new streams come. */
  goingAway = false;
  sendWindow = 65_535;
  protected sender: RecordSender | null = null;
  protected readonly decoder: HpackDecoder;
  protected lastStreamId = 0;
  #row = -1;
  #handshake: TlsHandshake | null;
  #opener: RecordOpener | null = null;
  readonly #receiver: FrameReceiver;
  readonly #deadline = new Deadline(() => this.#onDeadline());
  #flushAsked = false;
  #resumeAsked = false;
  #hungUp = false;
  #waiting: Tunnel[] = [];
  #control: Uint8Array | null = null;
  #controlBytes = 0;
  #inControl = false;
  #keyUpdateOwed = false;
  #carry: Uint8Array | null = null;
  #carryBytes = 0;
  #postHandshake: Uint8Array | null = null;
  #postHandshakeBytes = 0;
  // Input: the DATA frame under way, and pieces of it that wait to be written together.
  #dataTunnel: Tunnel | null = null;
  #dataFlowBytes = 0;
  #gatherTunnel: Tunnel | null = null;
  #gatherCount = 0;
  #gatherBytes = 0;
  #receiveWindow = HBONE_CONNECTION_WINDOW_BYTES;
  #creditBytes = 0;
  #prefaceBytes = 0;
  // Input: the header block under way.
  #blockStreamId = 0;
  #blockEndStream = false;
  #block: Uint8Array | null = null;
  #blockBytes = 0;
  #pingOutstanding = false;
  #glitches = 0;
  #glitchesAtMs = 0;
  #openedAtMs = 0;

  constructor(shard: Shard, fd: number, handshake: TlsHandshake | null, server: boolean) {
    this.shard = shard;
    this.fd = fd;
    this.server = server;
    this.#handshake = handshake;
    this.#receiver = new FrameReceiver(this, HBONE_FRAME_PAYLOAD_BYTES_MAX);
    this.decoder = new HpackDecoder(4096, server ? 65_536 : 16_384, shard.hpackScratch);
    this.#openedAtMs = shard.reactor.nowMs;
    this.#glitchesAtMs = this.#openedAtMs;
  }

  /** Judges the peer's certificate names once the handshake is through. @returns undefined, or why it is refused. */
  protected abstract verify(uris: readonly string[]): string | undefined;
  /** The session carries frames from now on. */
  protected abstract onOpen(): void;
  /** A complete header block of the stream, in bytes[start..end). @returns 0 or an H2Error that ends the session. */
  protected abstract onHeaderBlock(
    streamId: number,
    endStream: boolean,
    bytes: Uint8Array,
    start: number,
    end: number,
  ): number;
  /** The peer takes no more streams; those above the last it names were never looked at. */
  protected abstract onGoaway(lastStreamId: number, error: number): void;
  /** The last thing: every tunnel has been told already. */
  protected abstract onClosed(end: SessionEnd): void;
  /** A stream has gone; there may be room for another, or nothing left to do. */
  protected abstract onTunnelGone(): void;

  /** Starts watching the socket. @returns false if the kernel refuses; the session is closed then. */
  watch(): boolean {
    const reactor = this.shard.reactor;
    reactor.timers.set(this.#deadline, HANDSHAKE_TIMEOUT_MS, reactor.nowMs);
    const row = reactor.watch(this.fd, POLL_BOTH_EDGES, this);
    if (row < 0) {
      this.die({ reason: "the kernel watches no more descriptors", stage: "connect" });
      return false;
    }
    this.#row = row;
    return true;
  }

  /** Gives the handshake to a session whose socket had to connect first. */
  protected startHandshake(handshake: TlsHandshake): void {
    this.#handshake = handshake;
    this.#stepHandshake();
  }

  onEvents(events: number): void {
    if (this.phase === SessionPhase.CLOSED) return;
    if ((events & (POLL_READ_HANGUP | POLL_HANGUP | POLL_ERROR)) !== 0) this.#hungUp = true;
    if (this.phase === SessionPhase.HANDSHAKE) {
      if (this.#handshake !== null) this.#stepHandshake();
      else this.onConnecting(events);
      return;
    }
    if ((events & POLL_OUT) !== 0 && this.sender!.blocked) this.#onWritable();
    if ((events & POLL_READABLE) !== 0) this.#receive();
  }

  /** Events before there is a handshake: the client side's connect. */
  protected onConnecting(_events: number): void {}

  onResume(): void {
    this.#resumeAsked = false;
    if (this.phase === SessionPhase.OPEN) this.#receive();
  }

  onFlush(): void {
    this.#flushAsked = false;
    if (this.phase !== SessionPhase.OPEN) return;
    this.sender!.flush();
    if (this.sender!.broken) this.die({ reason: "send: the connection broke", stage: "closed" });
  }

  protected askFlush(): void {
    if (this.#flushAsked) return;
    this.#flushAsked = true;
    this.shard.reactor.flushLater(this);
  }

  // ---- handshake

  #stepHandshake(): void {
    const handshake = this.#handshake!;
    const step = handshake.step();
    if (step === HandshakeStep.WANTS_READ || step === HandshakeStep.WANTS_WRITE) return;
    if (step === HandshakeStep.FAILED) {
      this.shard.countHandshakeFailure();
      this.die({ reason: `TLS handshake failed: ${handshake.failure()}`, stage: "tls" });
      return;
    }
    const refused = this.verify(handshake.peerUris());
    const taken = handshake.takeRecords();
    this.#handshake = null;
    this.#opener = taken.opener;
    this.sender = new RecordSender(this.shard.os, this.shard.buffers, this.fd, taken.sealer, {
      onStageShortage: () => this.shard.reactor.flush(),
      recordsPerKey: this.shard.recordsPerKey,
    });
    this.phase = SessionPhase.OPEN;
    if (refused !== undefined) {
      this.shard.countHandshakeFailure();
      this.die({ reason: refused, stage: "identity" });
      return;
    }
    this.shard.countHandshake();
    const reactor = this.shard.reactor;
    this.#pingOutstanding = false;
    reactor.timers.set(this.#deadline, PING_INTERVAL_MS, reactor.nowMs);
    this.#greet();
    this.onOpen();
    if (this.phase === SessionPhase.OPEN) this.#receive(); // What came with the last flight gives no event of its own.
  }

  #greet(): void {
    const u8 = this.shard.os.memory.u8, start = this.sender!.reserve(128);
    assert(start >= 0, "a new session has room for its greeting");
    let at = start;
    if (!this.server) at = frames.writeClientPreface(u8, at);
    at = frames.writeSettings(u8, at, this.server ? HBONE_SERVER_SETTINGS : HBONE_CLIENT_SETTINGS);
    at = frames.writeWindowUpdate(u8, at, 0, HBONE_CONNECTION_WINDOW_GROWTH);
    this.sender!.commit(at - start);
    this.askFlush();
  }

  // ---- deadlines

  #onDeadline(): void {
    if (this.phase === SessionPhase.HANDSHAKE) {
      this.die(this.timeoutEnd());
      return;
    }
    if (this.#pingOutstanding) {
      this.die({ reason: "no answer to PING within 20 s", stage: "timeout" });
      return;
    }
    this.#pingOutstanding = true;
    const at = this.reserveControl(17);
    if (at >= 0) this.commitControl(at, frames.writePing(this.controlTarget, at, 0x616d6269, 0x74, false));
    if (this.phase === SessionPhase.CLOSED) return;
    this.shard.reactor.timers.set(this.#deadline, PING_TIMEOUT_MS, this.shard.reactor.nowMs);
  }

  /** What a handshake that takes too long is called. */
  protected timeoutEnd(): SessionEnd {
    return { reason: "TLS handshake timed out", stage: "tls" };
  }

  // ---- output

  /**
   * Room for a control frame of `bytes`; while the socket is blocked, control frames collect in a buffer of their own.
   * @returns Where in {@link controlTarget} to write, or -1 when the session had to
   * end because the peer reads nothing. {@link commitControl} follows at once.
   */
  protected reserveControl(bytes: number): number {
    if (this.phase !== SessionPhase.OPEN) return -1;
    if (this.#controlBytes === 0) {
      const at = this.sender!.reserve(bytes);
      if (at >= 0) {
        this.#inControl = false;
        return at;
      }
    }
    if (this.#controlBytes + bytes > CONTROL_BYTES_MAX) {
      this.die({ reason: "the peer asks for more than it reads", stage: "h2" });
      return -1;
    }
    this.#control ??= new Uint8Array(CONTROL_BYTES_MAX);
    this.#inControl = true;
    return this.#controlBytes;
  }

  /** The buffer that the last {@link reserveControl} spoke of. */
  protected get controlTarget(): Uint8Array {
    return this.#inControl ? this.#control! : this.shard.os.memory.u8;
  }

  protected commitControl(start: number, end: number): void {
    if (this.#inControl) this.#controlBytes += end - start;
    else {
      this.sender!.commit(end - start);
      this.askFlush();
    }
  }

  resetStream(streamId: number, error: number): void {
    const at = this.reserveControl(13);
    if (at >= 0) this.commitControl(at, frames.writeRstStream(this.controlTarget, at, streamId, error));
  }

  #windowUpdate(streamId: number, increment: number): boolean {
    const at = this.sender!.reserve(13);
    if (at < 0) return false; // Credit waits: it is said when the socket takes bytes again.
    this.sender!.commit(frames.writeWindowUpdate(this.shard.os.memory.u8, at, streamId, increment) - at);
    this.askFlush();
    return true;
  }

  /** Says that no further streams are taken; those open run on (ZT-076). */
  goAway(lastStreamId: number, error: number): void {
    this.goingAway = true;
    const at = this.reserveControl(17);
    if (at >= 0) this.commitControl(at, frames.writeGoaway(this.controlTarget, at, lastStreamId, error));
  }

  #onWritable(): void {
    const sender = this.sender!;
    if (!sender.onWritable()) return;
    if (sender.broken) {
      this.die({ reason: "send: the connection broke", stage: "closed" });
      return;
    }
    if (this.#keyUpdateOwed) this.#keyUpdateOwed = !sender.updateKey();
    for (let from = 0; from < this.#controlBytes;) {
      const part = Math.min(16_000, this.#controlBytes - from);
      const at = sender.reserve(part);
      if (at < 0) {
        this.#control!.copyWithin(0, from, this.#controlBytes);
        this.#controlBytes -= from;
        return;
      }
      this.shard.os.memory.u8.set(this.#control!.subarray(from, from + part), at);
      sender.commit(part);
      from += part;
    }
    this.#controlBytes = 0;
    this.#control = null;
    this.#sayCredits();
    this.askFlush();
    this.#wakeWaiting();
  }

  #sayCredits(): void {
    this.#saySessionCredit();
    for (const tunnel of this.tunnels.values()) this.#sayTunnelCredit(tunnel);
  }

  #saySessionCredit(): void {
    if (this.#creditBytes < HBONE_CONNECTION_WINDOW_BYTES >> 2) return;
    if (!this.#windowUpdate(0, this.#creditBytes)) return;
    this.#receiveWindow += this.#creditBytes;
    this.#creditBytes = 0;
  }

  #sayTunnelCredit(tunnel: Tunnel): void {
    if (tunnel.creditBytes < HBONE_STREAM_WINDOW_BYTES >> 2 || tunnel.endReceived) return;
    if (!this.#windowUpdate(tunnel.streamId, tunnel.creditBytes)) return;
    tunnel.receiveWindow += tunnel.creditBytes;
    tunnel.creditBytes = 0;
  }

  /** Bytes of a stream that the application took, or that nobody will take: the peer may send as many again. */
  credit(tunnel: Tunnel | null, bytes: number): void {
    if (this.phase !== SessionPhase.OPEN) return;
    this.#creditBytes += bytes;
    this.#saySessionCredit();
    if (tunnel === null) return;
    tunnel.creditBytes += bytes;
    this.#sayTunnelCredit(tunnel);
  }

  /** Moves bytes from the tunnel's application to its stream; at most one stage of them. */
  pull(tunnel: Tunnel): void {
    const sender = this.sender!;
    if (sender.blocked || this.sendWindow <= 0) {
      this.#wait(tunnel);
      return;
    }
    if (tunnel.endOwed) {
      this.#sendEnd(tunnel);
      return;
    }
    const window = tunnel.sendWindow < this.sendWindow ? tunnel.sendWindow : this.sendWindow;
    if (window <= 0) return; // The stream's WINDOW_UPDATE goes on from here.
    const got = sender.read(tunnel.fd, tunnel.streamId, window, tunnel.bulk);
    if (got <= 0) {
      if (got === BLOCKED) {
        if (sender.broken) this.askFlush();
        else this.#wait(tunnel);
        return;
      }
      tunnel.readable = false;
      if (got === -EAGAIN) return;
      tunnel.endOwed = true; // A reset of the application's side is the end of its direction (ZT-066).
      this.#sendEnd(tunnel);
      return;
    }
    tunnel.sendWindow -= got;
    this.sendWindow -= got;
    tunnel.countFromApplication(got);
    this.askFlush();
    if (got < sender.wantedBytes) { // The socket is drained: news comes as an edge, except an end already told.
      if (tunnel.hungUp) tunnel.resumeSoon();
      else tunnel.readable = false;
      if (got < 8192) tunnel.bulk = false;
      return;
    }
    tunnel.bulk = true;
    if (sender.nearlyFull) {
      sender.flush();
      if (sender.broken) return;
    }
    tunnel.resumeSoon();
  }

  #sendEnd(tunnel: Tunnel): void {
    const at = this.sender!.reserve(9);
    if (at < 0) {
      this.#wait(tunnel);
      return;
    }
    this.sender!.commit(frames.writeDataHeader(this.shard.os.memory.u8, at, tunnel.streamId, 0, true) - at);
    this.askFlush();
    tunnel.endOwed = false;
    tunnel.endSent = true;
    tunnel.finishIfDone();
  }

  #wait(tunnel: Tunnel): void {
    if (tunnel.waiting) return;
    tunnel.waiting = true;
    this.#waiting.push(tunnel);
  }

  #wakeWaiting(): void {
    if (this.#waiting.length === 0) return;
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const tunnel of waiting) {
      tunnel.waiting = false;
      tunnel.resumeSoon();
    }
  }

  // ---- input

  #receive(): void {
    const { os, buffers } = this.shard, memory = os.memory, u8 = memory.u8, base = buffers.receiveAt;
    let have = this.#carryBytes;
    if (have > 0) u8.set(have === this.#carry!.length ? this.#carry! : this.#carry!.subarray(0, have), base);
    const wanted = RECEIVE_BYTES - have;
    const got = os.receive(this.fd, memory.base + base + have, wanted);
    if (got <= 0) {
      if (got !== -EAGAIN) {
        this.die({ reason: got === 0 ? "the peer closed the connection" : "the connection broke", stage: "closed" });
      }
      return;
    }
    have += got;
    let at = base;
    const end = base + have;
    while (end - at >= RECORD_HEADER_BYTES) {
      const recordBytes = RECORD_HEADER_BYTES + (u8[at + 3]! << 8 | u8[at + 4]!);
      if (recordBytes > PEER_RECORD_BYTES_MAX) return this.#fail(Alert.RECORD_OVERFLOW, "a TLS record over its limit");
      if (end - at < recordBytes) break;
      if (!this.#openRecord(at, recordBytes)) return;
      at += recordBytes;
    }
    this.#flushGather();
    if (this.phase !== SessionPhase.OPEN) return;
    this.#keepCarry(at, end);
    if (got < wanted && !this.#hungUp) return;
    if (this.#resumeAsked) return;
    this.#resumeAsked = true;
    this.shard.reactor.resumeLater(this);
  }

  #keepCarry(at: number, end: number): void {
    this.#carryBytes = end - at;
    if (this.#carryBytes === 0) {
      if (this.#carry !== null) this.shard.releaseCarry(this.#carry);
      this.#carry = null;
      return;
    }
    this.#carry ??= this.shard.acquireCarry();
    this.#carry.set(this.shard.os.memory.u8.subarray(at, end));
  }

  /** @returns false when the session ended. */
  #openRecord(at: number, recordBytes: number): boolean {
    const u8 = this.shard.os.memory.u8;
    if (u8[at] !== APPLICATION_RECORD) return this.#fail(Alert.UNEXPECTED_MESSAGE, "an unprotected TLS record"), false;
    let bytes = this.#opener!.open(at, recordBytes);
    if (bytes < 0) return this.#fail(Alert.BAD_RECORD_MAC, "a TLS record that does not open"), false;
    const start = at + RECORD_HEADER_BYTES;
    while (bytes > 0 && u8[start + bytes - 1] === 0) bytes--; // Padding (RFC 8446 §5.4)
    if (bytes === 0) return this.#fail(Alert.UNEXPECTED_MESSAGE, "a TLS record without a content type"), false;
    const type = u8[start + bytes - 1]!, end = start + bytes - 1;
    if (end - start > 16384) return this.#fail(Alert.RECORD_OVERFLOW, "a TLS record over its limit"), false;
    if (type === APPLICATION_RECORD) {
      if (this.#postHandshakeBytes > 0) {
        return this.#fail(Alert.UNEXPECTED_MESSAGE, "data inside a handshake message"), false;
      }
      if (end === start && !this.glitch()) return false;
      return this.#takePlaintext(start, end);
    }
    if (type === HANDSHAKE_RECORD) return this.#takePostHandshake(start, end);
    if (type !== ALERT_RECORD || end - start !== 2) {
      return this.#fail(Alert.UNEXPECTED_MESSAGE, "an unknown TLS record"), false;
    }
    this.#flushGather();
    if (this.phase !== SessionPhase.OPEN) return false;
    const alert = u8[start + 1]!;
    this.die(
      alert === Alert.CLOSE_NOTIFY
        ? { reason: "the peer closed the connection", stage: "closed" }
        : { reason: `the peer sent TLS alert ${alert}`, stage: "tls" },
    );
    return false;
  }

  #takePlaintext(start: number, end: number): boolean {
    const u8 = this.shard.os.memory.u8;
    if (this.server && this.#prefaceBytes < CLIENT_PREFACE.length) {
      while (start < end && this.#prefaceBytes < CLIENT_PREFACE.length) {
        if (u8[start] !== CLIENT_PREFACE[this.#prefaceBytes]) {
          this.die({ reason: "not HTTP/2: wrong client preface", stage: "h2" });
          return false;
        }
        start++;
        this.#prefaceBytes++;
      }
    }
    const error = this.#receiver.receive(u8, start, end);
    if (error !== 0) this.failH2(error);
    return this.phase === SessionPhase.OPEN;
  }

  /** Handshake messages after the handshake: tickets are dropped, keys are updated (RFC 8446 §4.6). */
  #takePostHandshake(start: number, end: number): boolean {
    if (!this.glitch()) return false;
    const bytes = end - start, used = this.#postHandshakeBytes;
    if (bytes === 0 || used + bytes > POST_HANDSHAKE_BYTES_MAX) {
      return this.#fail(Alert.UNEXPECTED_MESSAGE, "a handshake message over its limit"), false;
    }
    const buffer = this.#postHandshake ??= new Uint8Array(POST_HANDSHAKE_BYTES_MAX);
    buffer.set(this.shard.os.memory.u8.subarray(start, end), used);
    let at = 0;
    const have = used + bytes;
    while (have - at >= 4) {
      const type = buffer[at]!, length = buffer[at + 1]! << 16 | buffer[at + 2]! << 8 | buffer[at + 3]!;
      if (type === KEY_UPDATE) {
        if (length !== 1) return this.#fail(Alert.DECODE_ERROR, "a malformed KeyUpdate"), false;
        if (have - at < 5) break;
        // Keys change between records: nothing may follow in this one (RFC 8446 §5.1).
        if (have - at !== 5 || buffer[at + 4]! > 1) {
          return this.#fail(Alert.UNEXPECTED_MESSAGE, "a misplaced KeyUpdate"), false;
        }
        this.#opener!.nextKey();
        if (buffer[at + 4] === 1 && !this.#keyUpdateOwed) this.#keyUpdateOwed = !this.sender!.updateKey();
        this.askFlush();
        at = have;
        break;
      }
      if (type !== NEW_SESSION_TICKET || this.server) {
        return this.#fail(Alert.UNEXPECTED_MESSAGE, `handshake message ${type} after the handshake`), false;
      }
      if (length > POST_HANDSHAKE_BYTES_MAX - 4) {
        return this.#fail(Alert.DECODE_ERROR, "a ticket over its limit"), false;
      }
      if (have - at < 4 + length) break;
      at += 4 + length;
    }
    buffer.copyWithin(0, at, have);
    this.#postHandshakeBytes = have - at;
    if (this.#postHandshakeBytes === 0) this.#postHandshake = null;
    return true;
  }

  onData(streamId: number, flowBytes: number): number {
    if (this.#blockStreamId !== 0) return H2Error.PROTOCOL_ERROR;
    if (streamId > this.lastStreamId || (streamId & 1) === 0) return H2Error.PROTOCOL_ERROR; // an idle stream
    if (flowBytes > this.#receiveWindow) return H2Error.FLOW_CONTROL_ERROR;
    this.#receiveWindow -= flowBytes;
    this.#dataFlowBytes = flowBytes;
    const tunnel = this.tunnels.get(streamId) ?? null;
    this.#dataTunnel = tunnel;
    if (tunnel === null) return 0;
    if (tunnel.endReceived) return H2Error.STREAM_CLOSED;
    if (flowBytes > tunnel.receiveWindow) return H2Error.FLOW_CONTROL_ERROR;
    tunnel.receiveWindow -= flowBytes;
    return 0;
  }

  onDataPiece(at: number, bytes: number): void {
    const tunnel = this.#dataTunnel;
    if (tunnel === null || tunnel.closed) {
      this.credit(null, bytes); // The stream was given up: its bytes still count against the session.
      return;
    }
    if (!tunnel.writable) {
      tunnel.keep(at, bytes);
      return;
    }
    const buffers = this.shard.buffers;
    if (this.#gatherTunnel !== tunnel || this.#gatherCount === GATHER_MAX) this.#flushGather();
    if (tunnel.closed || !tunnel.writable) {
      if (tunnel.closed) this.credit(null, bytes);
      else tunnel.keep(at, bytes);
      return;
    }
    this.#gatherTunnel = tunnel;
    buffers.setIovec(buffers.gatherAt + 16 * this.#gatherCount, buffers.memory.base + at, bytes);
    this.#gatherCount++;
    this.#gatherBytes += bytes;
  }

  onDataEnd(endStream: boolean, paddingBytes: number): void {
    const tunnel = this.#dataTunnel;
    this.#dataTunnel = null;
    if (this.#dataFlowBytes === 0 && !endStream && !this.glitch()) return; // DATA that says nothing
    if (paddingBytes > 0) this.credit(tunnel !== null && !tunnel.closed ? tunnel : null, paddingBytes);
    if (!endStream || tunnel === null || tunnel.closed) return;
    if (this.#gatherTunnel === tunnel) this.#flushGather();
    if (!tunnel.closed) tunnel.onEndReceived();
  }

  #flushGather(): void {
    const tunnel = this.#gatherTunnel;
    if (tunnel === null) return;
    const count = this.#gatherCount, bytes = this.#gatherBytes, buffers = this.shard.buffers, os = this.shard.os;
    this.#gatherTunnel = null;
    this.#gatherCount = 0;
    this.#gatherBytes = 0;
    if (tunnel.closed) {
      this.credit(null, bytes);
      return;
    }
    const u32 = os.memory.u32, first = buffers.gatherAt >> 2;
    let sent = count === 1
      ? os.send(tunnel.fd, u32[first]!, bytes)
      : os.sendVector(tunnel.fd, os.memory.base + buffers.gatherAt, count);
    if (sent < 0) {
      if (sent !== -EAGAIN) {
        this.credit(null, bytes);
        tunnel.onWriteFailed(-sent);
        return;
      }
      sent = 0;
    }
    if (sent > 0) tunnel.countToApplication(sent);
    if (sent === bytes) return;
    let skip = sent;
    for (let index = 0; index < count; index++) {
      const word = first + 4 * index, length = u32[word + 2]!;
      if (skip >= length) skip -= length;
      else {
        tunnel.keep(u32[word]! - os.memory.base + skip, length - skip);
        skip = 0;
      }
    }
  }

  onFrame(type: number, flags: number, streamId: number, bytes: Uint8Array, start: number, end: number): number {
    if (this.#blockStreamId !== 0 && (type !== FrameType.CONTINUATION || streamId !== this.#blockStreamId)) {
      return H2Error.PROTOCOL_ERROR; // RFC 9113 §6.10: nothing may come between the parts of a header block.
    }
    switch (type) {
      case FrameType.HEADERS:
        return this.#onHeaders(flags, streamId, bytes, start, end);
      case FrameType.CONTINUATION:
        return this.#onContinuation(flags, bytes, start, end);
      case FrameType.RST_STREAM:
        return this.#onReset(streamId, readUint32(bytes, start));
      case FrameType.SETTINGS:
        return this.#onSettings(flags, bytes, start, end);
      case FrameType.PING:
        return this.#onPing(flags, bytes, start);
      case FrameType.GOAWAY:
        if (!this.glitch()) return 0;
        this.goingAway = true;
        this.onGoaway(readUint31(bytes, start), readUint32(bytes, start + 4));
        return 0;
      case FrameType.WINDOW_UPDATE:
        return this.#onWindowUpdate(streamId, readUint31(bytes, start));
      case FrameType.PUSH_PROMISE:
        return H2Error.PROTOCOL_ERROR; // Clients do not push, and we announced ENABLE_PUSH=0.
      default:
        this.glitch(); // PRIORITY and unknown frames mean nothing to us.
        return 0;
    }
  }

  #onHeaders(flags: number, streamId: number, bytes: Uint8Array, start: number, end: number): number {
    if ((flags & FrameFlag.PADDED) !== 0) {
      if (start === end) return H2Error.FRAME_SIZE_ERROR;
      const padding = bytes[start++]!;
      if (padding > end - start) return H2Error.PROTOCOL_ERROR;
      end -= padding;
    }
    if ((flags & FrameFlag.PRIORITY) !== 0) {
      if (end - start < 5) return H2Error.FRAME_SIZE_ERROR;
      start += 5;
    }
    const endStream = (flags & FrameFlag.END_STREAM) !== 0;
    if ((flags & FrameFlag.END_HEADERS) !== 0) return this.onHeaderBlock(streamId, endStream, bytes, start, end);
    this.#blockStreamId = streamId;
    this.#blockEndStream = endStream;
    this.#block ??= new Uint8Array(HEADER_BLOCK_BYTES_MAX);
    this.#blockBytes = 0;
    return this.#appendBlock(bytes, start, end);
  }

  #onContinuation(flags: number, bytes: Uint8Array, start: number, end: number): number {
    if (this.#blockStreamId === 0) return H2Error.PROTOCOL_ERROR;
    if (start === end && !this.glitch()) return 0;
    const refused = this.#appendBlock(bytes, start, end);
    if (refused !== 0 || (flags & FrameFlag.END_HEADERS) === 0) return refused;
    const block = this.#block!, streamId = this.#blockStreamId;
    this.#block = null;
    this.#blockStreamId = 0;
    return this.onHeaderBlock(streamId, this.#blockEndStream, block, 0, this.#blockBytes);
  }

  #appendBlock(bytes: Uint8Array, start: number, end: number): number {
    if (this.#blockBytes + end - start > HEADER_BLOCK_BYTES_MAX) return H2Error.ENHANCE_YOUR_CALM;
    this.#block!.set(bytes.subarray(start, end), this.#blockBytes);
    this.#blockBytes += end - start;
    return 0;
  }

  #onReset(streamId: number, error: number): number {
    if (streamId > this.lastStreamId || (streamId & 1) === 0) return H2Error.PROTOCOL_ERROR; // an idle stream
    const tunnel = this.tunnels.get(streamId);
    // Opening and resetting streams in a loop must not be free; giving up one that carried bytes is ordinary.
    if ((tunnel === undefined || !tunnel.carries) && !this.glitch()) return 0;
    tunnel?.onStreamReset(error);
    return 0;
  }

  #onSettings(flags: number, bytes: Uint8Array, start: number, end: number): number {
    if (!this.glitch()) return 0;
    const before = this.announced.initialWindowBytes;
    const failed = readSettings(flags, bytes, start, end, this.announced);
    if (failed !== 0) return -failed;
    if ((flags & FrameFlag.ACK) !== 0) return 0;
    const after = this.announced.initialWindowBytes;
    if (after !== before) {
      for (const tunnel of this.tunnels.values()) {
        const wrong = checkInitialWindowChange(tunnel.sendWindow, before, after);
        if (wrong !== 0) return wrong;
        tunnel.sendWindow += after - before;
        tunnel.resumeSoon();
      }
    }
    const at = this.reserveControl(9);
    if (at >= 0) this.commitControl(at, frames.writeSettingsAck(this.controlTarget, at));
    return 0;
  }

  #onPing(flags: number, bytes: Uint8Array, start: number): number {
    if ((flags & FrameFlag.ACK) !== 0) {
      if (!this.#pingOutstanding) return 0;
      this.#pingOutstanding = false;
      this.shard.reactor.timers.set(this.#deadline, PING_INTERVAL_MS, this.shard.reactor.nowMs);
      return 0;
    }
    if (!this.glitch()) return 0;
    const word0 = readUint32(bytes, start), word1 = readUint32(bytes, start + 4);
    const at = this.reserveControl(17);
    if (at >= 0) this.commitControl(at, frames.writePing(this.controlTarget, at, word0, word1, true));
    return 0;
  }

  #onWindowUpdate(streamId: number, increment: number): number {
    if (streamId === 0) {
      const wrong = checkGrowth(this.sendWindow, increment);
      if (wrong !== 0) return wrong;
      const wasShut = this.sendWindow <= 0;
      this.sendWindow += increment;
      if (wasShut) this.#wakeWaiting();
      return 0;
    }
    if (streamId > this.lastStreamId || (streamId & 1) === 0) return H2Error.PROTOCOL_ERROR; // an idle stream
    const tunnel = this.tunnels.get(streamId);
    if (tunnel === undefined) return 0;
    const wrong = checkGrowth(tunnel.sendWindow, increment);
    if (wrong !== 0) {
      tunnel.fail(wrong, `the peer broke flow control: ${errorName(wrong)}`);
      return 0;
    }
    tunnel.sendWindow += increment;
    tunnel.resumeSoon();
    return 0;
  }

  /** Decodes a block whose headers nobody wants, so that the table stays the sender's. @returns 0 or an H2Error. */
  protected skipBlock(bytes: Uint8Array, start: number, end: number): number {
    const result = this.decoder.decode(bytes, start, end, DISCARD);
    return result < 0 ? -result : 0;
  }

  // ---- streams

  /** Adds a tunnel as this stream. */
  attach(tunnel: Tunnel, streamId: number): void {
    assert(!this.tunnels.has(streamId) && streamId <= STREAM_ID_MAX, "a stream belongs to one tunnel");
    tunnel.session = this;
    tunnel.streamId = streamId;
    tunnel.sendWindow = this.announced.initialWindowBytes;
    tunnel.receiveWindow = HBONE_STREAM_WINDOW_BYTES;
    this.tunnels.set(streamId, tunnel);
  }

  /** The tunnel has ended; `unreadBytes` of it that were received will be taken by nobody. */
  detach(tunnel: Tunnel, unreadBytes: number): void {
    this.tunnels.delete(tunnel.streamId);
    if (this.#gatherTunnel === tunnel) {
      unreadBytes += this.#gatherBytes;
      this.#gatherTunnel = null;
      this.#gatherCount = 0;
      this.#gatherBytes = 0;
    }
    if (this.phase !== SessionPhase.OPEN) return;
    if (unreadBytes > 0) this.credit(null, unreadBytes);
    this.onTunnelGone();
  }

  // ---- end

  /** Counts a legal oddity. @returns false when it was one too many, and the session has ended. */
  protected glitch(): boolean {
    this.#glitches++;
    if (this.#glitches <= GLITCHES_MAX) return true;
    const nowMs = this.shard.reactor.nowMs;
    this.#glitches -= Math.floor(Math.min(this.#glitches, (nowMs - this.#glitchesAtMs) * GLITCHES_PER_MS));
    this.#glitchesAtMs = nowMs;
    if (this.#glitches <= GLITCHES_MAX) return true;
    this.shard.countGlitch();
    this.failH2(H2Error.ENHANCE_YOUR_CALM);
    return false;
  }

  /** Ends the session for a broken rule of HTTP/2. */
  protected failH2(error: number): void {
    if (this.phase !== SessionPhase.OPEN) return;
    this.#flushGather();
    if (this.phase !== SessionPhase.OPEN) return;
    this.shard.countGlitch();
    this.goAway(this.server ? this.lastStreamId : 0, error);
    this.die({ reason: `the peer broke HTTP/2: ${errorName(error)}`, stage: "h2" });
  }

  #fail(alert: number, what: string): void {
    if (this.phase !== SessionPhase.OPEN) return;
    this.#flushGather(); // What came before was authentic.
    if (this.phase !== SessionPhase.OPEN) return;
    this.shard.countGlitch();
    this.sender!.alert(ALERT_FATAL, alert);
    this.die({ reason: `the peer sent ${what}`, stage: "tls" });
  }

  /** Ends the session after saying so: GOAWAY, close_notify, close. Tunnels left in it end with `end`. */
  closeGracefully(end: SessionEnd): void {
    if (this.phase === SessionPhase.OPEN) {
      this.goAway(this.server ? this.lastStreamId : 0, H2Error.NO_ERROR);
      if (this.phase === SessionPhase.OPEN) this.sender!.alert(ALERT_WARNING, Alert.CLOSE_NOTIFY);
    }
    this.die(end);
  }

  /** Ends the session now. Safe to call twice; the second does nothing. */
  die(end: SessionEnd): void {
    if (this.phase === SessionPhase.CLOSED) return;
    if (this.phase === SessionPhase.OPEN) this.sender!.flush(); // An alert or GOAWAY, as far as the socket takes it.
    this.phase = SessionPhase.CLOSED;
    this.goingAway = true;
    const reactor = this.shard.reactor;
    reactor.timers.cancel(this.#deadline);
    if (this.#row >= 0) reactor.forget(this.#row);
    this.#gatherTunnel = null;
    this.#gatherCount = 0;
    this.#gatherBytes = 0;
    this.#waiting = [];
    for (const tunnel of [...this.tunnels.values()]) tunnel.onSessionEnded(end);
    this.tunnels.clear();
    this.#handshake?.free();
    this.#handshake = null;
    this.sender?.free();
    this.#opener?.free();
    this.#opener = null;
    if (this.#carry !== null) this.shard.releaseCarry(this.#carry);
    this.#carry = null;
    this.#control = null;
    this.#block = null;
    this.shard.os.close(this.fd);
    this.onClosed(end);
  }
}
