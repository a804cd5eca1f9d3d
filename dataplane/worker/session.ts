/** One HBONE session: HTTP/2 over mutual TLS with one upstream or downstream, and the tunnels in it. Both sides share this. */
import { assert } from "../../base/assert.ts";
import { Deadline } from "../../base/timer_wheel.ts";
import { HandshakeStep, type PeerPath, type RecordOpener, type TlsHandshake } from "../../os/api.ts";
import { CLIENT_PREFACE, H2Error } from "../../wire/h2/frame_rules.ts";
import * as frames from "../../wire/h2/frame_writers.ts";
import {
  HBONE_CLIENT_SETTINGS,
  HBONE_CONNECTION_WINDOW_GROWTH,
  HBONE_FRAME_PAYLOAD_BYTES_MAX,
  HBONE_SERVER_SETTINGS,
} from "../../wire/h2/settings.ts";
import { CONTENT_BYTES_MAX, PEER_RECORD_BYTES_MAX, RECEIVE_BYTES, RECORD_HEADER_BYTES } from "./buffers.ts";
import { FrameReceiver } from "../../wire/h2/frame_receiver.ts";
import { PostHandshake, PostHandshakeReader } from "./post_handshake.ts";
import {
  POLL_BOTH_EDGES,
  POLL_ERROR,
  POLL_HANGUP,
  POLL_OUT,
  POLL_READ_HANGUP,
  POLL_READABLE,
  type Pollable,
  type Resumable,
} from "./reactor.ts";
import { RecordSender } from "./record_sender.ts";
import type { Watched } from "./revocation_watch.ts";
import { SessionFrames } from "./session_frames.ts";
import { PingWord, REVOKED, type SessionEnd, SessionPhase } from "./session_output.ts";
import type { Shard } from "./shard.ts";
import type { SessionState } from "../tables/takeover_format.ts";

export { type SessionEnd, SessionPhase };

const EAGAIN = 11;
const HANDSHAKE_RECORD = 22, ALERT_RECORD = 21, APPLICATION_RECORD = 23;
/** Alerts (RFC 8446 §6). */
const Alert = { CLOSE_NOTIFY: 0, UNEXPECTED_MESSAGE: 10, BAD_RECORD_MAC: 20, RECORD_OVERFLOW: 22, DECODE_ERROR: 50 };
const ALERT_WARNING = 1, ALERT_FATAL = 2;

/** No handshake takes longer; a silent peer costs one descriptor for this time. */
export const HANDSHAKE_TIMEOUT_MS = 10_000;
/** For a session's last bytes to leave, and for the peer to end it too. */
const CLOSE_TIMEOUT_MS = 5_000;
const PING_INTERVAL_MS = 10_000, PING_TIMEOUT_MS = 20_000; // ZT-063

export abstract class HboneSession extends SessionFrames implements Pollable, Resumable, Watched {
  #row = -1;
  #handshake: TlsHandshake | null;
  #opener: RecordOpener | null = null;
  /** How the peer's certificate led to a root, for revocation lists to be held against. */
  peerPath: PeerPath | null = null;
  readonly #receiver: FrameReceiver;
  readonly #deadline = new Deadline(() => this.#onDeadline());
  #resumeAsked = false;
  #hungUp = false;
  #carry: Uint8Array | null = null;
  #carryBytes = 0;
  readonly #postHandshake: PostHandshakeReader;
  #prefaceBytes = 0;
  #pingOutstanding = false;
  /** Set once the session says goodbye: what it ends with. */
  #closing: SessionEnd | undefined = undefined;
  #goodbyeSaid = false;

  constructor(shard: Shard, fd: number, handshake: TlsHandshake | null, server: boolean) {
    super(shard, fd, server);
    this.#handshake = handshake;
    this.#receiver = new FrameReceiver(this, HBONE_FRAME_PAYLOAD_BYTES_MAX);
    this.#postHandshake = new PostHandshakeReader(server);
  }

  /** Judges the peer's certificate names once the handshake is through. @returns undefined, or why it is refused. */
  protected abstract verify(uris: readonly string[]): string | undefined;

  /** The session carries frames from now on. */
  protected abstract onOpen(): void;

  /** The last thing: every tunnel has been told already. */
  protected abstract onClosed(end: SessionEnd): void;

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
    if ((events & POLL_OUT) !== 0 && this.sender!.blocked) this.onWritable();
    if ((events & POLL_READABLE) !== 0 && this.phase === SessionPhase.OPEN) this.#receive();
  }

  /** Events before there is a handshake: the client side's connect. */
  protected onConnecting(_events: number): void {}

  onResume(): void {
    this.#resumeAsked = false;
    if (this.phase === SessionPhase.OPEN) this.#receive();
  }

  #stepHandshake(): void {
    const handshake = this.#handshake!;
    const step = handshake.step();
    if (step === HandshakeStep.WANTS_READ || step === HandshakeStep.WANTS_WRITE) return;
    if (step === HandshakeStep.FAILED) {
      this.shard.countHandshakeFailure();
      if (handshake.peerRevoked) this.shard.revocations.refused(this); // ZT-088
      const stage = handshake.peerRevoked ? "revoked" : "tls";
      this.die({ reason: `TLS handshake failed: ${handshake.failure()}`, stage });
      return;
    }
    this.peerPath = handshake.takePath();
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
    if (!this.shard.revocations.admit(this)) {
      this.revoke();
      return;
    }
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

  #onDeadline(): void {
    if (this.#closing !== undefined) {
      this.die(this.#closing);
      return;
    }
    if (this.phase === SessionPhase.HANDSHAKE) {
      this.die(this.timeoutEnd());
      return;
    }
    if (this.#pingOutstanding) {
      this.closeNow({ reason: "no answer to PING within 20 s", stage: "timeout" }); // With GOAWAY (ZT-063).
      return;
    }
    this.#pingOutstanding = true;
    this.ping(PingWord.ALIVE);
    if (this.phase === SessionPhase.CLOSED) return;
    this.shard.reactor.timers.set(this.#deadline, PING_TIMEOUT_MS, this.shard.reactor.nowMs);
  }

  /** What a handshake that takes too long is called. */
  protected timeoutEnd(): SessionEnd {
    return { reason: "TLS handshake timed out", stage: "tls" };
  }

  protected override onPingAnswered(_word: number): void {
    if (!this.#pingOutstanding || this.#closing !== undefined) return;
    this.#pingOutstanding = false;
    this.shard.reactor.timers.set(this.#deadline, PING_INTERVAL_MS, this.shard.reactor.nowMs);
  }

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
    if (this.#goodbyeSaid) { // Nothing is answered any more; read it must be, or the close becomes a reset.
      if (got === wanted || this.#hungUp) this.#receiveAgain();
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
    this.flushGather();
    if (this.phase !== SessionPhase.OPEN) return;
    this.#keepCarry(at, end);
    if (got === wanted || this.#hungUp) this.#receiveAgain();
  }

  #receiveAgain(): void {
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
    if (u8[at] !== APPLICATION_RECORD && !this.#hasPlace(u8[at]!)) {
      return this.#fail(Alert.UNEXPECTED_MESSAGE, "an unprotected TLS record"), false;
    }
    let bytes = this.#opener!.open(at, recordBytes);
    if (bytes < 0) return this.#fail(Alert.BAD_RECORD_MAC, "a TLS record that does not open"), false;
    // Padding counts: content, its type and zeros are 2^14 + 1 bytes at most (RFC 8446 §5.4).
    if (bytes > CONTENT_BYTES_MAX + 1) return this.#fail(Alert.RECORD_OVERFLOW, "a TLS record over its limit"), false;
    const start = at + RECORD_HEADER_BYTES;
    while (bytes > 0 && u8[start + bytes - 1] === 0) bytes--; // Padding (RFC 8446 §5.4)
    if (bytes === 0) return this.#fail(Alert.UNEXPECTED_MESSAGE, "a TLS record without a content type"), false;
    const type = u8[start + bytes - 1]!, end = start + bytes - 1;
    if (type === APPLICATION_RECORD) {
      if (this.#postHandshake.unfinished) {
        return this.#fail(Alert.UNEXPECTED_MESSAGE, "data inside a handshake message"), false;
      }
      if (end === start && !this.glitch()) return false;
      return this.#takePlaintext(start, end);
    }
    if (type === HANDSHAKE_RECORD) return this.#takePostHandshake(start, end);
    if (type !== ALERT_RECORD || end - start !== 2) {
      return this.#fail(Alert.UNEXPECTED_MESSAGE, "an unknown TLS record"), false;
    }
    this.flushGather();
    if (this.phase !== SessionPhase.OPEN) return false;
    const alert = u8[start + 1]!;
    this.die(
      alert === Alert.CLOSE_NOTIFY
        ? { reason: "the peer closed the connection", stage: "closed" }
        : { reason: `the peer sent TLS alert ${alert}`, stage: "tls" },
    );
    return false;
  }

  /** TLS 1.2 seals alerts and handshake messages too, and says what they are in the open; change_cipher_spec is over by now. */
  #hasPlace(type: number): boolean {
    return this.#opener!.tls12 && (type === ALERT_RECORD || type === HANDSHAKE_RECORD);
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

  #takePostHandshake(start: number, end: number): boolean {
    if (this.#opener!.tls12) return this.#fail(Alert.UNEXPECTED_MESSAGE, "a renegotiation"), false;
    if (!this.glitch()) return false;
    const asked = this.#postHandshake.read(this.shard.os.memory.u8, start, end);
    if (asked === PostHandshake.UNEXPECTED) {
      return this.#fail(Alert.UNEXPECTED_MESSAGE, "a handshake message that has no place here"), false;
    }
    if (asked === PostHandshake.MALFORMED) {
      return this.#fail(Alert.DECODE_ERROR, "a malformed handshake message"), false;
    }
    if (asked !== PostHandshake.NOTHING) this.#opener!.nextKey();
    if (asked === PostHandshake.KEY_REQUESTED) this.answerKeyUpdate();
    return true;
  }

  #fail(alert: number, what: string): void {
    if (this.phase !== SessionPhase.OPEN) return;
    this.flushGather(); // What came before was authentic.
    if (this.phase !== SessionPhase.OPEN) return;
    this.shard.countGlitch();
    this.sender!.alert(ALERT_FATAL, alert);
    this.die({ reason: `the peer sent ${what}`, stage: "tls" });
  }

  /**
   * Ends the session after saying so: GOAWAY, close_notify, end of the stream; then it waits for the peer's own end, since
   * to close a socket that has unread bytes is to take back what has not arrived yet. With tunnels left in it the
   * session ends at once, and they with `end`.
   */
  closeGracefully(end: SessionEnd): void {
    if (this.#closing !== undefined) return;
    if (this.phase !== SessionPhase.OPEN || this.tunnels.size > 0) {
      this.closeNow(end);
      return;
    }
    this.#closing = end;
    this.shard.reactor.timers.set(this.#deadline, CLOSE_TIMEOUT_MS, this.shard.reactor.nowMs);
    this.goAway(this.server ? this.lastStreamId : 0, H2Error.NO_ERROR);
    this.askFlush();
  }

  /** Ends the session with GOAWAY and close_notify, as far as the socket takes them, and waits for nothing. */
  override closeNow(end: SessionEnd): void {
    if (this.phase === SessionPhase.OPEN && !this.#goodbyeSaid) {
      this.goAway(this.server ? this.lastStreamId : 0, H2Error.NO_ERROR);
      if (this.phase === SessionPhase.OPEN) this.sender!.alert(ALERT_WARNING, Alert.CLOSE_NOTIFY);
    }
    this.die(end);
  }

  /** Ends the session, since lists name its peer: whoever dialled us is told, whom we dialled is not (ZT-078). */
  revoke(): void {
    if (this.server) this.closeNow(REVOKED);
    else this.die(REVOKED);
  }

  /** Whether {@link closeGracefully} has begun. */
  protected override get closing(): boolean {
    return this.#closing !== undefined;
  }

  override onFlush(): void {
    super.onFlush();
    if (this.#closing === undefined || this.phase !== SessionPhase.OPEN || this.sender!.blocked) return;
    if (!this.#goodbyeSaid) {
      this.#goodbyeSaid = true;
      this.sender!.alert(ALERT_WARNING, Alert.CLOSE_NOTIFY);
      this.sender!.flush();
      if (this.sender!.blocked) return; // Once more, when it has left.
    }
    this.shard.os.shutdownWrite(this.fd);
  }

  /** Whether another process may go on with it: open, of TLS 1.3, and not saying goodbye. */
  get transferable(): boolean {
    return this.phase === SessionPhase.OPEN && !this.#opener!.tls12 && this.#closing === undefined &&
      !this.sender!.broken;
  }

  /** All of the session but its tunnels, as it stands between two turns. Nothing may be sealed until it is thawed. */
  exportSession(): Omit<SessionState, "pod" | "fd" | "tunnels" | "peerPath" | "inbound" | "outbound"> {
    const { keys, unsent } = this.sender!.exportState();
    return {
      seal: keys,
      open: this.#opener!.exportKeys(),
      carry: this.#carry === null ? new Uint8Array(0) : this.#carry.slice(0, this.#carryBytes),
      output: this.exportOutput(unsent),
      input: this.exportInput(),
      receiver: this.#receiver.exportState(),
      postHandshake: this.#postHandshake.exportState(),
      prefaceBytes: this.#prefaceBytes,
      pingOutstanding: this.#pingOutstanding,
    };
  }

  /** Records and windows of a session that another process had; tunnels follow. @returns false if that cannot be. */
  importRecords(state: SessionState): boolean {
    const records = this.shard.tls.resumeRecords(state.seal, state.open);
    if (records === undefined) return false;
    this.#opener = records.opener;
    this.sender = new RecordSender(this.shard.os, this.shard.buffers, this.fd, records.sealer, {
      onStageShortage: () => this.shard.reactor.flush(),
      recordsPerKey: this.shard.recordsPerKey,
    });
    this.phase = SessionPhase.OPEN;
    const { carry, prefaceBytes } = state;
    if (carry.length >= PEER_RECORD_BYTES_MAX || prefaceBytes > CLIENT_PREFACE.length) return false;
    if (carry.length > 0) {
      this.#carry = this.shard.acquireCarry();
      this.#carry.set(carry);
      this.#carryBytes = carry.length;
    }
    this.#prefaceBytes = prefaceBytes;
    this.#pingOutstanding = state.pingOutstanding;
    return this.importOutput(state.output) && this.#postHandshake.importState(state.postHandshake);
  }

  /** What has come in part, once the tunnels are attached. @returns false if that cannot be. */
  importFrames(state: SessionState): boolean {
    return this.importInput(state.input) && this.#receiver.importState(state.receiver);
  }

  /** Watches a socket that is not this process's yet: nobody looks at what the kernel tells of it. @returns false if it refuses. */
  watchEarly(): boolean {
    this.#row = this.shard.reactor.watch(this.fd, POLL_BOTH_EDGES, this);
    return this.#row >= 0;
  }

  /** From here on the session is this process's. */
  goLive(): void {
    const { reactor } = this.shard;
    if (!this.shard.revocations.admit(this)) return this.revoke();
    reactor.timers.set(this.#deadline, this.#pingOutstanding ? PING_TIMEOUT_MS : PING_INTERVAL_MS, reactor.nowMs);
  }

  /** Forgets the session without a byte to the peer: another process goes on with it. Its tunnels have been released. */
  release(): void {
    assert(
      this.phase === SessionPhase.OPEN && this.tunnels.size === 0,
      "an open session is released after its tunnels",
    );
    const { reactor, os } = this.shard;
    this.phase = SessionPhase.CLOSED;
    this.goingAway = true;
    reactor.timers.cancel(this.#deadline);
    if (this.#row >= 0) reactor.release(this.fd, this.#row); // Else epoll would go on telling of it: the socket lives.
    this.dropInput();
    this.dropOutput();
    this.#forgetPeer();
    this.sender!.free();
    this.#opener!.free();
    this.#opener = null;
    if (this.#carry !== null) this.shard.releaseCarry(this.#carry);
    this.#carry = null;
    os.close(this.fd);
    this.onReleased();
  }

  #forgetPeer(): void {
    this.shard.revocations.forget(this);
    this.peerPath?.free();
    this.peerPath = null;
  }

  /** The last thing after {@link release}. */
  protected abstract onReleased(): void;

  /** Ends the session now. Safe to call twice; the second does nothing. */
  die(end: SessionEnd): void {
    if (this.phase === SessionPhase.CLOSED) return;
    if (this.phase === SessionPhase.OPEN) this.sender!.flush(); // An alert or GOAWAY, as far as the socket takes it.
    this.phase = SessionPhase.CLOSED;
    this.goingAway = true;
    const reactor = this.shard.reactor;
    reactor.timers.cancel(this.#deadline);
    if (this.#row >= 0) reactor.forget(this.#row);
    this.dropInput();
    this.dropOutput();
    for (const tunnel of this.tunnels.values()) tunnel.onSessionEnded(end);
    this.tunnels.clear();
    this.#handshake?.free();
    this.#handshake = null;
    this.#forgetPeer();
    this.sender?.free();
    this.#opener?.free();
    this.#opener = null;
    if (this.#carry !== null) this.shard.releaseCarry(this.#carry);
    this.#carry = null;
    this.shard.os.close(this.fd);
    this.onClosed(end);
  }
}
