/** Cuts received bytes into frames, however they arrive; DATA passes through in pieces, everything else whole. */
import { assert } from "../../base/assert.ts";
import { copyBytes, readUint24, readUint31 } from "../bytes.ts";
import { checkFrameHeader, CLIENT_PREFACE, FRAME_HEADER_BYTES, FrameFlag, FrameType, H2Error } from "./frame_rules.ts";

/** Takes frames in order. Bytes are borrowed, valid during the call. Each returns 0, or -H2Error to end the connection. */
export interface FrameSink {
  /**
   * A piece of a DATA payload, without padding; it may be empty. `flowBytes` is what it takes from the windows: over a
   * frame they add up to the whole payload. `ended`: the stream's last piece.
   */
  onData(
    streamId: number,
    bytes: Uint8Array,
    start: number,
    end: number,
    flowBytes: number,
    ended: boolean,
  ): number;
  /** A whole header block: HEADERS and its CONTINUATION frames put together, padding and priority taken off. */
  onHeaders(streamId: number, bytes: Uint8Array, start: number, end: number, ended: boolean): number;
  /** RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE: header checked, payload whole. Others never come here. */
  onFrame(type: number, flags: number, streamId: number, bytes: Uint8Array, start: number, end: number): number;
}

const Phase = { PREFACE: 0, HEADER: 1, PAYLOAD: 2, SKIPPED: 3, PAD_LENGTH: 4, CONTENT: 5, PADDING: 6 } as const;
type Phase = (typeof Phase)[keyof typeof Phase];

// A block of many small CONTINUATION frames costs a peer little and us much; 64 KiB need four of the smallest limit.
const CONTINUATION_COUNT_MAX = 16;
const PADDING_BYTES_MAX = 1 + 255; // Pad length and padding (RFC 9113 §6.2).
const PRIORITY_BYTES = 5;

/** One direction of one connection. After an error it must not be used again. */
export class FrameReader {
  readonly #payloadBytesMax: number;
  readonly #blockBytesMax: number;
  readonly #header = new Uint8Array(FRAME_HEADER_BYTES);
  // Grow when a frame comes in pieces or a block in frames, which is rare; then they are kept.
  #partial = new Uint8Array(64);
  #block = new Uint8Array(0);
  #phase: Phase;
  #filled = 0;
  #type = 0;
  #flags = 0;
  #streamId = 0;
  #payloadBytes = 0;
  #contentLeft = 0;
  #paddingLeft = 0;
  #unreported = 0; // Flow-controlled octets that no onData has told of yet.
  #blockStreamId = 0; // Not 0: a header block is under way.
  #blockBytes = 0;
  #blockEnded = false;
  #continuationCount = 0;
  #sawSettings = false;

  /**
   * @param payloadBytesMax the MAX_FRAME_SIZE that we announced. @param headerBlockBytesMax for a whole block; more ends
   * the connection. @param expectsPreface true for the side that accepts (RFC 9113 §3.4).
   */
  constructor(payloadBytesMax: number, headerBlockBytesMax: number, expectsPreface: boolean) {
    this.#payloadBytesMax = payloadBytesMax;
    this.#blockBytesMax = headerBlockBytesMax;
    this.#phase = expectsPreface ? Phase.PREFACE : Phase.HEADER;
  }

  /** Reads all of `bytes[start..end)` and keeps what is left of a frame. @returns 0, or -H2Error, the sink's or its own. */
  read(bytes: Uint8Array, start: number, end: number, sink: FrameSink): number {
    let at = start, result = 0;
    while (at < end && result === 0) {
      const left = end - at;
      switch (this.#phase) {
        case Phase.PREFACE:
          if (bytes[at++] !== CLIENT_PREFACE[this.#filled++]) return -H2Error.PROTOCOL_ERROR;
          if (this.#filled === CLIENT_PREFACE.length) this.#expectHeader();
          break;
        case Phase.HEADER:
          if (this.#filled === 0 && left >= FRAME_HEADER_BYTES) {
            result = this.#begin(bytes, at, sink);
            at += FRAME_HEADER_BYTES;
          } else {
            this.#header[this.#filled++] = bytes[at++]!;
            if (this.#filled === FRAME_HEADER_BYTES) result = this.#begin(this.#header, 0, sink);
          }
          break;
        case Phase.CONTENT: {
          const piece = left < this.#contentLeft ? left : this.#contentLeft;
          result = this.#content(bytes, at, at + piece, sink);
          at += piece;
          break;
        }
        case Phase.PAYLOAD:
          if (this.#filled === 0 && left >= this.#payloadBytes) {
            at += this.#payloadBytes;
            result = this.#finish(bytes, at - this.#payloadBytes, at, sink);
          } else {
            const piece = Math.min(left, this.#payloadBytes - this.#filled);
            this.#filled = copyBytes(this.#partial, this.#filled, bytes, at, at + piece);
            at += piece;
            if (this.#filled === this.#payloadBytes) result = this.#finish(this.#partial, 0, this.#filled, sink);
          }
          break;
        case Phase.PAD_LENGTH:
          result = this.#padLength(bytes[at++]!, sink);
          break;
        case Phase.PADDING: {
          const piece = Math.min(left, this.#paddingLeft);
          at += piece;
          this.#paddingLeft -= piece;
          this.#unreported += piece;
          if (this.#paddingLeft === 0) result = this.#endData(sink);
          break;
        }
        case Phase.SKIPPED: {
          const piece = Math.min(left, this.#contentLeft);
          at += piece;
          this.#contentLeft -= piece;
          if (this.#contentLeft === 0) this.#expectHeader();
          break;
        }
      }
    }
    return result;
  }

  #expectHeader(): void {
    this.#phase = Phase.HEADER;
    this.#filled = 0;
  }

  #begin(bytes: Uint8Array, at: number, sink: FrameSink): number {
    const payloadBytes = readUint24(bytes, at), type = bytes[at + 3]!, flags = bytes[at + 4]!;
    const streamId = readUint31(bytes, at + 5);
    const error = checkFrameHeader(type, streamId, payloadBytes, this.#payloadBytesMax);
    if (error !== H2Error.NO_ERROR) return -error;
    this.#type = type;
    this.#flags = flags;
    this.#streamId = streamId;
    this.#payloadBytes = payloadBytes;
    this.#filled = 0;
    if (type === FrameType.DATA && this.#sawSettings && this.#blockStreamId === 0) return this.#beginData(sink);
    const orderError = this.#checkOrder(type, flags, streamId);
    if (orderError !== H2Error.NO_ERROR) return -orderError;
    if (type === FrameType.PRIORITY || type > FrameType.CONTINUATION) {
      this.#contentLeft = payloadBytes;
      if (payloadBytes === 0) this.#expectHeader();
      else this.#phase = Phase.SKIPPED;
      return 0;
    }
    if (payloadBytes > this.#blockBytesMax + PADDING_BYTES_MAX + PRIORITY_BYTES) return -H2Error.ENHANCE_YOUR_CALM;
    if (payloadBytes === 0) return this.#finish(this.#partial, 0, 0, sink);
    // Sized even if the frame turns out to be whole in what came: 64 octets hold all that is frequent.
    if (this.#partial.length < payloadBytes) this.#partial = new Uint8Array(payloadBytes);
    this.#phase = Phase.PAYLOAD;
    return 0;
  }

  /** RFC 9113 §3.4: SETTINGS is first. RFC 9113 §6.10: nothing comes between the frames of a header block. */
  #checkOrder(type: number, flags: number, streamId: number): H2Error {
    if (!this.#sawSettings) {
      if (type !== FrameType.SETTINGS || (flags & FrameFlag.ACK) !== 0) return H2Error.PROTOCOL_ERROR;
      this.#sawSettings = true;
    }
    if (this.#blockStreamId !== 0) {
      if (type !== FrameType.CONTINUATION || streamId !== this.#blockStreamId) return H2Error.PROTOCOL_ERROR;
      return ++this.#continuationCount > CONTINUATION_COUNT_MAX ? H2Error.ENHANCE_YOUR_CALM : H2Error.NO_ERROR;
    }
    // We announce that we take no push, and whoever opened the connection may never push (RFC 9113 §8.4).
    if (type === FrameType.CONTINUATION || type === FrameType.PUSH_PROMISE) return H2Error.PROTOCOL_ERROR;
    return H2Error.NO_ERROR;
  }

  #beginData(sink: FrameSink): number {
    this.#contentLeft = this.#payloadBytes;
    this.#paddingLeft = 0;
    this.#unreported = 0;
    if ((this.#flags & FrameFlag.PADDED) !== 0) {
      if (this.#payloadBytes === 0) return -H2Error.FRAME_SIZE_ERROR;
      this.#phase = Phase.PAD_LENGTH;
      return 0;
    }
    if (this.#payloadBytes === 0) return this.#endData(sink);
    this.#phase = Phase.CONTENT;
    return 0;
  }

  #padLength(padBytes: number, sink: FrameSink): number {
    if (padBytes >= this.#payloadBytes) return -H2Error.PROTOCOL_ERROR; // RFC 9113 §6.1
    this.#unreported = 1;
    this.#paddingLeft = padBytes;
    this.#contentLeft = this.#payloadBytes - 1 - padBytes;
    if (this.#contentLeft > 0) this.#phase = Phase.CONTENT;
    else if (padBytes > 0) this.#phase = Phase.PADDING;
    else return this.#endData(sink);
    return 0;
  }

  #content(bytes: Uint8Array, start: number, end: number, sink: FrameSink): number {
    this.#contentLeft -= end - start;
    const flowBytes = end - start + this.#unreported;
    this.#unreported = 0;
    let ended = false;
    if (this.#contentLeft === 0) {
      if (this.#paddingLeft > 0) this.#phase = Phase.PADDING;
      else {
        this.#expectHeader();
        ended = (this.#flags & FrameFlag.END_STREAM) !== 0;
      }
    }
    return sink.onData(this.#streamId, bytes, start, end, flowBytes, ended);
  }

  /** The end of a DATA frame whose last octets were no content. */
  #endData(sink: FrameSink): number {
    this.#expectHeader();
    const ended = (this.#flags & FrameFlag.END_STREAM) !== 0;
    return sink.onData(this.#streamId, this.#partial, 0, 0, this.#unreported, ended);
  }

  #finish(bytes: Uint8Array, start: number, end: number, sink: FrameSink): number {
    this.#expectHeader();
    if (this.#type === FrameType.HEADERS) return this.#headers(bytes, start, end, sink);
    if (this.#type === FrameType.CONTINUATION) return this.#append(bytes, start, end, sink);
    return sink.onFrame(this.#type, this.#flags, this.#streamId, bytes, start, end);
  }

  #headers(bytes: Uint8Array, start: number, end: number, sink: FrameSink): number {
    const flags = this.#flags;
    if ((flags & FrameFlag.PADDED) !== 0) {
      if (start === end) return -H2Error.FRAME_SIZE_ERROR;
      const padBytes = bytes[start++]!;
      if (padBytes > end - start) return -H2Error.PROTOCOL_ERROR; // RFC 9113 §6.2
      end -= padBytes;
    }
    if ((flags & FrameFlag.PRIORITY) !== 0) {
      start += PRIORITY_BYTES;
      if (start > end) return -H2Error.FRAME_SIZE_ERROR;
    }
    const ended = (flags & FrameFlag.END_STREAM) !== 0;
    if (end - start > this.#blockBytesMax) return -H2Error.ENHANCE_YOUR_CALM;
    if ((flags & FrameFlag.END_HEADERS) !== 0) return sink.onHeaders(this.#streamId, bytes, start, end, ended);
    this.#blockStreamId = this.#streamId;
    this.#blockBytes = 0;
    this.#blockEnded = ended;
    this.#continuationCount = 0;
    return this.#append(bytes, start, end, sink);
  }

  #append(bytes: Uint8Array, start: number, end: number, sink: FrameSink): number {
    const blockBytes = this.#blockBytes + end - start;
    if (blockBytes > this.#blockBytesMax) return -H2Error.ENHANCE_YOUR_CALM;
    if (this.#block.length < blockBytes) {
      const grown = new Uint8Array(Math.min(this.#blockBytesMax, Math.max(blockBytes * 2, 1024)));
      copyBytes(grown, 0, this.#block, 0, this.#blockBytes);
      this.#block = grown;
    }
    this.#blockBytes = copyBytes(this.#block, this.#blockBytes, bytes, start, end);
    assert(this.#blockBytes === blockBytes, "the fragment was copied whole");
    if (this.#type === FrameType.HEADERS || (this.#flags & FrameFlag.END_HEADERS) === 0) return 0;
    const streamId = this.#blockStreamId;
    this.#blockStreamId = 0;
    return sink.onHeaders(streamId, this.#block, 0, blockBytes, this.#blockEnded);
  }
}
