/** The receiving half of a connection: what each HTTP/2 frame of a client means, and the bounds of what it may ask for. */
import { readUint31, readUint32 } from "../../wire/bytes.ts";
import { checkGrowth, checkInitialWindowChange } from "../../wire/h2/flow_window.ts";
import { FrameReceiver, type FrameSink } from "../../wire/h2/frame_receiver.ts";
import {
  CLIENT_PREFACE,
  errorName,
  FrameFlag,
  FrameType,
  H2Error,
  PAYLOAD_BYTES_MAX_DEFAULT,
} from "../../wire/h2/frame_rules.ts";
import * as frames from "../../wire/h2/frame_writers.ts";
import { GlitchBudget } from "../../wire/h2/glitch_budget.ts";
import { HeaderBlock, type HeaderBlockSink } from "../../wire/h2/header_block.ts";
import { HEADER_LIST_TOO_LARGE, HpackDecoder } from "../../wire/h2/hpack_decoder.ts";
import { DISCARD } from "../../wire/h2/request_check.ts";
import { RequestFields } from "../../wire/h2/request_fields.ts";
import { readSettings } from "../../wire/h2/settings.ts";
import type { Carrier } from "./carrier.ts";
import { ConnectionOutput } from "./connection_output.ts";
import { ServerStream } from "./server_stream.ts";

/** Also announced. Tokens are of a few KiB; two of them and a certificate in a header fit. */
export const HEADER_LIST_BYTES_MAX = 64 * 1024;
const HEADER_BLOCK_BYTES_MAX = HEADER_LIST_BYTES_MAX + 1024;
const HEADER_TABLE_BYTES = 4_096;
/** Of all decoders: each is done with it when it returns. */
const SCRATCH = new Uint8Array(HpackDecoder.scratchBytesFor(HEADER_TABLE_BYTES, HEADER_LIST_BYTES_MAX));

export abstract class ConnectionInput extends ConnectionOutput implements FrameSink, HeaderBlockSink {
  protected lastStreamId = 0;
  /** Streams above it are not looked at any more: the client was told so. */
  protected lastStreamIdTaken = 0x7fffffff;
  /** The client has said that it opens no more streams. */
  protected clientLeaves = false;
  readonly #streamsMax: number;
  readonly #receiver = new FrameReceiver(this, PAYLOAD_BYTES_MAX_DEFAULT);
  readonly #decoder = new HpackDecoder(HEADER_TABLE_BYTES, HEADER_LIST_BYTES_MAX, SCRATCH);
  readonly #glitches: GlitchBudget;
  #prefaceBytes = 0;
  /** The client's SETTINGS came first (RFC 9113 §3.4). */
  #greeted = false;
  #input: Uint8Array = CLIENT_PREFACE;
  #dataStream: ServerStream | undefined;
  #dataFlowBytes = 0;
  readonly #block = new HeaderBlock(this, HEADER_BLOCK_BYTES_MAX);

  constructor(carrier: Carrier, now: () => number, streamsMax: number) {
    super(carrier, now);
    this.#streamsMax = streamsMax;
    this.#glitches = new GlitchBudget(now());
  }

  /** A request has begun. Whoever takes the stream sets its sink. */
  protected abstract onRequest(stream: ServerStream, fields: RequestFields): void;
  /** A request's head was larger than is read. */
  protected abstract onHeadTooLarge(stream: ServerStream): void;
  protected abstract onPing(): void;
  protected abstract onPingAnswered(word: number): void;
  /** Ends the connection for a broken rule. */
  protected abstract fail(error: number, reason: string): void;

  protected get greeted(): boolean {
    return this.#greeted;
  }

  /** Takes what the carrier has received. */
  receive(bytes: Uint8Array): void {
    if (this.closed) return;
    let at = 0;
    while (this.#prefaceBytes < CLIENT_PREFACE.length && at < bytes.length) {
      if (bytes[at++] === CLIENT_PREFACE[this.#prefaceBytes++]) continue;
      return this.die("it does not speak HTTP/2");
    }
    this.#input = bytes;
    const error = this.#receiver.receive(bytes, at, bytes.length);
    if (error !== 0) this.fail(error, `it broke HTTP/2: ${errorName(error)}`);
  }

  onData(streamId: number, flowBytes: number): number {
    if (this.closed || this.ending) return H2Error.CANCEL;
    if (!this.#greeted || this.#block.open || this.#isIdle(streamId)) return H2Error.PROTOCOL_ERROR;
    if (flowBytes > this.receiveWindow) return H2Error.FLOW_CONTROL_ERROR;
    this.receiveWindow -= flowBytes;
    this.#dataFlowBytes = flowBytes;
    const stream = this.#dataStream = this.streams.get(streamId);
    if (stream === undefined) return this.#onLate(streamId);
    if (stream.endReceived) return H2Error.STREAM_CLOSED;
    if (flowBytes > stream.receiveWindow) return H2Error.FLOW_CONTROL_ERROR;
    stream.receiveWindow -= flowBytes;
    return 0;
  }

  onDataPiece(at: number, bytes: number): void {
    const stream = this.#dataStream;
    if (stream?.promisedBytes !== undefined) stream.promisedBytes -= bytes;
    if (stream === undefined || stream.endSent || stream.sink === null) this.creditConnection(bytes);
    else stream.sink.onData(this.#input, at, at + bytes);
  }

  onDataEnd(endStream: boolean, paddingBytes: number): void {
    const stream = this.#dataStream;
    this.#dataStream = undefined;
    // DATA that says nothing is an oddity.
    const odd = this.#dataFlowBytes === paddingBytes && !endStream ? this.#glitch() : 0;
    if (paddingBytes > 0) stream === undefined ? this.creditConnection(paddingBytes) : stream.credit(paddingBytes);
    const error = endStream && stream !== undefined ? this.#endRequest(stream) : odd;
    if (error !== 0) this.fail(error, `it broke HTTP/2: ${errorName(error)}`);
  }

  onFrame(type: number, flags: number, streamId: number, bytes: Uint8Array, start: number, end: number): number {
    if (this.closed || this.ending) return H2Error.CANCEL;
    if (!this.#greeted) {
      if (type !== FrameType.SETTINGS || (flags & FrameFlag.ACK) !== 0) return H2Error.PROTOCOL_ERROR;
      this.#greeted = true;
    }
    if (!this.#block.allows(type, streamId)) return H2Error.PROTOCOL_ERROR;
    switch (type) {
      case FrameType.HEADERS:
        return this.#block.onHeaders(flags, streamId, bytes, start, end);
      case FrameType.CONTINUATION:
        return (start === end ? this.#glitch() : 0) || this.#block.onContinuation(flags, bytes, start, end);
      case FrameType.RST_STREAM:
        return this.#onReset(streamId, readUint32(bytes, start));
      case FrameType.SETTINGS:
        return this.#onSettings(flags, bytes, start, end);
      case FrameType.PING:
        return this.#onPingFrame(flags, bytes, start);
      case FrameType.GOAWAY:
        this.clientLeaves = true;
        this.onStreamGone(); // There may be none.
        return this.#glitch();
      case FrameType.WINDOW_UPDATE:
        return this.#onWindowUpdate(streamId, readUint31(bytes, start));
      case FrameType.PUSH_PROMISE:
        return H2Error.PROTOCOL_ERROR; // Clients do not push.
      default:
        return this.#glitch(); // PRIORITY and unknown frames mean nothing to us.
    }
  }

  /** A complete header block: a request's head, or trailers. @returns 0 or the H2Error that ends the connection. */
  onHeaderBlock(streamId: number, endStream: boolean, bytes: Uint8Array, start: number, end: number): number {
    if ((streamId & 1) === 0) return H2Error.PROTOCOL_ERROR;
    if (streamId <= this.lastStreamId || streamId > this.lastStreamIdTaken) {
      return this.#onTrailers(streamId, endStream, bytes, start, end);
    }
    this.lastStreamId = streamId;
    const fields = new RequestFields(), result = this.#decoder.decode(bytes, start, end, fields);
    if (result < 0) return -result;
    const stream = new ServerStream(this, streamId, this.announced.initialWindowBytes);
    this.streams.set(streamId, stream);
    stream.endReceived = endStream;
    if (this.streams.size > this.#streamsMax) return this.#resetFor(stream, H2Error.REFUSED_STREAM);
    if (result === HEADER_LIST_TOO_LARGE) {
      this.onHeadTooLarge(stream);
      return this.#glitch();
    }
    stream.promisedBytes = contentLength(fields);
    const lies = endStream && (stream.promisedBytes ?? 0) !== 0;
    if (fields.malformed || lies) return this.#resetFor(stream, H2Error.PROTOCOL_ERROR);
    this.onRequest(stream, fields);
    if (endStream && !stream.endSent) stream.sink?.onEnd();
    return 0;
  }

  /** A later block of a stream, which can only end it; or one of a stream that nobody looks at. */
  #onTrailers(streamId: number, endStream: boolean, bytes: Uint8Array, start: number, end: number): number {
    const result = this.#decoder.decode(bytes, start, end, DISCARD); // So that the table stays the sender's.
    if (result < 0) return -result;
    const stream = this.streams.get(streamId);
    if (stream === undefined && this.#mayBeLate(streamId)) return this.#glitch();
    if (stream === undefined || stream.endReceived) return H2Error.STREAM_CLOSED;
    if (!endStream) return this.#resetFor(stream, H2Error.PROTOCOL_ERROR);
    return this.#endRequest(stream);
  }

  /** @returns 0 or the H2Error that ends the connection. */
  #endRequest(stream: ServerStream): number {
    if (stream.endReceived || stream.endSent) return 0;
    stream.endReceived = true;
    if ((stream.promisedBytes ?? 0) !== 0) return this.#resetFor(stream, H2Error.PROTOCOL_ERROR); // RFC 9113 §8.1.1
    stream.sink?.onEnd();
    return 0;
  }

  /** A stream ends for what its client did. That, too, has its bound: whoever makes us reset streams makes us work. */
  #resetFor(stream: ServerStream, error: number): number {
    const { sink } = stream;
    stream.reset(error);
    sink?.onGone(errorName(error));
    return this.#glitch();
  }

  #onReset(streamId: number, error: number): number {
    if (this.#isIdle(streamId)) return H2Error.PROTOCOL_ERROR;
    const stream = this.streams.get(streamId);
    // Opening and resetting streams in a loop must not be free; giving up one that was answered is ordinary.
    const refused = stream?.answered ? 0 : this.#glitch();
    if (stream !== undefined && refused === 0) {
      stream.abandon();
      stream.endReceived = true;
      this.forget(stream);
      stream.sink?.onGone(`reset by the client: ${errorName(error)}`);
    }
    return refused;
  }

  #onSettings(flags: number, bytes: Uint8Array, start: number, end: number): number {
    const before = this.announced.initialWindowBytes;
    const failed = readSettings(flags, bytes, start, end, this.announced);
    if (failed !== 0) return -failed;
    if ((flags & FrameFlag.ACK) !== 0) return this.#glitch();
    const after = this.announced.initialWindowBytes;
    if (after !== before) {
      for (const stream of this.streams.values()) {
        const wrong = checkInitialWindowChange(stream.sendWindow, before, after);
        if (wrong !== 0) return wrong;
        stream.sendWindow += after - before;
      }
      this.wakeWaiting();
    }
    this.sendControl(9, frames.writeSettingsAck);
    return this.#glitch();
  }

  #onPingFrame(flags: number, bytes: Uint8Array, start: number): number {
    const word0 = readUint32(bytes, start), word1 = readUint32(bytes, start + 4);
    if ((flags & FrameFlag.ACK) !== 0) {
      this.onPingAnswered(word1);
      return this.#glitch();
    }
    this.sendControl(17, (target, at) => frames.writePing(target, at, word0, word1, true));
    this.onPing();
    return this.#glitch();
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
    if (this.#isIdle(streamId)) return H2Error.PROTOCOL_ERROR;
    const stream = this.streams.get(streamId);
    if (stream === undefined) return 0; // RFC 9113 §5.1: they may arrive for a while after the end.
    const wrong = checkGrowth(stream.sendWindow, increment);
    if (wrong !== 0) return this.#resetFor(stream, wrong);
    stream.sendWindow += increment;
    if (stream.waiting) this.wake(stream);
    return 0;
  }

  /** DATA of a stream that is over (RFC 9113 §5.1). */
  #onLate(streamId: number): number {
    if (!this.#mayBeLate(streamId)) {
      this.sendControl(13, (target, at) => frames.writeRstStream(target, at, streamId, H2Error.STREAM_CLOSED));
    }
    return this.#glitch();
  }

  /** Whether a stream that is over is over for us alone: its client may not have known yet. */
  #mayBeLate(streamId: number): boolean {
    return this.wasCutShort(streamId) || streamId > this.lastStreamIdTaken;
  }

  /** Whether no such stream was ever opened. */
  #isIdle(streamId: number): boolean {
    return (streamId & 1) === 0 || (streamId > this.lastStreamId && streamId <= this.lastStreamIdTaken);
  }

  /** Counts a legal oddity. @returns 0, or the H2Error when it was one too many. */
  #glitch(): number {
    return this.#glitches.spend(this.now()) ? 0 : H2Error.ENHANCE_YOUR_CALM;
  }
}

/** The length of the body as the head says it; NaN, which no body has, if it says no number. */
function contentLength(fields: RequestFields): number | undefined {
  const text = fields.first("content-length");
  return text === undefined ? undefined : /^\d{1,15}$/.test(text) ? Number(text) : NaN;
}
