/** Records as bytes, from one declaration: the shape is plain data, and encoder, checks and the shape's hash follow from it. */
import { assert } from "./assert.ts";

/** A record's members by name; they are written in this order. */
export interface Fields {
  readonly [name: string]: Shape;
}

/** What a value can be. Numbers in `f64` are finite; `u32` and `i32` are whole. */
export type Shape =
  | "u32"
  | "i32"
  | "f64"
  | "flag"
  | "text"
  | "bytes"
  | { readonly list: Shape }
  | { readonly maybe: Shape }
  | { readonly fields: Fields };

/** The value that a shape stands for. */
export type ValueOf<S extends Shape> = S extends "u32" | "i32" | "f64" ? number
  : S extends "flag" ? boolean
  : S extends "text" ? string
  : S extends "bytes" ? Uint8Array
  : S extends { readonly list: infer E extends Shape } ? readonly ValueOf<E>[]
  : S extends { readonly maybe: infer E extends Shape } ? ValueOf<E> | undefined
  : S extends { readonly fields: infer F extends Fields } ? { readonly [Name in keyof F]: ValueOf<F[Name]> }
  : never;

/** A list of values of one shape. */
export function list<const S extends Shape>(shape: S): { readonly list: S } {
  return { list: shape };
}

/** A value, or undefined. */
export function maybe<const S extends Shape>(shape: S): { readonly maybe: S } {
  return { maybe: shape };
}

/** A record. */
export function record<const F extends Fields>(fields: F): { readonly fields: F } {
  return { fields };
}

/** What two sides compare before they speak: changes with every member's name, order and kind. */
export function shapeHash(shape: Shape): number {
  const text = describe(shape);
  let hash = 0x811c9dc5; // FNV-1a: guards against our own mistakes, not against attackers.
  for (let at = 0; at < text.length; at++) hash = Math.imul(hash ^ text.charCodeAt(at), 0x01000193);
  return hash >>> 0;
}

function describe(shape: Shape): string {
  if (typeof shape === "string") return shape;
  if ("list" in shape) return `[${describe(shape.list)}]`;
  if ("maybe" in shape) return `${describe(shape.maybe)}?`;
  return `{${Object.entries(shape.fields).map(([name, it]) => `${name}:${describe(it)}`).join()}}`;
}

const encoder = new TextEncoder(), decoder = new TextDecoder("utf-8", { fatal: false });

class Sink {
  u8 = new Uint8Array(4096);
  view = new DataView(this.u8.buffer);
  at = 0;

  room(bytes: number): number {
    const from = this.at;
    if (from + bytes > this.u8.length) {
      const grown = new Uint8Array(Math.max(this.u8.length * 2, from + bytes));
      grown.set(this.u8);
      this.u8.fill(0); // Records may hold secrets.
      this.u8 = grown;
      this.view = new DataView(grown.buffer);
    }
    this.at += bytes;
    return from;
  }

  bytes(bytes: Uint8Array): void {
    const from = this.room(4 + bytes.length);
    this.view.setUint32(from, bytes.length, true);
    this.u8.set(bytes, from + 4);
  }
}

/** Reads within its bounds; past them, and at anything malformed, {@link failed} is set and zeros are read. */
class Source {
  readonly u8: Uint8Array;
  readonly view: DataView;
  at = 0;
  failed = false;

  constructor(u8: Uint8Array) {
    this.u8 = u8;
    this.view = new DataView(u8.buffer, u8.byteOffset, u8.byteLength);
  }

  /** @returns Where the bytes are; -1 if there are fewer. */
  take(bytes: number): number {
    if (this.failed || bytes > this.u8.length - this.at) {
      this.failed = true;
      return -1;
    }
    this.at += bytes;
    return this.at - bytes;
  }

  u32(): number {
    const at = this.take(4);
    return at < 0 ? 0 : this.view.getUint32(at, true);
  }

  /** Borrowed from the source. */
  bytes(): Uint8Array {
    const count = this.u32(), at = this.take(count);
    return at < 0 ? new Uint8Array(0) : this.u8.subarray(at, at + count);
  }
}

interface Coder {
  write(sink: Sink, value: unknown): void;
  read(source: Source): unknown;
  /** The fewest bytes of a value, so that a list's length is checked before anything is made. */
  readonly bytesMin: number;
}

const SCALARS: Readonly<Record<string, Coder>> = {
  u32: {
    write(sink, value) {
      assert((value as number) >>> 0 === value, "a u32 is a whole number of 32 bits");
      const at = sink.room(4);
      sink.view.setUint32(at, value as number, true);
    },
    read: (source) => source.u32(),
    bytesMin: 4,
  },
  i32: {
    write(sink, value) {
      assert(((value as number) | 0) === value, "an i32 is a whole number of 32 bits");
      const at = sink.room(4);
      sink.view.setInt32(at, value as number, true);
    },
    read: (source) => source.u32() | 0,
    bytesMin: 4,
  },
  f64: {
    write(sink, value) {
      assert(Number.isFinite(value), "an f64 is finite");
      const at = sink.room(8);
      sink.view.setFloat64(at, value as number, true);
    },
    read(source) {
      const at = source.take(8), value = at < 0 ? 0 : source.view.getFloat64(at, true);
      if (!Number.isFinite(value)) source.failed = true;
      return value;
    },
    bytesMin: 8,
  },
  flag: {
    write(sink, value) {
      const at = sink.room(1);
      sink.u8[at] = value === true ? 1 : 0;
    },
    read(source) {
      const at = source.take(1), value = at < 0 ? 0 : source.u8[at]!;
      if (value > 1) source.failed = true;
      return value === 1;
    },
    bytesMin: 1,
  },
  text: {
    write: (sink, value) => sink.bytes(encoder.encode(value as string)),
    read: (source) => decoder.decode(source.bytes()),
    bytesMin: 4,
  },
  bytes: {
    write: (sink, value) => sink.bytes(value as Uint8Array),
    read: (source) => source.bytes(),
    bytesMin: 4,
  },
};

function coderOf(shape: Shape): Coder {
  if (typeof shape === "string") return SCALARS[shape]!;
  if ("list" in shape) return listCoder(coderOf(shape.list));
  if ("maybe" in shape) return maybeCoder(coderOf(shape.maybe));
  const members = Object.entries(shape.fields).map(([name, it]) => ({ name, coder: coderOf(it) }));
  assert(members.length > 0, "a record has a member");
  return {
    write(sink, value) {
      for (const { name, coder } of members) coder.write(sink, (value as Record<string, unknown>)[name]);
    },
    read(source) {
      const value: Record<string, unknown> = {};
      for (const { name, coder } of members) value[name] = coder.read(source);
      return value;
    },
    bytesMin: members.reduce((sum, { coder }) => sum + coder.bytesMin, 0),
  };
}

function listCoder(item: Coder): Coder {
  return {
    write(sink, value) {
      const items = value as readonly unknown[], at = sink.room(4);
      sink.view.setUint32(at, items.length, true);
      for (const it of items) item.write(sink, it);
    },
    read(source) {
      const count = source.u32(), items: unknown[] = [];
      if (count * item.bytesMin > source.u8.length - source.at) source.failed = true;
      for (let at = 0; at < count && !source.failed; at++) items.push(item.read(source));
      return items;
    },
    bytesMin: 4,
  };
}

function maybeCoder(inner: Coder): Coder {
  return {
    write(sink, value) {
      SCALARS["flag"]!.write(sink, value !== undefined);
      if (value !== undefined) inner.write(sink, value);
    },
    read: (source) => SCALARS["flag"]!.read(source) === true ? inner.read(source) : undefined,
    bytesMin: 1,
  };
}

/** The encoder and decoder of a shape's values. */
export function recordCodec<const S extends Shape>(shape: S): RecordCodec<ValueOf<S>> {
  return new RecordCodec(shape);
}

/** One shape's encoder and decoder; made by {@link recordCodec}, which knows the type of its values. */
export class RecordCodec<Value> {
  readonly hash: number;
  readonly #coder: Coder;

  constructor(shape: Shape) {
    this.hash = shapeHash(shape);
    this.#coder = coderOf(shape);
  }

  encode(value: Value): Uint8Array<ArrayBuffer> {
    const sink = new Sink();
    this.#coder.write(sink, value);
    return sink.u8.subarray(0, sink.at);
  }

  /** @returns The value, whose byte strings are borrowed from `bytes`; undefined unless `bytes` is exactly one. Never throws. */
  decode(bytes: Uint8Array): Value | undefined {
    const source = new Source(bytes), value = this.#coder.read(source);
    return source.failed || source.at !== bytes.length ? undefined : value as Value;
  }
}
