/** Netlink messages: headers and attributes written to and read from bytes, bounded on both sides (netlink(7)). */
import { assert } from "../../base/assert.ts";

/** Longest request we build: the rules of all units that a node may have, each with all that it may leave out. */
export const REQUEST_BYTES_MAX = 16 * 1024 * 1024;

export const HEADER_BYTES = 16; // struct nlmsghdr: u32 length, u16 type, u16 flags, u32 sequence, u32 port
export const ATTRIBUTE_HEADER_BYTES = 4; // struct nlattr: u16 length, u16 type
const NESTED = 0x8000;
const TYPE_MASK = 0x3fff;

export const NLM_F = {
  REQUEST: 1,
  MULTI: 2,
  ACK: 4,
  DUMP: 0x300,
  REPLACE: 0x100,
  EXCL: 0x200,
  CREATE: 0x400,
  APPEND: 0x800,
} as const;
export const NLMSG = { NOOP: 1, ERROR: 2, DONE: 3, OVERRUN: 4 } as const;

const align = (length: number) => (length + 3) & ~3;
const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** Writes one or more messages one after the other. Host byte order, except where a method's name says `Be`. */
export class MessageWriter {
  #bytes: Uint8Array<ArrayBuffer> = new Uint8Array(4096);
  #view = new DataView(this.#bytes.buffer);
  #at = 0;

  /** One message with its header; `body` writes what follows it. */
  message(type: number, flags: number, sequence: number, body: (writer: MessageWriter) => void): this {
    const start = this.#take(HEADER_BYTES);
    body(this);
    this.#view.setUint32(start, this.#at - start, true);
    this.#view.setUint16(start + 4, type, true);
    this.#view.setUint16(start + 6, flags, true);
    this.#view.setUint32(start + 8, sequence, true);
    return this;
  }

  /** Plain bytes, such as a family header, padded to four. */
  raw(bytes: ArrayLike<number>): this {
    const at = this.#take(bytes.length);
    this.#bytes.set(bytes, at);
    return this;
  }

  bytes(type: number, value: ArrayLike<number>): this {
    const at = this.#attribute(type, value.length);
    this.#bytes.set(value, at);
    return this;
  }

  /** A zero-terminated string. */
  string(type: number, value: string): this {
    return this.bytes(type, encoder.encode(value + "\0"));
  }

  u8(type: number, value: number): this {
    return this.bytes(type, [value]);
  }

  u16(type: number, value: number): this {
    const at = this.#attribute(type, 2); // First: it may replace the view.
    this.#view.setUint16(at, value, true);
    return this;
  }

  u32(type: number, value: number): this {
    const at = this.#attribute(type, 4); // First: it may replace the view.
    this.#view.setUint32(at, value, true);
    return this;
  }

  /** Big-endian, as every number of nf_tables is. */
  u32Be(type: number, value: number): this {
    const at = this.#attribute(type, 4); // First: it may replace the view.
    this.#view.setUint32(at, value);
    return this;
  }

  u64Be(type: number, value: bigint): this {
    const at = this.#attribute(type, 8); // First: it may replace the view.
    this.#view.setBigUint64(at, value);
    return this;
  }

  /** An attribute that holds what `body` writes. */
  nest(type: number, body: (writer: MessageWriter) => void): this {
    const start = this.#attribute(type | NESTED, 0) - ATTRIBUTE_HEADER_BYTES;
    body(this);
    const length = this.#at - start;
    assert(length <= 0xffff, "a nested attribute fits its 16-bit length");
    this.#view.setUint16(start, length, true);
    return this;
  }

  /** The messages written so far; valid until the next one is written. */
  finish(): Uint8Array<ArrayBuffer> {
    return this.#bytes.subarray(0, this.#at);
  }

  #attribute(type: number, valueBytes: number): number {
    assert(valueBytes + ATTRIBUTE_HEADER_BYTES <= 0xffff, "an attribute fits its 16-bit length");
    const at = this.#take(ATTRIBUTE_HEADER_BYTES + valueBytes);
    this.#view.setUint16(at, ATTRIBUTE_HEADER_BYTES + valueBytes, true);
    this.#view.setUint16(at + 2, type, true);
    return at + ATTRIBUTE_HEADER_BYTES;
  }

  #take(length: number): number {
    const at = this.#at;
    this.#at += align(length);
    assert(this.#at <= REQUEST_BYTES_MAX, "a netlink request stays within its bound");
    if (this.#at > this.#bytes.length) {
      const grown = new Uint8Array(Math.max(this.#bytes.length * 2, align(this.#at)));
      grown.set(this.#bytes);
      this.#bytes = grown;
      this.#view = new DataView(grown.buffer);
    }
    return at;
  }
}

/** One message of an answer; `payload` is a copy. */
export interface Message {
  readonly type: number;
  readonly flags: number;
  readonly sequence: number;
  readonly payload: Uint8Array<ArrayBuffer>;
}

/** Cuts a datagram into messages. @returns undefined when a length does not fit the datagram. */
export function readMessages(bytes: Uint8Array): Message[] | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const messages: Message[] = [];
  for (let at = 0; at < bytes.length;) {
    if (bytes.length - at < HEADER_BYTES) return undefined;
    const length = view.getUint32(at, true);
    if (length < HEADER_BYTES || length > bytes.length - at) return undefined;
    messages.push({
      type: view.getUint16(at + 4, true),
      flags: view.getUint16(at + 6, true),
      sequence: view.getUint32(at + 8, true),
      payload: bytes.slice(at + HEADER_BYTES, at + length) as Uint8Array<ArrayBuffer>,
    });
    at += align(length);
  }
  return messages;
}

/** Attributes by type, flags of the type taken off; of a repeated type {@link list} has them all. */
export class Attributes {
  readonly list: readonly { readonly type: number; readonly value: Uint8Array }[];

  private constructor(list: { type: number; value: Uint8Array }[]) {
    this.list = list;
  }

  /** @returns undefined when a length does not fit. */
  static read(bytes: Uint8Array, start = 0): Attributes | undefined {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const list: { type: number; value: Uint8Array }[] = [];
    for (let at = start; at + ATTRIBUTE_HEADER_BYTES <= bytes.length;) {
      const length = view.getUint16(at, true);
      if (length < ATTRIBUTE_HEADER_BYTES || length > bytes.length - at) return undefined;
      list.push({
        type: view.getUint16(at + 2, true) & TYPE_MASK,
        value: bytes.subarray(at + ATTRIBUTE_HEADER_BYTES, at + length),
      });
      at += align(length);
    }
    return new Attributes(list);
  }

  bytes(type: number): Uint8Array | undefined {
    return this.list.find((attribute) => attribute.type === type)?.value;
  }

  string(type: number): string | undefined {
    const value = this.bytes(type);
    if (value === undefined) return undefined;
    const end = value.indexOf(0);
    return decoder.decode(end < 0 ? value : value.subarray(0, end));
  }

  u32(type: number): number | undefined {
    const value = this.bytes(type);
    if (value === undefined || value.length < 4) return undefined;
    return new DataView(value.buffer, value.byteOffset).getUint32(0, true);
  }

  u32Be(type: number): number | undefined {
    const value = this.bytes(type);
    if (value === undefined || value.length < 4) return undefined;
    return new DataView(value.buffer, value.byteOffset).getUint32(0);
  }

  nest(type: number): Attributes | undefined {
    const value = this.bytes(type);
    return value === undefined ? undefined : Attributes.read(value);
  }
}
