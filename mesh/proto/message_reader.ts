/** Reads protobuf messages of untrusted origin: every length checked, depth bounded, text valid UTF-8. */
import protobuf from "protobufjs/minimal";
import { readShortText, SHORT_TEXT_BYTES } from "../../base/short_text.ts";
import { WireFormatError } from "./wire_format_error.ts";

/** Nesting allowed: google.protobuf.Struct is the only recursive message, and 64 is protobuf's usual bound within 100. */
const DEPTH_MAX = 64;
/** One xDS resource. Kubernetes stores no object above 1.5 MiB, so a larger resource is not one. */
export const RESOURCE_BYTES_MAX = 4 * 1024 * 1024;

const VARINT = 0;
const LENGTH_DELIMITED = 2;
const GROUP_START = 3;
const GROUP_END = 4;

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/**
 * A cursor over one message and, through {@link MessageReader.message}, those inside it. Ask `next()`, then read the
 * `field` with exactly one of the typed methods or `skip()`. A known field with another wire type is an error.
 */
export class MessageReader {
  /** The number of the field that `next()` found. */
  field = 0;
  #wireType = 0;
  #depth = 0;
  readonly #reader: protobuf.Reader;

  constructor(bytes: Uint8Array) {
    this.#reader = new protobuf.Reader(bytes);
  }

  /** Moves to the next field of the message being read. @returns false at the message's end. */
  next(): boolean {
    if (this.#reader.pos >= this.#reader.len) return false;
    const tag = this.#reader.tag();
    this.field = tag >>> 3;
    this.#wireType = tag & 7;
    if (this.field === 0) throw new WireFormatError("a field has number 0");
    return true;
  }

  skip(): void {
    // Groups are no part of proto3, and skipping them would recurse at the sender's will.
    if (this.#wireType === GROUP_START || this.#wireType === GROUP_END) {
      throw new WireFormatError(`field ${this.field} is a group`);
    }
    this.#reader.skipType(this.#wireType);
  }

  bytes(): Uint8Array {
    const start = this.#take();
    return this.#reader.buf.subarray(start, this.#reader.pos);
  }

  /** Moves behind a field of bytes. @returns Where they start; they end at the reader's position. */
  #take(): number {
    this.#expect(LENGTH_DELIMITED);
    const reader = this.#reader;
    const length = reader.size(), start = reader.pos;
    if (length > reader.len - start) throw new WireFormatError(`field ${this.field} is cut off`);
    reader.pos = start + length;
    return start;
  }

  text(): string {
    const start = this.#take(), { buf, pos: end } = this.#reader;
    const short = end - start <= SHORT_TEXT_BYTES ? readShortText(buf, start, end) : undefined;
    if (short !== undefined) return short;
    try {
      return utf8.decode(buf.subarray(start, end));
    } catch (cause) {
      if (!(cause instanceof TypeError)) throw cause;
      throw new WireFormatError(`field ${this.field} is not valid UTF-8`, { cause });
    }
  }

  uint32(): number {
    this.#expect(VARINT);
    return this.#reader.uint32();
  }

  int32(): number {
    this.#expect(VARINT);
    return this.#reader.int32();
  }

  bool(): boolean {
    this.#expect(VARINT);
    return this.#reader.bool();
  }

  /** A signed 64-bit integer; refused where a number cannot hold it exactly. */
  int64(): number {
    this.#expect(VARINT);
    const reader = this.#reader;
    let value = 0n;
    for (let shift = 0n; shift < 70n; shift += 7n) {
      if (reader.pos >= reader.len) throw new WireFormatError(`field ${this.field} is cut off`);
      const byte = reader.buf[reader.pos++]!;
      value |= BigInt(byte & 0x7f) << shift;
      if (byte >= 0x80) continue;
      const number = Number(BigInt.asIntN(64, value));
      if (!Number.isSafeInteger(number)) throw new WireFormatError(`field ${this.field} is too large a number`);
      return number;
    }
    throw new WireFormatError(`field ${this.field} is no varint`);
  }

  double(): number {
    this.#expect(1);
    return this.#reader.double();
  }

  /** A port: 0 to 65535, anything else is refused rather than cut to 16 bits. */
  port(): number {
    const port = this.uint32();
    if (port > 65535) throw new WireFormatError(`port ${port} is above 65535`);
    return port;
  }

  /** One of the values 0 to `max`; another value is from a newer peer, and guessing its meaning is not safe (ZT-108). */
  enumeration(name: string, max: number): number {
    const value = this.int32();
    if (value < 0 || value > max) throw new WireFormatError(`unknown ${name} ${value}`);
    return value;
  }

  /** A uint32 with presence, written as an optional scalar or as google.protobuf.UInt32Value: peers know both. */
  presentUint32(): number {
    return this.#wireType === VARINT ? this.uint32() : this.message(readUint32Value);
  }

  /** Appends one or, if packed, several values of a repeated uint32 or enum field. */
  repeatedUint32(values: number[]): void {
    if (this.#wireType === VARINT) values.push(this.#reader.uint32());
    else this.#expect(LENGTH_DELIMITED), this.#reader.uint32s(values);
  }

  /** Reads the message in this field with `decode`, which must read until `next()` is false. */
  message<T>(decode: (reader: MessageReader) => T): T {
    this.#expect(LENGTH_DELIMITED);
    const reader = this.#reader, outerEnd = reader.len;
    const length = reader.size();
    if (length > outerEnd - reader.pos) throw new WireFormatError(`field ${this.field} is cut off`);
    if (++this.#depth > DEPTH_MAX) throw new WireFormatError(`messages are nested deeper than ${DEPTH_MAX}`);
    reader.len = reader.pos + length;
    const value = decode(this);
    reader.len = outerEnd;
    this.#depth--;
    return value;
  }

  #expect(wireType: number): void {
    if (this.#wireType === wireType) return;
    throw new WireFormatError(`field ${this.field} has wire type ${this.#wireType}, expected ${wireType}`);
  }
}

/** Reads a whole message. @throws WireFormatError for anything wrong with the bytes, and nothing else. */
export function readMessage<T>(
  bytes: Uint8Array,
  bytesMax: number,
  name: string,
  decode: (reader: MessageReader) => T,
): T {
  if (bytes.length > bytesMax) {
    throw new WireFormatError(`${name} has ${bytes.length} bytes, the most allowed is ${bytesMax}`);
  }
  try {
    return decode(new MessageReader(bytes));
  } catch (cause) {
    // The library reports bad bytes as RangeError or as a bare Error; any other class is our own mistake.
    if (!(cause instanceof RangeError) && !(cause instanceof Error && cause.constructor === Error)) throw cause;
    throw new WireFormatError(`malformed ${name}: ${cause.message}`, { cause });
  }
}

/** For messages without fields that mean anything to us. */
export function skipAll(reader: MessageReader): void {
  while (reader.next()) reader.skip();
}

function readUint32Value(reader: MessageReader): number {
  let value = 0;
  while (reader.next()) {
    if (reader.field === 1) value = reader.uint32();
    else reader.skip();
  }
  return value;
}
