/** Writes protobuf messages as proto3 does: fields with their default value are left out, maps sorted by key. */
import protobuf from "protobufjs/minimal";

const VARINT = 0;
const DOUBLE = 1;
const LENGTH_DELIMITED = 2;

/** Builds one message. Every method writes nothing for a default value; `message` always writes, for presence counts. */
export class MessageWriter {
  readonly #writer = new protobuf.Writer();

  text(field: number, value: string): void {
    if (value !== "") this.#text(field, value);
  }

  texts(field: number, values: readonly string[]): void {
    for (const value of values) this.#text(field, value);
  }

  bytes(field: number, value: Uint8Array): void {
    if (value.length > 0) this.bytesEvenEmpty(field, value);
  }

  bytesEvenEmpty(field: number, value: Uint8Array): void {
    this.#writer.uint32((field << 3) | LENGTH_DELIMITED).bytes(value);
  }

  /** An unsigned number, or an enum's value. */
  uint32(field: number, value: number): void {
    if (value !== 0) this.uint32EvenZero(field, value);
  }

  uint32EvenZero(field: number, value: number): void {
    this.#writer.uint32((field << 3) | VARINT).uint32(value);
  }

  /** A signed number; `value` must be a safe integer. */
  int64(field: number, value: number): void {
    if (value !== 0) this.#writer.uint32((field << 3) | VARINT).int64(value);
  }

  bool(field: number, value: boolean): void {
    if (value) this.boolEvenFalse(field, value);
  }

  boolEvenFalse(field: number, value: boolean): void {
    this.#writer.uint32((field << 3) | VARINT).bool(value);
  }

  doubleEvenZero(field: number, value: number): void {
    this.#writer.uint32((field << 3) | DOUBLE).double(value);
  }

  /** A repeated scalar, packed. */
  packed(field: number, values: readonly number[]): void {
    if (values.length === 0) return;
    this.#writer.uint32((field << 3) | LENGTH_DELIMITED).fork();
    for (const value of values) this.#writer.uint32(value);
    this.#writer.ldelim();
  }

  /** A message; `write` fills it. */
  message<T>(field: number, value: T, write: (writer: MessageWriter, value: T) => void): void {
    this.#writer.uint32((field << 3) | LENGTH_DELIMITED).fork();
    write(this, value);
    this.#writer.ldelim();
  }

  messages<T>(field: number, values: readonly T[], write: (writer: MessageWriter, value: T) => void): void {
    for (const value of values) this.message(field, value, write);
  }

  finish(): Uint8Array {
    return this.#writer.finish();
  }

  /** A lone surrogate has no UTF-8 form; it becomes U+FFFD, as everywhere on the platform. */
  #text(field: number, value: string): void {
    this.#writer.uint32((field << 3) | LENGTH_DELIMITED).string(value.isWellFormed() ? value : value.toWellFormed());
  }
}

/** A map's entries in the one order that makes equal maps equal bytes (CP-200): by key, in code units. */
export function sortedEntries<T>(map: ReadonlyMap<string, T>): (readonly [string, T])[] {
  return [...map].sort((left, right) => left[0] < right[0] ? -1 : left[0] > right[0] ? 1 : 0);
}

/** For messages whose presence is all they say. */
export function writeNothing(): void {}
