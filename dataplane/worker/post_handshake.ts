/** Handshake messages that come after the handshake: tickets are dropped, keys are updated (RFC 8446 §4.6). */

const NEW_SESSION_TICKET = 4, KEY_UPDATE = 24;
const MESSAGE_HEADER_BYTES = 4;
/** A ticket may fill a record, and begin in the one before. */
const MESSAGE_BYTES_MAX = 18_432;

/** What a record of handshake messages asks for. */
export const PostHandshake = {
  NOTHING: 0,
  /** The peer's next record is under its next key. */
  KEY_UPDATED: 1,
  /** The same, and ours is to follow. */
  KEY_REQUESTED: 2,
  /** unexpected_message: the session ends. */
  UNEXPECTED: -10,
  /** decode_error: the session ends. */
  MALFORMED: -50,
} as const;
export type PostHandshake = (typeof PostHandshake)[keyof typeof PostHandshake];

/** Collects messages over record borders. */
export class PostHandshakeReader {
  readonly #server: boolean;
  #bytes: Uint8Array | null = null;
  #count = 0;

  constructor(server: boolean) {
    this.#server = server;
  }

  /** Whether a message has begun and not ended: no other record may come before it does. */
  get unfinished(): boolean {
    return this.#count > 0;
  }

  /** The part of a message that has come. A copy. */
  exportState(): Uint8Array {
    return this.#bytes === null ? new Uint8Array(0) : this.#bytes.slice(0, this.#count);
  }

  /** @returns false if no reader keeps so much. */
  importState(bytes: Uint8Array): boolean {
    if (bytes.length > MESSAGE_BYTES_MAX) return false;
    this.#count = bytes.length;
    if (bytes.length === 0) return true;
    this.#bytes = new Uint8Array(MESSAGE_BYTES_MAX);
    this.#bytes.set(bytes);
    return true;
  }

  /** Takes the content of a record, bytes[start..end). */
  read(bytes: Uint8Array, start: number, end: number): PostHandshake {
    const have = this.#count + end - start;
    if (start === end || have > MESSAGE_BYTES_MAX) return PostHandshake.UNEXPECTED;
    const buffer = this.#bytes ??= new Uint8Array(MESSAGE_BYTES_MAX);
    buffer.set(bytes.subarray(start, end), this.#count);
    let at = 0;
    while (have - at >= MESSAGE_HEADER_BYTES) {
      const type = buffer[at]!, length = buffer[at + 1]! << 16 | buffer[at + 2]! << 8 | buffer[at + 3]!;
      if (type === KEY_UPDATE) {
        if (length !== 1) return PostHandshake.MALFORMED;
        if (have - at < MESSAGE_HEADER_BYTES + 1) break;
        const request = buffer[at + MESSAGE_HEADER_BYTES]!;
        // Keys change between records: nothing may follow in this one (RFC 8446 §5.1).
        if (have - at !== MESSAGE_HEADER_BYTES + 1) return PostHandshake.UNEXPECTED;
        if (request > 1) return PostHandshake.MALFORMED;
        this.#count = 0;
        this.#bytes = null;
        return request === 1 ? PostHandshake.KEY_REQUESTED : PostHandshake.KEY_UPDATED;
      }
      if (type !== NEW_SESSION_TICKET || this.#server) return PostHandshake.UNEXPECTED;
      if (length > MESSAGE_BYTES_MAX - MESSAGE_HEADER_BYTES) return PostHandshake.MALFORMED;
      if (have - at < MESSAGE_HEADER_BYTES + length) break;
      at += MESSAGE_HEADER_BYTES + length;
    }
    buffer.copyWithin(0, at, have);
    this.#count = have - at;
    if (this.#count === 0) this.#bytes = null;
    return PostHandshake.NOTHING;
  }
}
