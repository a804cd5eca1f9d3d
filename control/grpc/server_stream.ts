/** One HTTP/2 stream of a server: what of a response waits to be sent, and what of a request waits to be read (RFC 9113 §5). */
import { assert } from "../../base/assert.ts";
import { copyBytes } from "../../wire/bytes.ts";
import { FRAME_HEADER_BYTES, H2Error, PAYLOAD_BYTES_MAX_DEFAULT } from "../../wire/h2/frame_rules.ts";
import { NO_TABLE_BYTES, writeNoTable } from "../../wire/h2/hpack_encoder.ts";
import { writeDataHeader, writeHeaders, writeRstStream } from "../../wire/h2/frame_writers.ts";
import type { ConnectionOutput } from "./connection_output.ts";
import { FRAMED_BYTES_MAX, type OutgoingMessage } from "./outgoing_message.ts";

/** Takes what a stream receives. None of it is called after `onGone`. */
export interface StreamSink {
  /** A piece of the request's body, borrowed for the call. Its window stays shut until {@link ServerStream.credit}. */
  onData(bytes: Uint8Array, start: number, end: number): void;
  /** The request is complete. */
  onEnd(): void;
  /** The stream is over before its response was: by the client, for a broken rule, or because it makes no progress. */
  onGone(reason: string): void;
}

/** What a client may send on a stream before somebody reads it; also announced to it. */
export const STREAM_WINDOW_BYTES = 256 * 1024;

const RESET_BYTES = FRAME_HEADER_BYTES + 4;

export class ServerStream {
  readonly id: number;
  readonly #connection: ConnectionOutput;
  /** Null if nobody reads it: then what it receives is thrown away. */
  sink: StreamSink | null = null;
  sendWindow: number;
  receiveWindow = STREAM_WINDOW_BYTES;
  /** Bytes of body that the request's head has promised and that have not come; undefined if it has promised none. */
  promisedBytes: number | undefined;
  /** The client has sent all. */
  endReceived = false;
  /** All is sent, or the stream was reset: nothing leaves any more. */
  endSent = false;
  /** The response has begun. */
  answered = false;
  /** When a byte of it left last, or began to wait. */
  progressAtMs = 0;
  #head: Uint8Array | null = null;
  #message: OutgoingMessage | null = null;
  #part = 0;
  #offset = 0;
  #pendingBytes = 0;
  #begun = false;
  #taken: (() => void) | null = null;
  #trailers: Uint8Array | null = null;
  #credit = 0;

  constructor(connection: ConnectionOutput, id: number, sendWindow: number) {
    this.#connection = connection;
    this.id = id;
    this.sendWindow = sendWindow;
  }

  /** Whether something waits to leave. */
  get waiting(): boolean {
    return !this.endSent && (this.#head !== null || this.#pendingBytes > 0 || this.#trailers !== null);
  }

  /** Begins the response. @param block its header block. */
  sendHead(block: Uint8Array): void {
    assert(!this.answered, "a response has one head");
    if (this.endSent) return;
    this.answered = true;
    this.#head = block;
    this.#wait();
  }

  /** Sends a response that is nothing but a head. */
  sendWhole(block: Uint8Array): void {
    assert(block.length <= PAYLOAD_BYTES_MAX_DEFAULT, "it fits one frame");
    assert(!this.answered, "a response has one head");
    if (this.endSent) return;
    this.answered = true;
    this.#trailers = block;
    this.#wait();
  }

  /** Sends a message. `taken` is called once it has left; it is not if the stream ends before. */
  sendMessage(message: OutgoingMessage, taken: () => void): void {
    assert(this.answered && this.#pendingBytes === 0 && this.#taken === null, "one message is under way at a time");
    if (this.endSent) return;
    this.#message = message;
    this.#part = this.#offset = 0;
    this.#pendingBytes = message.wireBytes;
    this.#begun = false;
    this.#taken = taken;
    this.#wait();
  }

  /** Ends the response. @param now whether data of which nothing has left yet is given up. */
  sendTrailers(block: Uint8Array, now: boolean): void {
    assert(block.length <= PAYLOAD_BYTES_MAX_DEFAULT, "they fit one frame");
    if (this.endSent || this.#trailers !== null) return;
    if (now && this.#pendingBytes > 0) {
      if (this.#begun) return this.reset(H2Error.CANCEL); // A message that breaks off cannot be told from a whole one.
      this.#dropData();
    }
    this.#trailers = block;
    this.#wait();
  }

  /** Gives the stream up. Its sink is not told: whoever calls it knows. */
  reset(error: number): void {
    if (this.endSent) return;
    this.abandon();
    this.#connection.resetStream(this, error);
  }

  /** Nothing of it is sent any more. */
  abandon(): void {
    this.endSent = true;
    this.#head = this.#trailers = null;
    this.#dropData();
  }

  /** Whether {@link write} would write something, were there room. */
  canWrite(connectionWindow: number): boolean {
    if (this.endSent) return false;
    if (this.#head !== null) return true;
    if (this.#pendingBytes > 0) return this.sendWindow > 0 && connectionWindow > 0;
    return this.#trailers !== null;
  }

  /** Bytes that it would write at most, were it alone. */
  writeBytesMax(connectionWindow: number, payloadBytesMax: number): number {
    const data = Math.max(0, Math.min(this.#pendingBytes, this.sendWindow, connectionWindow));
    const frames = Math.ceil(data / payloadBytesMax);
    return data + (frames + 2) * FRAME_HEADER_BYTES + RESET_BYTES + NO_TABLE_BYTES + (this.#head?.length ?? 0) +
      (this.#trailers?.length ?? 0);
  }

  /**
   * Writes what it may: the head, one frame of data, the trailers, as far as there is room. @returns The position after it.
   */
  write(target: Uint8Array, at: number, payloadBytesMax: number, nowMs: number): number {
    const start = at;
    if (this.#head !== null) {
      const block = this.#blockOf(this.#head);
      const after = writeHeaders(target, at, this.id, block, 0, block.length, false, payloadBytesMax);
      if (after < 0) return at;
      this.#connection.announced.blockBegan();
      at = after;
      this.#head = null;
    }
    if (this.#pendingBytes > 0) at = this.#writeData(target, at, payloadBytesMax);
    if (this.#pendingBytes === 0 && this.#trailers !== null) at = this.#writeEnd(target, at, this.#trailers);
    if (at > start) this.progressAtMs = nowMs;
    return at;
  }

  /**
   * All that waits to leave, if that is one message of which nothing has left yet, and the client takes it whole: its
   * frames, shared with other streams. They count as written; null if {@link write} is to cut them.
   */
  takeWhole(payloadBytesMax: number, nowMs: number): Uint8Array | null {
    const message = this.#message, window = Math.min(this.sendWindow, this.#connection.sendWindow);
    if (message === null || this.#begun || this.#head !== null || this.#trailers !== null) return null;
    if (message.wireBytes > Math.min(window, FRAMED_BYTES_MAX)) return null;
    this.#charge(message.wireBytes);
    this.progressAtMs = nowMs;
    return message.framed(this.id, payloadBytesMax);
  }

  /** What to call when the bytes written so far have been taken; null while some of them wait. */
  takeCallback(): (() => void) | null {
    if (this.#pendingBytes > 0) return null;
    const taken = this.#taken;
    this.#taken = null;
    return taken;
  }

  /** Bytes that were received are read: the client may send as many more. */
  credit(bytes: number): void {
    this.#connection.creditConnection(bytes);
    if (this.endReceived || this.endSent) return;
    this.#credit += bytes;
    if (this.#credit < STREAM_WINDOW_BYTES / 2) return;
    this.receiveWindow += this.#credit;
    this.#connection.openWindow(this.id, this.#credit);
    this.#credit = 0;
  }

  /** A client that has not sent its request whole need not any more (RFC 9113 §8.1). */
  #writeEnd(target: Uint8Array, at: number, trailers: Uint8Array): number {
    const block = this.#blockOf(trailers);
    if (at + FRAME_HEADER_BYTES + block.length + RESET_BYTES > target.length) return at;
    at = writeHeaders(target, at, this.id, block, 0, block.length, true, PAYLOAD_BYTES_MAX_DEFAULT);
    this.#connection.announced.blockBegan();
    this.#trailers = null;
    this.endSent = true;
    return this.endReceived ? at : writeRstStream(target, at, this.id, H2Error.NO_ERROR);
  }

  /** A block as it is to be sent now: most are shared by all connections, and begin with what their first one owes. */
  #blockOf(shared: Uint8Array): Uint8Array {
    if (!this.#connection.announced.tableUpdateDue) return shared;
    const block = new Uint8Array(NO_TABLE_BYTES + shared.length);
    block.set(shared, writeNoTable(block, 0));
    return block;
  }

  #writeData(target: Uint8Array, at: number, payloadBytesMax: number): number {
    const room = target.length - at - FRAME_HEADER_BYTES;
    const count = Math.min(this.#pendingBytes, this.sendWindow, this.#connection.sendWindow, payloadBytesMax, room);
    if (count <= 0) return at;
    at = writeDataHeader(target, at, this.id, count, false);
    const parts = this.#message!.wireParts, end = at + count;
    while (at < end) {
      const part = parts[this.#part]!, piece = Math.min(part.length - this.#offset, end - at);
      at = copyBytes(target, at, part, this.#offset, this.#offset + piece);
      this.#offset += piece;
      if (this.#offset < part.length) continue;
      this.#part++;
      this.#offset = 0;
    }
    this.#charge(count);
    return at;
  }

  /** So many bytes of the message leave. */
  #charge(bytes: number): void {
    this.#begun = true;
    this.#pendingBytes -= bytes;
    this.sendWindow -= bytes;
    this.#connection.sendWindow -= bytes;
    if (this.#pendingBytes === 0) this.#message = null; // It is another's, or shared by many: let go of it.
  }

  #dropData(): void {
    this.#message = null;
    this.#pendingBytes = 0;
    this.#taken = null;
  }

  #wait(): void {
    this.progressAtMs = this.#connection.now();
    this.#connection.wake(this);
  }
}
