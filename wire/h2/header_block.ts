/** Puts a header block together: HEADERS without its padding and priority, and the CONTINUATIONs behind it (RFC 9113 §6.2, §6.10). */
import { FrameFlag, FrameType, H2Error } from "./frame_rules.ts";

/** Takes header blocks. */
export interface HeaderBlockSink {
  /** A whole block, bytes[start..end), borrowed for the call. @returns 0 or the H2Error that ends the connection. */
  onHeaderBlock(streamId: number, endStream: boolean, bytes: Uint8Array, start: number, end: number): number;
}

/** A block that has come in part. */
export interface HeaderBlockState {
  readonly streamId: number;
  readonly endStream: boolean;
  readonly bytes: Uint8Array;
}

const FIRST_BYTES = 16_384; // One more frame of the usual size fits behind the first; what is announced alone costs nothing.
const NOTHING = new Uint8Array(0);

/** The block under way on one connection. A block of one frame, as nearly all are, is handed on where it lies. */
export class HeaderBlock {
  readonly #sink: HeaderBlockSink;
  readonly #bytesMax: number;
  #streamId = 0;
  #endStream = false;
  #collected: Uint8Array = NOTHING;
  #collectedBytes = 0;

  /** @param bytesMax of a block in several frames; a longer one ends the connection with ENHANCE_YOUR_CALM. */
  constructor(sink: HeaderBlockSink, bytesMax: number) {
    this.#sink = sink;
    this.#bytesMax = bytesMax;
  }

  /** Whether a block is under way: then only its next part may come (RFC 9113 §6.10). */
  get open(): boolean {
    return this.#streamId !== 0;
  }

  /** Whether a frame may come now, as far as blocks are concerned. */
  allows(type: number, streamId: number): boolean {
    if (this.#streamId === 0) return type !== FrameType.CONTINUATION;
    return type === FrameType.CONTINUATION && streamId === this.#streamId;
  }

  /** Takes the payload of HEADERS, which {@link allows} let in. @returns 0 or an H2Error. */
  onHeaders(flags: number, streamId: number, bytes: Uint8Array, start: number, end: number): number {
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
    if ((flags & FrameFlag.END_HEADERS) !== 0) {
      return this.#sink.onHeaderBlock(streamId, endStream, bytes, start, end);
    }
    this.#streamId = streamId;
    this.#endStream = endStream;
    this.#collectedBytes = 0;
    return this.#append(bytes, start, end);
  }

  /** Takes the payload of CONTINUATION, which {@link allows} let in. @returns 0 or an H2Error. */
  onContinuation(flags: number, bytes: Uint8Array, start: number, end: number): number {
    const refused = this.#append(bytes, start, end);
    if (refused !== 0 || (flags & FrameFlag.END_HEADERS) === 0) return refused;
    const collected = this.#collected, streamId = this.#streamId;
    this.drop();
    return this.#sink.onHeaderBlock(streamId, this.#endStream, collected, 0, this.#collectedBytes);
  }

  /** Forgets what is under way. */
  drop(): void {
    this.#streamId = 0;
    this.#collected = NOTHING;
  }

  /** What has come of a block, for a connection in another process; undefined if none is under way. Copies. */
  exportState(): HeaderBlockState | undefined {
    if (this.#streamId === 0) return undefined;
    const bytes = this.#collected.slice(0, this.#collectedBytes);
    return { streamId: this.#streamId, endStream: this.#endStream, bytes };
  }

  /** Goes on where another one stopped. @returns false if none can have stopped there. */
  importState({ streamId, endStream, bytes }: HeaderBlockState): boolean {
    if (streamId === 0) return false;
    this.#streamId = streamId;
    this.#endStream = endStream;
    this.#collectedBytes = 0;
    return this.#append(bytes, 0, bytes.length) === 0;
  }

  #append(bytes: Uint8Array, start: number, end: number): number {
    const needed = this.#collectedBytes + end - start;
    if (needed > this.#bytesMax) return H2Error.ENHANCE_YOUR_CALM;
    if (needed > this.#collected.length) {
      const roomBytes = Math.max(needed, FIRST_BYTES, 2 * this.#collected.length);
      const grown = new Uint8Array(Math.min(roomBytes, this.#bytesMax));
      grown.set(this.#collected.subarray(0, this.#collectedBytes));
      this.#collected = grown;
    }
    this.#collected.set(bytes.subarray(start, end), this.#collectedBytes);
    this.#collectedBytes = needed;
    return 0;
  }
}
