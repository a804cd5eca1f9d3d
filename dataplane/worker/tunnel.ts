/** A connection carried by a stream: bytes between an application's socket and one HTTP/2 stream, each direction for itself (ZT-065). */
import { H2Error } from "../../wire/h2/frame_rules.ts";
import { type Direction, ResponseFlag } from "../tables/layout.ts";
import { Connection } from "./connection.ts";
import type { Pod } from "./pod.ts";
import {
  POLL_BOTH_EDGES,
  POLL_ERROR,
  POLL_HANGUP,
  POLL_IN,
  POLL_OUT,
  POLL_READ_HANGUP,
  type Pollable,
  type Resumable,
} from "./reactor.ts";
import type { SessionFrames } from "./session_frames.ts";
import type { SessionEnd } from "./session_output.ts";
import { KeptBytes } from "./kept_bytes.ts";
import type { Shard } from "./shard.ts";
import type { TunnelState } from "../tables/takeover_format.ts";

export abstract class Tunnel extends Connection implements Pollable, Resumable {
  /** The application's socket. */
  readonly fd: number;
  session: SessionFrames | null = null;
  streamId = 0;
  /** What the peer lets us send on the stream; may be negative (RFC 9113 §6.9.2). */
  sendWindow = 0;
  /** What we let the peer send. */
  receiveWindow = 0;
  /** Taken by the application, not yet granted again. */
  creditBytes = 0;
  /** The socket may have bytes for us. */
  readable = false;
  /** The kernel has told of the end already: no further edge will come for it. */
  hungUp = false;
  /** The last read filled what it was given: read over many records next time. */
  bulk = false;
  /** In the session's list of those who could not send. */
  waiting = false;
  /** The application's direction has ended, the stream has not been told yet. */
  endOwed = false;
  endSent = false;
  endReceived = false;
  /** Bytes flow: both sides are there. */
  protected up = false;
  /** The turn in which it came up, if it may have been the turn of the request itself. */
  upAtTurn = -1;
  /** The application's socket is still connecting. */
  protected connecting = false;
  #pollRow = -1;
  #resumeAsked = false;
  /** Bytes from the stream that the socket did not take: bounded by the stream's receive window. */
  #kept: KeptBytes | null = null;
  #shutdownPending = false;
  /** The stream broke off: the application has a part of what was sent, and is not to take it for all. */
  #cut = false;

  constructor(shard: Shard, pod: Pod, row: number, direction: Direction, fd: number) {
    super(shard, pod, row, direction);
    this.fd = fd;
  }

  /** Starts watching the application's socket. @returns false if the kernel refuses. */
  protected watchApplication(events: number): boolean {
    this.#pollRow = this.shard.reactor.watch(this.fd, events, this);
    return this.#pollRow >= 0;
  }

  /** Whether bytes of the stream may be written straight to the socket. */
  get writable(): boolean {
    return this.#kept === null && !this.connecting;
  }

  /** Whether both sides are there, so that bytes may flow. */
  get carries(): boolean {
    return this.up;
  }

  onEvents(events: number): void {
    if (this.closed) return;
    if (this.connecting) {
      if ((events & (POLL_OUT | POLL_ERROR | POLL_HANGUP)) === 0) return;
      this.connecting = false;
      this.onConnected();
      if (this.closed) return;
    }
    if ((events & POLL_OUT) !== 0 && this.#kept !== null) this.drain();
    if (this.closed) return;
    if ((events & (POLL_READ_HANGUP | POLL_HANGUP | POLL_ERROR)) !== 0) {
      this.hungUp = true;
      this.readable = true;
    } else if ((events & POLL_IN) !== 0) this.readable = true;
    if (this.readable && this.up && !this.endSent && this.session !== null) this.session.pull(this);
  }

  /** The application's socket has connected or failed to. Inbound only. */
  protected onConnected(): void {}

  onResume(): void {
    this.#resumeAsked = false;
    if (!this.closed && this.up && !this.endSent && this.session !== null) this.session.pull(this);
  }

  /** Goes on reading in this turn or the next. */
  resumeSoon(): void {
    if (this.#resumeAsked || this.closed || this.endSent || !this.up || !(this.readable || this.endOwed)) return;
    this.#resumeAsked = true;
    this.shard.reactor.resumeLater(this);
  }

  countFromApplication(bytes: number): void {
    if (this.outbound) this.countReceived(bytes);
    else this.countSent(bytes);
  }

  /** The socket took bytes of the stream: they are counted, and the peer may send as many again. */
  countToApplication(bytes: number): void {
    if (this.outbound) this.countSent(bytes);
    else this.countReceived(bytes);
    this.session?.credit(this, bytes);
  }

  #newKept(): KeptBytes {
    return new KeptBytes(this.shard.buffers, this.shard.keptChunks, this.pod.row);
  }

  /** Keeps bytes that the socket did not take. Flow control bounds them; without memory for them the stream ends. */
  keep(at: number, bytes: number): void {
    const kept = this.#kept ??= this.#newKept();
    const taken = kept.append(at, bytes);
    if (taken === bytes) return;
    this.session?.credit(null, bytes - taken);
    this.fail(H2Error.ENHANCE_YOUR_CALM, "no memory left for what the application does not read");
  }

  /** Writes what was kept, as far as the socket takes it. */
  protected drain(): void {
    const kept = this.#kept;
    while (kept !== null && kept.length > 0) {
      const sent = kept.writeTo(this.shard.os, this.fd);
      if (sent < 0) this.onWriteFailed(-sent);
      if (sent <= 0) return;
      this.countToApplication(sent);
      if (this.closed) return;
    }
    this.#kept = null;
    if (!this.#shutdownPending) return;
    this.#shutdownPending = false;
    this.shard.os.shutdownWrite(this.fd);
    this.finishIfDone();
  }

  /** END_STREAM: the application reads its end once it has all bytes before it. */
  onEndReceived(): void {
    this.endReceived = true;
    if (!this.writable) {
      this.#shutdownPending = true;
      return;
    }
    // Where all that the application said has been read, the close that follows says the same (ZT-065).
    if (!this.endSent) this.shard.os.shutdownWrite(this.fd);
    this.finishIfDone();
  }

  /** Ends the connection when both directions have. */
  finishIfDone(): void {
    if (this.closed || !this.endSent || !this.endReceived || this.#shutdownPending) return;
    this.end(ResponseFlag.NONE, undefined);
  }

  /** The application's socket takes no more: its side has gone, which ends both directions cleanly (ZT-066). */
  onWriteFailed(_errno: number): void {
    if (this.closed) return;
    this.end(ResponseFlag.NONE, undefined);
  }

  /** RST_STREAM from the peer: NO_ERROR and CANCEL read as the stream's clean end (ZT-067). */
  onStreamReset(error: number): void {
    if (this.closed) return;
    const clean = error === H2Error.NO_ERROR || error === H2Error.CANCEL || error === H2Error.STREAM_CLOSED;
    if (!clean) this.#breakOff();
    this.leaveSession();
    if (!this.up || !clean) {
      this.end(this.resetFlag, `${this.#streamEnd}: the stream was reset (error ${error})`);
      return;
    }
    this.endOwed = false;
    if (!this.endReceived) this.onEndReceived(); // First: what nobody will read may have come, and a close would reset it.
    this.endSent = true;
    this.finishIfDone();
  }

  /** How the log calls reading from the stream: `send` is towards the destination, whoever reports it (ZT-069). */
  get #streamEnd(): string {
    return this.outbound ? "receive" : "send";
  }

  /** What a reset in place of an answer is called (ZT-195). */
  protected get resetFlag(): number {
    return this.up ? ResponseFlag.CONNECT : ResponseFlag.H2_HANDSHAKE_FAILURE;
  }

  /** The session is gone, and with it the stream. */
  onSessionEnded(end: SessionEnd): void {
    if (this.closed) return;
    this.session = null;
    const complete = this.endSent && this.endReceived;
    if (complete) {
      this.finishIfDone(); // Only bytes to the application are left; they are here.
      return;
    }
    if (end.stage !== "drain") this.#breakOff(); // The end of a drain is a FIN (ZT-077).
    const cut = this.up && end.stage !== "revoked";
    const flag = cut || end.stage === "drain" ? ResponseFlag.CONNECT : this.unansweredFlag(end);
    // What we end ourselves says so in its own words; what breaks, in which direction it was read (ZT-069).
    const broken = this.up && /^(the peer closed|the connection broke|no answer)/.test(end.reason);
    this.end(flag, broken ? `${this.#streamEnd}: ${end.reason}` : end.reason);
  }

  /** What the end of a session before the stream's answer is called (ZT-195). */
  protected unansweredFlag(end: SessionEnd): number {
    return end.stage === "closed" || end.stage === "timeout" ? ResponseFlag.CONNECT : this.failedFlag(end);
  }

  /** What a session that never came to be is called (ZT-195). */
  protected failedFlag(end: SessionEnd): number {
    if (end.stage === "h2") return ResponseFlag.H2_HANDSHAKE_FAILURE;
    if (end.stage === "revoked") return ResponseFlag.CERT_REVOKED;
    return ResponseFlag.CONNECT;
  }

  /** Ends stream and connection for an error of ours or the peer's. */
  fail(h2Error: number, reason: string): void {
    if (this.closed) return;
    this.session?.resetStream(this.streamId, h2Error);
    if (this.closed) return; // The session may have ended over it.
    this.#breakOff();
    this.leaveSession();
    this.end(ResponseFlag.CONNECT, reason);
  }

  /** Bytes of the stream will not arrive any more: on loopback, as between hosts, that is a reset and no FIN. */
  #breakOff(): void {
    this.#cut = this.up && (!this.endReceived || this.#kept !== null);
  }

  /** All of the tunnel but its connection's row, as it stands between two turns. */
  exportTunnel(): Omit<TunnelState, "connection" | "fd"> {
    const { streamId, sendWindow, receiveWindow, creditBytes, up, connecting, endOwed, endSent, endReceived } = this;
    return {
      streamId,
      sendWindow,
      receiveWindow,
      creditBytes,
      up,
      connecting,
      endOwed,
      endSent,
      endReceived,
      shutdownPending: this.#shutdownPending,
      kept: this.#kept === null ? new Uint8Array(0) : this.#kept.exportBytes(),
      inbound: undefined,
      outbound: undefined,
    };
  }

  /** Goes on where another process stopped; stream and session are set. @returns false if there is no memory for it. */
  importTunnel(state: TunnelState): boolean {
    this.sendWindow = state.sendWindow;
    this.receiveWindow = state.receiveWindow;
    this.creditBytes = state.creditBytes;
    this.up = state.up;
    this.connecting = state.connecting;
    this.endOwed = state.endOwed;
    this.endSent = state.endSent;
    this.endReceived = state.endReceived;
    this.#shutdownPending = state.shutdownPending;
    if (state.kept.length === 0) return true;
    this.#kept = this.#newKept();
    return this.#kept.importBytes(state.kept);
  }

  /** Watches a socket that is not this process's yet: nobody looks at what the kernel tells of it. @returns false if it refuses. */
  watchEarly(): boolean {
    return this.watchApplication(POLL_BOTH_EDGES);
  }

  /** From here on the connection is this process's. */
  goLive(): void {
    if (this.endOwed) this.resumeSoon();
  }

  /** Forgets the connection without a word to anybody: another process goes on with it. */
  override leaveBehind(): void {
    this.session?.tunnels.delete(this.streamId);
    this.session = null;
    if (this.#pollRow >= 0) this.shard.reactor.release(this.fd, this.#pollRow);
    this.#pollRow = -1;
    this.#kept?.clear();
    this.#kept = null;
    super.leaveBehind();
    this.shard.os.close(this.fd);
  }

  protected leaveSession(): void {
    const session = this.session;
    if (session === null) return;
    this.session = null;
    session.detach(this, this.#kept?.length ?? 0);
  }

  override releaseResources(_flag: number): void {
    const reactor = this.shard.reactor;
    const session = this.session;
    if (session !== null) {
      // Left before both directions ended: the peer is told that nobody reads or writes any more (ZT-068).
      if (!(this.endSent && this.endReceived)) session.resetStream(this.streamId, H2Error.CANCEL);
      this.leaveSession();
    }
    if (this.#pollRow >= 0) reactor.forget(this.#pollRow);
    this.#pollRow = -1;
    this.#kept?.clear();
    this.#kept = null;
    if (this.#cut) this.shard.os.abort(this.fd);
    else this.shard.os.close(this.fd);
  }
}
