/** The sending half of a session: control frames, credit for what was taken, and tunnels' bytes on their way out. */
import type { Shard } from "./shard.ts";
import type { OutputState } from "../tables/takeover_format.ts";
import * as frames from "../../wire/h2/frame_writers.ts";
import { AnnouncedSettings, HBONE_CONNECTION_WINDOW_BYTES, HBONE_STREAM_WINDOW_BYTES } from "../../wire/h2/settings.ts";
import type { Flushable } from "./reactor.ts";
import { BLOCKED, KeyUse, type RecordSender } from "./record_sender.ts";
import { StreamTable } from "./stream_table.ts";
import type { Tunnel } from "./tunnel.ts";

const EAGAIN = 11;
/** Frames that wait for a blocked socket; a peer that provokes more does not read what it asks for. */
const CONTROL_BYTES_MAX = 65_536;

/** What our PINGs carry: a name of ours, and what is asked. */
const PING_NAME = 0x616d6269;
export const PingWord = { ALIVE: 0x74, DRAIN: 0x64 } as const;

export const SessionPhase = { HANDSHAKE: 0, OPEN: 1, CLOSED: 2 } as const;

/** What a session ends with: the text for the log, and whether an error was behind it. */
export interface SessionEnd {
  readonly reason: string;
  readonly stage: "tls" | "identity" | "h2" | "closed" | "timeout" | "connect" | "drain" | "policy" | "revoked";
}

/** What a session, and every connection in it, ends with (ZT-089). */
export const REVOKED: SessionEnd = { reason: "connection closed: peer certificate revoked by CRL", stage: "revoked" };

export abstract class SessionOutput implements Flushable {
  readonly shard: Shard;
  readonly fd: number;
  readonly server: boolean;
  readonly tunnels = new StreamTable<Tunnel>();
  readonly announced = new AnnouncedSettings();
  phase: number = SessionPhase.HANDSHAKE;
  /** Told or heard that no new streams come. */
  goingAway = false;
  sendWindow = 65_535;
  protected sender: RecordSender | null = null;
  protected lastStreamId = 0;
  /** What the peer may still send on the whole session. */
  protected receiveWindow = HBONE_CONNECTION_WINDOW_BYTES;
  #flushAsked = false;
  #waiting: Tunnel[] = [];
  #control: Uint8Array | null = null;
  #controlBytes = 0;
  #inControl = false;
  #keyUpdateOwed = false;
  #worn = false;
  #creditBytes = 0;

  constructor(shard: Shard, fd: number, server: boolean) {
    this.shard = shard;
    this.fd = fd;
    this.server = server;
  }

  /** Ends the session now. */
  abstract die(end: SessionEnd): void;

  /** Ends it with GOAWAY. */
  abstract closeNow(end: SessionEnd): void;

  /** No new streams; the session ends in order with the last one. */
  protected abstract stopTaking(): void;

  /** Whether it says goodbye already. */
  protected abstract get closing(): boolean;

  onFlush(): void {
    this.#flushAsked = false;
    if (this.phase !== SessionPhase.OPEN) return;
    this.sender!.flush();
    if (this.sender!.broken) this.die({ reason: "send: the connection broke", stage: "closed" });
    else if (this.sender!.keyUse !== KeyUse.FRESH && !this.closing) this.#onKeyUsed(this.sender!.keyUse);
  }

  /** TLS 1.2 has no other key to go on with. */
  #onKeyUsed(use: number): void {
    if (use === KeyUse.SPENT) this.closeNow({ reason: "the one key of a TLS 1.2 session is used up", stage: "closed" });
    else if (!this.#worn) {
      this.#worn = true;
      this.stopTaking();
    }
  }

  protected askFlush(): void {
    if (this.#flushAsked) return;
    this.#flushAsked = true;
    this.shard.reactor.flushLater(this);
  }

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

  /** Asks the peer for a sign of life, or that it has read what came before. */
  protected ping(word: number): void {
    const at = this.reserveControl(17);
    if (at >= 0) this.commitControl(at, frames.writePing(this.controlTarget, at, PING_NAME, word, false));
  }

  /** Says that no further streams are taken; those open run on (ZT-076). */
  goAway(lastStreamId: number, error: number): void {
    this.goingAway = true;
    const at = this.reserveControl(17);
    if (at >= 0) this.commitControl(at, frames.writeGoaway(this.controlTarget, at, lastStreamId, error));
  }

  /** The socket takes bytes again: what waited goes first. */
  protected onWritable(): void {
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
    this.wakeWaiting();
  }

  #sayCredits(): void {
    this.#saySessionCredit();
    const { tunnels } = this;
    for (let place = 0; place < tunnels.placeCount; place++) {
      const tunnel = tunnels.at(place);
      if (tunnel !== null) this.#sayTunnelCredit(tunnel);
    }
  }

  #saySessionCredit(): void {
    if (this.#creditBytes < HBONE_CONNECTION_WINDOW_BYTES >> 2) return;
    if (!this.#windowUpdate(0, this.#creditBytes)) return;
    this.receiveWindow += this.#creditBytes;
    this.#creditBytes = 0;
  }

  /** At half of the window: each word is a record, a wake-up of the peer's worker, and an answer of TCP. */
  #sayTunnelCredit(tunnel: Tunnel): void {
    if (tunnel.creditBytes < HBONE_STREAM_WINDOW_BYTES >> 1 || tunnel.endReceived) return;
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
    if (tunnel.endOwed && !sender.blocked) { // An end needs no window.
      this.#sendEnd(tunnel);
      return;
    }
    if (sender.blocked || this.sendWindow <= 0) {
      this.#wait(tunnel);
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
      if (sender.unsent) this.askFlush(); // A new key may have been said when the stage was opened.
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

  /** Tunnels that could not send try again. */
  protected wakeWaiting(): void {
    if (this.#waiting.length === 0) return;
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const tunnel of waiting) {
      tunnel.waiting = false;
      tunnel.resumeSoon();
    }
  }

  /** The peer asked for a new key of ours: it follows as soon as the socket takes it. */
  protected answerKeyUpdate(): void {
    if (!this.#keyUpdateOwed) this.#keyUpdateOwed = !this.sender!.updateKey();
    this.askFlush();
  }

  /** What is on its way out, for a session in another process. Copies; {@link onFlush} came before. */
  protected exportOutput(unsent: Uint8Array): OutputState {
    const { headerTableBytes, pushAllowed, concurrentStreamsMax, initialWindowBytes } = this.announced;
    const { payloadBytesMax, headerListBytesMax, connectProtocol } = this.announced;
    return {
      announced: {
        headerTableBytes,
        pushAllowed,
        concurrentStreamsMax,
        initialWindowBytes,
        payloadBytesMax,
        headerListBytesMax,
        connectProtocol,
      },
      goingAway: this.goingAway,
      sendWindow: this.sendWindow,
      receiveWindow: this.receiveWindow,
      creditBytes: this.#creditBytes,
      lastStreamId: this.lastStreamId,
      control: this.#control === null ? new Uint8Array(0) : this.#control.slice(0, this.#controlBytes),
      keyUpdateOwed: this.#keyUpdateOwed,
      unsent,
    };
  }

  /** Goes on where another session stopped. @returns false if none can have stopped there. */
  protected importOutput(state: OutputState): boolean {
    const { control, receiveWindow, creditBytes } = state;
    const windowsFit = receiveWindow >= 0 && receiveWindow + creditBytes <= HBONE_CONNECTION_WINDOW_BYTES;
    const waits = control.length > 0 || state.keyUpdateOwed;
    if (!windowsFit || control.length > CONTROL_BYTES_MAX || (waits && state.unsent.length === 0)) return false;
    Object.assign(this.announced, state.announced);
    this.goingAway = state.goingAway;
    this.sendWindow = state.sendWindow;
    this.receiveWindow = receiveWindow;
    this.#creditBytes = creditBytes;
    this.lastStreamId = state.lastStreamId;
    if (control.length > 0) {
      this.#control = new Uint8Array(CONTROL_BYTES_MAX);
      this.#control.set(control);
      this.#controlBytes = control.length;
    }
    this.#keyUpdateOwed = state.keyUpdateOwed;
    this.sender!.importUnsent(state.unsent);
    return true;
  }

  /** Nothing of what waits will be sent any more. */
  protected dropOutput(): void {
    this.#waiting = [];
    this.#control = null;
  }
}
