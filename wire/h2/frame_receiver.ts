/** Cuts a session's plaintext into frames, however it arrives. DATA is handed on in place; other payloads are whole. */
import { readUint24, readUint31 } from "../bytes.ts";
import { checkFrameHeader, FRAME_HEADER_BYTES, FrameFlag, FrameType, H2Error } from "./frame_rules.ts";

/** What a session does with frames. Each returns 0, or an H2Error that ends the session. */
export interface FrameSink {
  /** DATA begins: its flow-controlled size, padding included. */
  onData(streamId: number, flowBytes: number): number;
  /** A piece of the payload, at that place of what is being received: borrowed for the call. */
  onDataPiece(at: number, bytes: number): void;
  /** DATA is complete; `paddingBytes` of its flow-controlled size were no payload. */
  onDataEnd(endStream: boolean, paddingBytes: number): void;
  /** Any other frame of a known type; the payload is bytes[start..end), borrowed for the call. */
  onFrame(type: number, flags: number, streamId: number, bytes: Uint8Array, start: number, end: number): number;
}

/** Where the input of a receiver stands, in a form that another one can go on from. */
export interface ReceiverState {
  readonly at: number;
  readonly header: Uint8Array;
  readonly type: number;
  readonly flags: number;
  readonly streamId: number;
  readonly left: number;
  readonly paddingLeft: number;
  readonly paddingBytes: number;
  readonly collected: Uint8Array | undefined;
  readonly collectedBytes: number;
}

/** Largest payload of a frame other than DATA that we collect: a header list of 64 KiB is the most anyone may send. */
const COLLECTED_BYTES_MAX = 65_536;
const AT_HEADER = 0, AT_PADDING_LENGTH = 1, AT_PAYLOAD = 2, AT_PADDING = 3, AT_COLLECTED = 4, AT_IGNORED = 5;

/** The state of one session's input between two records. */
export class FrameReceiver {
  readonly #sink: FrameSink;
  readonly #payloadBytesMax: number;
  readonly #header = new Uint8Array(FRAME_HEADER_BYTES);
  #headerBytes = 0;
  #at: number = AT_HEADER;
  #type = 0;
  #flags = 0;
  #streamId = 0;
  #left = 0;
  #paddingLeft = 0;
  #paddingBytes = 0;
  #collected: Uint8Array | null = null;
  #collectedBytes = 0;

  /** @param payloadBytesMax What we announced as MAX_FRAME_SIZE. */
  constructor(sink: FrameSink, payloadBytesMax: number) {
    this.#sink = sink;
    this.#payloadBytesMax = payloadBytesMax;
  }

  /** Whether the input ends between two frames. */
  get betweenFrames(): boolean {
    return this.#at === AT_HEADER && this.#headerBytes === 0;
  }

  /** Where the input stands, for a receiver in another process. Copies. */
  exportState(): ReceiverState {
    return {
      at: this.#at,
      header: this.#header.slice(0, this.#headerBytes),
      type: this.#type,
      flags: this.#flags,
      streamId: this.#streamId,
      left: this.#left,
      paddingLeft: this.#paddingLeft,
      paddingBytes: this.#paddingBytes,
      collected: this.#collected?.slice(),
      collectedBytes: this.#collectedBytes,
    };
  }

  /** Goes on where another receiver stopped. @returns false if none can have stopped there. */
  importState(state: ReceiverState): boolean {
    const { at, header, left, paddingLeft, collected, collectedBytes } = state;
    const plausible = at <= AT_IGNORED && header.length < FRAME_HEADER_BYTES && left <= this.#payloadBytesMax &&
      paddingLeft <= 255 && state.paddingBytes <= 256 && state.type <= 255 && state.flags <= 255 &&
      (at === AT_COLLECTED || collected === undefined) && (at === AT_HEADER || header.length === 0) &&
      (at !== AT_COLLECTED || (left >= 1 && left <= COLLECTED_BYTES_MAX)) &&
      (collected === undefined ? collectedBytes === 0 : collected.length === left && collectedBytes < left);
    if (!plausible || ((at === AT_PAYLOAD || at === AT_IGNORED) && left === 0)) return false;
    if ((at === AT_PADDING && paddingLeft === 0) || (at === AT_PADDING_LENGTH && left === 0)) return false;
    this.#at = at;
    this.#header.set(header);
    this.#headerBytes = header.length;
    this.#type = state.type;
    this.#flags = state.flags;
    this.#streamId = state.streamId;
    this.#left = left;
    this.#paddingLeft = paddingLeft;
    this.#paddingBytes = state.paddingBytes;
    this.#collected = collected === undefined ? null : collected.slice();
    this.#collectedBytes = collectedBytes;
    return true;
  }

  /** Takes plaintext at bytes[at..end). @returns 0, or the H2Error that ends the session. */
  receive(bytes: Uint8Array, at: number, end: number): number {
    while (at < end) {
      if (this.#at === AT_HEADER) {
        let error: number;
        if (this.#headerBytes === 0 && end - at >= FRAME_HEADER_BYTES) {
          error = this.#begin(bytes, at);
          at += FRAME_HEADER_BYTES;
        } else {
          this.#header[this.#headerBytes++] = bytes[at++]!;
          if (this.#headerBytes < FRAME_HEADER_BYTES) continue;
          this.#headerBytes = 0;
          error = this.#begin(this.#header, 0);
        }
        if (error !== 0) return error;
        continue;
      }
      const available = end - at;
      if (this.#at === AT_PAYLOAD) {
        const piece = this.#left < available ? this.#left : available;
        this.#left -= piece;
        this.#sink.onDataPiece(at, piece);
        at += piece;
        if (this.#left === 0) this.#endPayload();
      } else if (this.#at === AT_COLLECTED) {
        const wanted = this.#left;
        if (this.#collectedBytes === 0 && available >= wanted) {
          at += wanted;
          const error = this.#deliver(bytes, at - wanted, at);
          if (error !== 0) return error;
          continue;
        }
        this.#collected ??= new Uint8Array(wanted);
        const piece = wanted - this.#collectedBytes < available ? wanted - this.#collectedBytes : available;
        for (let index = 0; index < piece; index++) this.#collected[this.#collectedBytes + index] = bytes[at + index]!;
        this.#collectedBytes += piece;
        at += piece;
        if (this.#collectedBytes === wanted) {
          const collected = this.#collected;
          this.#collected = null;
          this.#collectedBytes = 0;
          const error = this.#deliver(collected, 0, wanted);
          if (error !== 0) return error;
        }
      } else if (this.#at === AT_PADDING_LENGTH) {
        this.#paddingLeft = bytes[at++]!;
        this.#left--;
        if (this.#paddingLeft > this.#left) return H2Error.PROTOCOL_ERROR; // RFC 9113 §6.1
        this.#paddingBytes = this.#paddingLeft + 1;
        this.#left -= this.#paddingLeft;
        this.#at = AT_PAYLOAD;
        if (this.#left === 0) this.#endPayload();
      } else if (this.#at === AT_PADDING) {
        const piece = this.#paddingLeft < available ? this.#paddingLeft : available;
        this.#paddingLeft -= piece;
        at += piece;
        if (this.#paddingLeft === 0) this.#endData();
      } else {
        const piece = this.#left < available ? this.#left : available;
        this.#left -= piece;
        at += piece;
        if (this.#left === 0) this.#at = AT_HEADER;
      }
    }
    return 0;
  }

  /** @returns 0 or an H2Error. */
  #begin(bytes: Uint8Array, at: number): number {
    const payloadBytes = readUint24(bytes, at), type = bytes[at + 3]!, flags = bytes[at + 4]!;
    const streamId = readUint31(bytes, at + 5);
    const wrong = checkFrameHeader(type, streamId, payloadBytes, this.#payloadBytesMax);
    if (wrong !== H2Error.NO_ERROR) return wrong;
    this.#type = type;
    this.#flags = flags;
    this.#streamId = streamId;
    this.#left = payloadBytes;
    if (type === FrameType.DATA) {
      const refused = this.#sink.onData(streamId, payloadBytes);
      if (refused !== 0) return refused;
      this.#paddingLeft = 0;
      this.#paddingBytes = 0;
      if ((flags & FrameFlag.PADDED) !== 0) {
        if (payloadBytes === 0) return H2Error.FRAME_SIZE_ERROR;
        this.#at = AT_PADDING_LENGTH;
      } else {
        this.#at = AT_PAYLOAD;
        if (payloadBytes === 0) this.#endPayload();
      }
      return 0;
    }
    if (type > FrameType.CONTINUATION) { // RFC 9113 §5.5: unknown types are dropped, in this place uncollected.
      this.#at = payloadBytes === 0 ? AT_HEADER : AT_IGNORED;
      return this.#sink.onFrame(type, flags, streamId, bytes, 0, 0);
    }
    if (payloadBytes > COLLECTED_BYTES_MAX) return H2Error.ENHANCE_YOUR_CALM;
    this.#at = AT_COLLECTED;
    return payloadBytes === 0 ? this.#deliver(bytes, at, at) : 0;
  }

  #deliver(bytes: Uint8Array, start: number, end: number): number {
    this.#at = AT_HEADER;
    return this.#sink.onFrame(this.#type, this.#flags, this.#streamId, bytes, start, end);
  }

  #endPayload(): void {
    if (this.#paddingLeft > 0) this.#at = AT_PADDING;
    else this.#endData();
  }

  #endData(): void {
    this.#at = AT_HEADER;
    this.#sink.onDataEnd((this.#flags & FrameFlag.END_STREAM) !== 0, this.#paddingBytes);
  }
}
