/** The receiving half of a session above TLS: what each HTTP/2 frame means, and DATA on its way to applications. */
import { assert } from "../../base/assert.ts";
import { readUint31, readUint32 } from "../../wire/bytes.ts";
import { checkGrowth, checkInitialWindowChange } from "../../wire/h2/flow_window.ts";
import { errorName, FrameFlag, FrameType, H2Error } from "../../wire/h2/frame_rules.ts";
import * as frames from "../../wire/h2/frame_writers.ts";
import { HeaderBlock, type HeaderBlockSink } from "../../wire/h2/header_block.ts";
import { HpackDecoder } from "../../wire/h2/hpack_decoder.ts";
import { DISCARD } from "../../wire/h2/request_check.ts";
import { HBONE_STREAM_WINDOW_BYTES, readSettings } from "../../wire/h2/settings.ts";
import { GATHER_MAX } from "./buffers.ts";
import type { FrameSink } from "../../wire/h2/frame_receiver.ts";
import { GlitchBudget } from "../../wire/h2/glitch_budget.ts";
import { SessionOutput, SessionPhase } from "./session_output.ts";
import type { Shard } from "./shard.ts";
import type { InputState } from "../tables/takeover_format.ts";
import type { Tunnel } from "./tunnel.ts";

const EAGAIN = 11;
const HEADER_BLOCK_BYTES_MAX = 65_536 + 1024;
const STREAM_ID_MAX = 0x7fffffff;
const HEADER_TABLE_BYTES = 4096;

export abstract class SessionFrames extends SessionOutput implements FrameSink, HeaderBlockSink {
  protected readonly decoder: HpackDecoder;
  // Input: the DATA frame under way, and pieces of it that wait to be written together.
  #dataTunnel: Tunnel | null = null;
  #dataFlowBytes = 0;
  #gatherTunnel: Tunnel | null = null;
  #gatherCount = 0;
  #gatherBytes = 0;
  readonly #block = new HeaderBlock(this, HEADER_BLOCK_BYTES_MAX);
  readonly #glitches: GlitchBudget;
  /** The peer's preface is complete: its SETTINGS came first (RFC 9113 §3.4). */
  #greeted = false;

  constructor(shard: Shard, fd: number, server: boolean) {
    super(shard, fd, server);
    this.decoder = new HpackDecoder(HEADER_TABLE_BYTES, server ? 65_536 : 16_384, shard.hpackScratch);
    this.#glitches = new GlitchBudget(shard.reactor.nowMs);
  }

  abstract onHeaderBlock(
    streamId: number,
    endStream: boolean,
    bytes: Uint8Array,
    start: number,
    end: number,
  ): number;

  /** The peer takes no more streams; those above the last it names were never looked at. */
  protected abstract onGoaway(lastStreamId: number, error: number): void;

  /** A stream has gone; there may be room for another, or nothing left to do. */
  protected abstract onTunnelGone(): void;

  /** The peer answered a PING of ours. @param word the second of its payload, {@link PingWord}. */
  protected abstract onPingAnswered(word: number): void;

  onData(streamId: number, flowBytes: number): number {
    if (!this.#greeted || this.#block.open) return H2Error.PROTOCOL_ERROR;
    if (streamId > this.lastStreamId || (streamId & 1) === 0) return H2Error.PROTOCOL_ERROR; // an idle stream
    if (flowBytes > this.receiveWindow) return H2Error.FLOW_CONTROL_ERROR;
    this.receiveWindow -= flowBytes;
    this.#dataFlowBytes = flowBytes;
    const tunnel = this.tunnels.get(streamId) ?? null;
    this.#dataTunnel = tunnel;
    if (tunnel === null) return 0;
    if (tunnel.endReceived) return H2Error.STREAM_CLOSED;
    if (!this.server && !tunnel.carries) return H2Error.PROTOCOL_ERROR; // DATA before its HEADERS (RFC 9113 §8.1)
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
    if (this.#gatherTunnel !== tunnel || this.#gatherCount === GATHER_MAX) this.flushGather();
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
    if (this.#gatherTunnel === tunnel) this.flushGather();
    if (!tunnel.closed) tunnel.onEndReceived();
  }

  /** Writes the pieces that wait to their application. */
  protected flushGather(): void {
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
        if (tunnel.closed) this.credit(null, length - skip); // There was no memory for the piece before.
        else tunnel.keep(u32[word]! - os.memory.base + skip, length - skip);
        skip = 0;
      }
    }
  }

  /** The application gets what came before a frame that may end its stream. */
  #flushGatherOf(streamId: number): void {
    if (this.#gatherTunnel !== null && this.#gatherTunnel.streamId === streamId) this.flushGather();
  }

  onFrame(type: number, flags: number, streamId: number, bytes: Uint8Array, start: number, end: number): number {
    if (!this.#greeted) {
      if (type !== FrameType.SETTINGS || (flags & FrameFlag.ACK) !== 0) return H2Error.PROTOCOL_ERROR;
      this.#greeted = true;
    }
    if (!this.#block.allows(type, streamId)) return H2Error.PROTOCOL_ERROR;
    switch (type) {
      case FrameType.HEADERS:
        this.#flushGatherOf(streamId);
        return this.#block.onHeaders(flags, streamId, bytes, start, end);
      case FrameType.CONTINUATION:
        return start === end && !this.glitch() ? 0 : this.#block.onContinuation(flags, bytes, start, end);
      case FrameType.RST_STREAM:
        this.#flushGatherOf(streamId);
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

  #onReset(streamId: number, error: number): number {
    if (streamId > this.lastStreamId || (streamId & 1) === 0) return H2Error.PROTOCOL_ERROR; // an idle stream
    const tunnel = this.tunnels.get(streamId);
    // Opening and resetting streams in a loop must not be free; giving up one that was answered is ordinary.
    const before = tunnel === undefined || !tunnel.carries || tunnel.upAtTurn === this.shard.reactor.turns;
    if (before && !this.glitch()) return 0; // Its sender has not waited for an answer.
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
    const word0 = readUint32(bytes, start), word1 = readUint32(bytes, start + 4);
    if ((flags & FrameFlag.ACK) !== 0) {
      this.onPingAnswered(word1);
      return 0;
    }
    if (!this.glitch()) return 0;
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
      if (wasShut) this.wakeWaiting();
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

  /** A block after the first of a stream, or of one that has ended: trailers, which can only end it. @returns 0 or an H2Error. */
  protected takeTrailers(streamId: number, endStream: boolean, bytes: Uint8Array, start: number, end: number): number {
    const wrong = this.skipBlock(bytes, start, end);
    if (wrong !== 0) return wrong;
    const tunnel = this.tunnels.get(streamId);
    if (tunnel === undefined) this.glitch();
    else if (!endStream) tunnel.fail(H2Error.PROTOCOL_ERROR, "receive: trailers that do not end the stream");
    else if (!tunnel.endReceived) tunnel.onEndReceived();
    return 0;
  }

  /** Adds a tunnel as this stream. */
  attach(tunnel: Tunnel, streamId: number): void {
    assert(streamId <= STREAM_ID_MAX, "a stream has a number of HTTP/2");
    tunnel.session = this;
    tunnel.streamId = streamId;
    tunnel.sendWindow = this.announced.initialWindowBytes;
    tunnel.receiveWindow = HBONE_STREAM_WINDOW_BYTES;
    this.tunnels.add(tunnel);
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

  /** Counts a legal oddity. @returns false when it was one too many, and the session has ended. */
  protected glitch(): boolean {
    if (this.#glitches.spend(this.shard.reactor.nowMs)) return true;
    this.failH2(H2Error.ENHANCE_YOUR_CALM);
    return false;
  }

  /** Ends the session for a broken rule of HTTP/2. */
  protected failH2(error: number): void {
    if (this.phase !== SessionPhase.OPEN) return;
    this.flushGather();
    if (this.phase !== SessionPhase.OPEN) return;
    this.shard.countGlitch();
    this.goAway(this.server ? this.lastStreamId : 0, error);
    this.die({ reason: `the peer broke HTTP/2: ${errorName(error)}`, stage: "h2" });
  }

  /** What has come in part, for a session in another process. Copies; between two turns nothing waits to be delivered. */
  protected exportInput(): InputState {
    assert(this.#gatherTunnel === null, "what came in a turn is delivered in it");
    const data = this.#dataTunnel;
    return {
      headerTable: this.decoder.exportTable(),
      dataStreamId: data === null || data.closed ? 0 : data.streamId,
      dataFlowBytes: this.#dataFlowBytes,
      block: this.#block.exportState(),
      greeted: this.#greeted,
    };
  }

  /** Goes on where another session stopped; its tunnels are attached already. @returns false if none can have. */
  protected importInput(state: InputState): boolean {
    const { block, dataStreamId } = state, data = this.tunnels.get(dataStreamId) ?? null;
    if (!this.decoder.importTable(state.headerTable) || (data === null && dataStreamId !== 0)) return false;
    this.#dataTunnel = data;
    this.#dataFlowBytes = state.dataFlowBytes;
    this.#greeted = state.greeted;
    return block === undefined || this.#block.importState(block);
  }

  /** Nothing of what came is delivered any more. */
  protected dropInput(): void {
    this.#gatherTunnel = null;
    this.#gatherCount = 0;
    this.#gatherBytes = 0;
    this.#block.drop();
  }
}
