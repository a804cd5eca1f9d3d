/** A message on its way out: encoded once for any number of calls, and put into frames once for all that may send it whole. */
import { Buffer } from "node:buffer";
import { copyBytes } from "../../wire/bytes.ts";
import { messagePrefix } from "../../wire/grpc/message_reader.ts";
import { writeDataHeader } from "../../wire/h2/frame_writers.ts";
import { FRAME_HEADER_BYTES } from "../../wire/h2/frame_rules.ts";

/** A longer message is cut for each connection by itself: it is seldom the same for many, and kept framed it would be held twice. */
export const FRAMED_BYTES_MAX = 64 * 1024;
/** Stream numbers that frames are kept for: that of clients' first calls is the same, and those of later ones are few. */
const FRAMED_STREAMS_MAX = 4;

export class OutgoingMessage {
  /** Its bytes in pieces, which are never changed. */
  readonly parts: readonly Uint8Array[];
  /** What leaves for it: its gRPC prefix, and the pieces. */
  readonly wireParts: readonly Uint8Array[];
  /** Of the message alone. */
  readonly byteLength: number;
  /** With its prefix: what a stream's window is charged. */
  readonly wireBytes: number;
  #framed: Map<number, Uint8Array> | undefined;
  #payloadBytesMax = 0;

  constructor(parts: readonly Uint8Array[]) {
    this.byteLength = parts.reduce((sum, part) => sum + part.length, 0);
    const prefix = messagePrefix(this.byteLength);
    this.parts = parts;
    this.wireParts = [prefix, ...parts];
    this.wireBytes = prefix.length + this.byteLength;
  }

  /**
   * The whole message as DATA frames of a stream with this number, for a client that takes payloads of up to so much. The
   * bytes are everybody's: whoever writes them must not change them.
   */
  framed(streamId: number, payloadBytesMax: number): Uint8Array {
    if (this.#framed === undefined || this.#payloadBytesMax !== payloadBytesMax) {
      this.#framed = new Map();
      this.#payloadBytesMax = payloadBytesMax;
    }
    let frames = this.#framed.get(streamId);
    if (frames === undefined) {
      if (this.#framed.size === FRAMED_STREAMS_MAX) this.#framed.clear();
      this.#framed.set(streamId, frames = this.#frame(streamId, payloadBytesMax));
    }
    return frames;
  }

  #frame(streamId: number, payloadBytesMax: number): Uint8Array {
    const count = Math.ceil(this.wireBytes / payloadBytesMax);
    const target = Buffer.allocUnsafeSlow(this.wireBytes + count * FRAME_HEADER_BYTES);
    let at = 0, payloadEnd = 0, left = this.wireBytes;
    for (const part of this.wireParts) {
      for (let offset = 0; offset < part.length;) {
        if (at === payloadEnd) {
          const payload = Math.min(left, payloadBytesMax);
          at = writeDataHeader(target, at, streamId, payload, false);
          payloadEnd = at + payload;
          left -= payload;
        }
        const piece = Math.min(part.length - offset, payloadEnd - at);
        at = copyBytes(target, at, part, offset, offset + piece);
        offset += piece;
      }
    }
    return target;
  }
}
