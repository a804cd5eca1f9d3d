/** Typed access to the rows of a table in shared memory. A field of another table or width does not compile. */
import { assert } from "../assert.ts";
import type { Field, RowShape } from "./layout.ts";

/** Every table starts with its layout's hash, row count and row size, in a cache line of its own. */
export const TABLE_HEADER_BYTES = 64;

/** Bytes a table of `rowCount` rows takes, header included: whole cache lines, so that tables share none. */
export function tableBytes(shape: RowShape<string>, rowCount: number): number {
  return TABLE_HEADER_BYTES + Math.ceil(shape.rowWords * 4 * rowCount / 64) * 64;
}

/** Prepares a zeroed region as a table. Once, by its owner, before anyone opens it. */
export function formatTable(
  buffer: SharedArrayBuffer,
  byteOffset: number,
  shape: RowShape<string>,
  rowCount: number,
): void {
  assert(byteOffset % 64 === 0, "a table starts at a cache line");
  assert(byteOffset + tableBytes(shape, rowCount) <= buffer.byteLength, "a table fits its buffer");
  const header = new Uint32Array(buffer, byteOffset, 3);
  header[1] = rowCount;
  header[2] = shape.rowWords;
  Atomics.store(header, 0, shape.hash);
}

/**
 * The rows of one table. Accessors check nothing at run time but what the typed arrays do: rows come from our own
 * tables. Plain words and f64 have one writer; a reader elsewhere may see them late, never half.
 */
export class Rows<Table extends string> {
  readonly rowCount: number;
  readonly rowWords: number;
  readonly #rowDoubles: number;
  readonly #rowBytes: number;
  readonly #u32: Uint32Array<SharedArrayBuffer>;
  readonly #i32: Int32Array<SharedArrayBuffer>;
  readonly #f64: Float64Array<SharedArrayBuffer>;
  readonly #u8: Uint8Array<SharedArrayBuffer>;

  /** Opens a formatted table; refuses one that was formatted for another layout. */
  constructor(buffer: SharedArrayBuffer, byteOffset: number, shape: RowShape<Table>) {
    const header = new Uint32Array(buffer, byteOffset, 3);
    assert(Atomics.load(header, 0) === shape.hash, `the table at ${byteOffset} was built for layout ${shape.table}`);
    assert(header[2] === shape.rowWords, "a table's row size follows from its layout");
    this.rowCount = header[1]!;
    this.rowWords = shape.rowWords;
    this.#rowDoubles = shape.rowWords / 2;
    this.#rowBytes = shape.rowWords * 4;
    const from = byteOffset + TABLE_HEADER_BYTES, words = this.rowCount * this.rowWords;
    this.#u32 = new Uint32Array(buffer, from, words);
    this.#i32 = new Int32Array(buffer, from, words);
    this.#f64 = new Float64Array(buffer, from, words / 2);
    this.#u8 = new Uint8Array(buffer, from, words * 4);
  }

  get(row: number, field: Field<Table, "u32">): number {
    return this.#u32[row * this.rowWords + field]!;
  }
  getI32(row: number, field: Field<Table, "i32">): number {
    return this.#i32[row * this.rowWords + field]!;
  }
  /** Stores a plain word; a negative number only makes sense in an i32. */
  set(row: number, field: Field<Table, "u32"> | Field<Table, "i32">, value: number): void {
    this.#i32[row * this.rowWords + field] = value;
  }
  getF64(row: number, field: Field<Table, "f64">): number {
    return this.#f64[row * this.#rowDoubles + field]!;
  }
  setF64(row: number, field: Field<Table, "f64">, value: number): void {
    this.#f64[row * this.#rowDoubles + field] = value;
  }
  addF64(row: number, field: Field<Table, "f64">, amount: number): void {
    this.#f64[row * this.#rowDoubles + field]! += amount;
  }

  load(row: number, field: Field<Table, "atomic">): number {
    return Atomics.load(this.#u32, row * this.rowWords + field);
  }
  store(row: number, field: Field<Table, "atomic">, value: number): void {
    Atomics.store(this.#u32, row * this.rowWords + field, value);
  }
  /** @returns The value before. */
  or(row: number, field: Field<Table, "atomic">, bits: number): number {
    return Atomics.or(this.#u32, row * this.rowWords + field, bits);
  }
  /** @returns The value before. */
  and(row: number, field: Field<Table, "atomic">, bits: number): number {
    return Atomics.and(this.#u32, row * this.rowWords + field, bits);
  }
  /** @returns The value before. */
  add(row: number, field: Field<Table, "atomic">, amount: number): number {
    return Atomics.add(this.#u32, row * this.rowWords + field, amount);
  }
  /** @returns The value found; it was replaced if that is `expected`. */
  compareExchange(row: number, field: Field<Table, "atomic">, expected: number, replacement: number): number {
    return Atomics.compareExchange(this.#u32, row * this.rowWords + field, expected, replacement);
  }

  getAt(row: number, field: Field<Table, "u32[]">, at: number): number {
    return this.#u32[row * this.rowWords + field + at]!;
  }
  getI32At(row: number, field: Field<Table, "i32[]">, at: number): number {
    return this.#i32[row * this.rowWords + field + at]!;
  }
  setAt(row: number, field: Field<Table, "u32[]"> | Field<Table, "i32[]">, at: number, value: number): void {
    this.#i32[row * this.rowWords + field + at] = value;
  }
  getF64At(row: number, field: Field<Table, "f64[]">, at: number): number {
    return this.#f64[row * this.#rowDoubles + field + at]!;
  }
  setF64At(row: number, field: Field<Table, "f64[]">, at: number, value: number): void {
    this.#f64[row * this.#rowDoubles + field + at] = value;
  }
  addF64At(row: number, field: Field<Table, "f64[]">, at: number, amount: number): void {
    this.#f64[row * this.#rowDoubles + field + at]! += amount;
  }

  /** Copies `source` into a bytes field. The caller keeps its length in a field of its own. */
  writeBytes(row: number, field: Field<Table, "bytes">, source: Uint8Array): void {
    this.#u8.set(source, row * this.#rowBytes + field);
  }
  /** A private copy of the first `length` bytes: text decoders take no shared memory. */
  readBytes(row: number, field: Field<Table, "bytes">, length: number): Uint8Array<ArrayBuffer> {
    const from = row * this.#rowBytes + field;
    const copy = new Uint8Array(length);
    copy.set(this.#u8.subarray(from, from + length));
    return copy;
  }
  /** Zeroes a whole row. */
  clear(row: number): void {
    this.#u32.fill(0, row * this.rowWords, (row + 1) * this.rowWords);
  }
}
