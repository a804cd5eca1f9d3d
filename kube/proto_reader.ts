/**
 * Reads the fields of objects straight out of their protobuf bytes, into what JSON would have said of them. A field that
 * nobody asks for costs its tag and its length. Everything wrong is a RangeError; how deep it goes the fields say.
 */
import { readShortText, SHORT_TEXT_BYTES } from "../base/short_text.ts";
import { type ProtoField, type ProtoFields, ProtoKind } from "./proto_fields.ts";

const VARINT = 0, FIXED64 = 1, LENGTH_DELIMITED = 2, FIXED32 = 5;
const VARINT_BYTES_MAX = 10;
const HIGH = 2 ** 32;

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

type Values = Record<string, unknown>;

/** Reads a message. @throws RangeError for bytes that are none. */
export function readProto(bytes: Uint8Array, fields: ProtoFields): Values {
  return new Cursor(bytes).message(bytes.length, fields);
}

class Cursor {
  readonly #bytes: Uint8Array;
  #at = 0;
  /** The high half of the last varint. */
  #high = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  message(end: number, fields: ProtoFields): Values {
    const values: Values = {};
    while (this.#at < end) {
      const tag = this.#varint(end), number = tag >>> 3, wireType = tag & 7;
      if (number === 0 || this.#high !== 0) throw new RangeError("a field's number is out of range");
      const field = number < fields.length ? fields[number] : undefined;
      if (field === undefined) this.#skip(wireType, end);
      else this.#field(field, wireType, end, values);
    }
    return values;
  }

  #field(field: ProtoField, wireType: number, end: number, values: Values): void {
    const { name, kind, keepsZero } = field;
    if (kind === ProtoKind.BOOL || kind === ProtoKind.INT) {
      if (wireType !== VARINT) throw new RangeError(`${name} is of another type`);
      const number = kind === ProtoKind.INT ? this.#integer(end) : this.#varint(end);
      if (number === 0 && !keepsZero) return;
      values[name] = kind === ProtoKind.INT ? number : number !== 0 || this.#high !== 0;
      return;
    }
    if (wireType !== LENGTH_DELIMITED) throw new RangeError(`${name} is of another type`);
    const stop = this.#length(end);
    switch (kind) {
      case ProtoKind.TEXT: {
        const value = this.#text(stop);
        if (field.repeated) listOf(values, name).push(value);
        else if (value !== "" || keepsZero) values[name] = value;
        break;
      }
      case ProtoKind.MESSAGE: {
        const value = this.message(stop, field.fields);
        if (field.repeated) listOf(values, name).push(value);
        else values[name] = value;
        break;
      }
      case ProtoKind.BYTES:
        values[name] = this.#bytes.subarray(this.#at, stop);
        this.#at = stop;
        break;
      case ProtoKind.TEXT_MAP:
        this.#entry(field, stop, values);
        break;
      case ProtoKind.TIME: // That of no time is empty.
        if (this.#at < stop) values[name] = timeText(this.#numbers(stop)[1]);
        break;
      case ProtoKind.INT_OR_TEXT:
        values[name] = this.#intOrText(stop);
        break;
    }
  }

  #entry({ name, keeps }: ProtoField, stop: number, values: Values): void {
    let key = "", value = "", kept = true;
    while (this.#at < stop) {
      const tag = this.#varint(stop);
      if (tag === (1 << 3 | LENGTH_DELIMITED)) {
        key = this.#text(this.#length(stop));
        kept = keeps === undefined || keeps(key);
      } else if (tag === (2 << 3 | LENGTH_DELIMITED)) {
        const end = this.#length(stop);
        if (kept) value = this.#text(end);
        else this.#at = end;
      } else throw new RangeError(`${name} is no map of texts`);
    }
    if (!kept) return;
    const map = (values[name] ??= {}) as Values;
    if (key === "__proto__") {
      Object.defineProperty(map, key, { value, enumerable: true, configurable: true, writable: true });
    } else map[key] = value;
  }

  /** A message of integers in fields 1 and 2, whatever else it holds. */
  #numbers(stop: number): readonly [number, number, number] {
    const numbers: [number, number, number] = [0, 0, 0];
    while (this.#at < stop) {
      const tag = this.#varint(stop), number = tag >>> 3;
      if ((tag & 7) === VARINT && (number === 1 || number === 2)) numbers[number] = this.#integer(stop);
      else this.#skip(tag & 7, stop);
    }
    return numbers;
  }

  #intOrText(stop: number): number | string {
    let isText = false, number = 0, value = "";
    while (this.#at < stop) {
      const tag = this.#varint(stop);
      if (tag === (1 << 3 | VARINT)) isText = this.#integer(stop) === 1;
      else if (tag === (2 << 3 | VARINT)) number = this.#integer(stop);
      else if (tag === (3 << 3 | LENGTH_DELIMITED)) value = this.#text(this.#length(stop));
      else throw new RangeError("a number or a text is neither");
    }
    return isText ? value : number;
  }

  #text(stop: number): string {
    const start = this.#at, bytes = this.#bytes;
    this.#at = stop;
    const short = stop - start <= SHORT_TEXT_BYTES ? readShortText(bytes, start, stop) : undefined;
    if (short !== undefined) return short;
    try {
      return utf8.decode(bytes.subarray(start, stop));
    } catch (cause) {
      if (!(cause instanceof TypeError)) throw cause;
      throw new RangeError("a text is no UTF-8", { cause });
    }
  }

  #skip(wireType: number, end: number): void {
    if (wireType === LENGTH_DELIMITED) this.#at = this.#length(end);
    else if (wireType === VARINT) this.#varint(end);
    else if (wireType === FIXED64 || wireType === FIXED32) {
      this.#at += wireType === FIXED64 ? 8 : 4;
      if (this.#at > end) throw new RangeError("a field is cut off");
    } else throw new RangeError("a field is of no known type");
  }

  /** Reads a length. @returns Where what is so long ends. */
  #length(end: number): number {
    const length = this.#varint(end), stop = this.#at + length;
    if (this.#high !== 0 || stop > end) throw new RangeError("a field is cut off");
    return stop;
  }

  /** A signed integer of 64 bits. */
  #integer(end: number): number {
    const low = this.#varint(end), high = this.#high | 0, value = high * HIGH + low;
    if (!Number.isSafeInteger(value)) throw new RangeError("a number is too large");
    return value;
  }

  /** The low half of a varint; the high one is kept aside. */
  #varint(end: number): number {
    const bytes = this.#bytes;
    let low = 0, high = 0;
    for (let count = 0; count < VARINT_BYTES_MAX; count++) {
      if (this.#at >= end) throw new RangeError("a field is cut off");
      const byte = bytes[this.#at++]!, bits = byte & 0x7f;
      if (count < 4) low |= bits << 7 * count;
      else if (count === 4) low |= bits << 28, high = bits >>> 4;
      else high |= bits << 7 * count - 32;
      if (byte >= 0x80) continue;
      this.#high = high >>> 0;
      return low >>> 0;
    }
    throw new RangeError("a number has no end");
  }
}

function listOf(values: Values, name: string): unknown[] {
  return (values[name] ??= []) as unknown[];
}

const TIME_SECONDS_MAX = 253_402_300_799; // The end of the year 9999.
let lastSeconds = 0, lastText = "1970-01-01T00:00:00Z";

/** RFC 3339, to the second, as the API server writes times in JSON. Many objects are of one second. */
function timeText(seconds: number): string {
  if (seconds === lastSeconds) return lastText;
  if (Math.abs(seconds) > TIME_SECONDS_MAX) throw new RangeError("a time is out of range");
  lastText = `${new Date(seconds * 1_000).toISOString().slice(0, -5)}Z`;
  lastSeconds = seconds;
  return lastText;
}
