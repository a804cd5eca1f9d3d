/** The dynamic table of HPACK (RFC 7541 §2.3.2, §4) in flat memory. */
import { assert } from "../../base/assert.ts";
import { copyBytes } from "../bytes.ts";
import { headerNameOf } from "./header_names.ts";

/** A table's content between two blocks. */
export interface HpackTableState {
  readonly maxBytes: number;
  readonly entries: readonly { readonly name: Uint8Array; readonly value: Uint8Array }[];
}

/** What each entry counts besides its octets (RFC 7541 §4.1). */
export const ENTRY_OVERHEAD_BYTES = 32;

/**
 * Entries lie one after the other, oldest first. The buffer is twice the table's limit: when its end is reached the live
 * entries, at most one half, move to the front, so each byte is moved less than once for each byte inserted.
 */
export class HpackTable {
  readonly bytes: Uint8Array;
  /** What the settings allow; a size update may stay below it (RFC 7541 §4.2). */
  readonly limitBytes: number;
  #maxBytes: number;
  #usedBytes = 0;
  #writeAt = 0;
  // Rows of a ring: start, value's start, end, name.
  readonly #starts: Uint32Array;
  readonly #valueStarts: Uint32Array;
  readonly #ends: Uint32Array;
  readonly #names: Uint8Array;
  readonly #rowCount: number;
  #oldest = 0;
  #count = 0;

  constructor(limitBytes: number) {
    assert(limitBytes >= 0 && limitBytes <= 1 << 20, "a table of at most 1 MiB");
    this.limitBytes = limitBytes;
    this.#maxBytes = limitBytes;
    this.#rowCount = Math.floor(limitBytes / ENTRY_OVERHEAD_BYTES) + 1;
    this.bytes = new Uint8Array(limitBytes * 2);
    this.#starts = new Uint32Array(this.#rowCount);
    this.#valueStarts = new Uint32Array(this.#rowCount);
    this.#ends = new Uint32Array(this.#rowCount);
    this.#names = new Uint8Array(this.#rowCount);
  }

  get count(): number {
    return this.#count;
  }

  get usedBytes(): number {
    return this.#usedBytes;
  }

  /** The row of an index that counts from the newest entry, 0 first; the caller has checked it against `count`. */
  rowOf(index: number): number {
    return (this.#oldest + this.#count - 1 - index) % this.#rowCount;
  }

  nameStart(row: number): number {
    return this.#starts[row]!;
  }
  valueStart(row: number): number {
    return this.#valueStarts[row]!;
  }
  valueEnd(row: number): number {
    return this.#ends[row]!;
  }
  nameOf(row: number): number {
    return this.#names[row]!;
  }

  /** Changes the size (RFC 7541 §4.3). @returns false if it is above the limit. */
  resize(maxBytes: number): boolean {
    if (maxBytes > this.limitBytes) return false;
    this.#maxBytes = maxBytes;
    this.#evictTo(maxBytes);
    return true;
  }

  #evictTo(usedBytesMax: number): void {
    while (this.#usedBytes > usedBytesMax) {
      const row = this.#oldest;
      this.#usedBytes -= this.#ends[row]! - this.#starts[row]! + ENTRY_OVERHEAD_BYTES;
      this.#oldest = (row + 1) % this.#rowCount;
      this.#count--;
    }
  }

  /** Empties the table, as an entry greater than it does (RFC 7541 §4.4). */
  clear(): void {
    this.#evictTo(0);
  }

  /** Inserts an entry and evicts what no longer fits (RFC 7541 §4.4). Neither part may lie in this table's own bytes. */
  insert(
    name: number,
    nameBytes: Uint8Array,
    nameStart: number,
    nameEnd: number,
    valueBytes: Uint8Array,
    valueStart: number,
    valueEnd: number,
  ): void {
    assert(nameBytes !== this.bytes && valueBytes !== this.bytes, "an evicted part would be overwritten while read");
    const entryBytes = nameEnd - nameStart + valueEnd - valueStart;
    if (entryBytes + ENTRY_OVERHEAD_BYTES > this.#maxBytes) return this.clear();
    this.#evictTo(this.#maxBytes - entryBytes - ENTRY_OVERHEAD_BYTES);
    if (this.#writeAt + entryBytes > this.bytes.length) this.#moveToFront();
    const row = (this.#oldest + this.#count) % this.#rowCount;
    this.#starts[row] = this.#writeAt;
    this.#valueStarts[row] = copyBytes(this.bytes, this.#writeAt, nameBytes, nameStart, nameEnd);
    this.#writeAt = copyBytes(this.bytes, this.#valueStarts[row]!, valueBytes, valueStart, valueEnd);
    this.#ends[row] = this.#writeAt;
    this.#names[row] = name;
    this.#count++;
    this.#usedBytes += entryBytes + ENTRY_OVERHEAD_BYTES;
  }

  /** All entries, oldest first, for a table elsewhere that goes on from here. Copies. */
  exportEntries(): HpackTableState {
    const entries: { name: Uint8Array; value: Uint8Array }[] = [];
    for (let index = this.#count - 1; index >= 0; index--) {
      const row = this.rowOf(index), from = this.#starts[row]!, value = this.#valueStarts[row]!;
      entries.push({ name: this.bytes.slice(from, value), value: this.bytes.slice(value, this.#ends[row]!) });
    }
    return { maxBytes: this.#maxBytes, entries };
  }

  /** Fills an empty table with what another exported. @returns false if that cannot be a table of this limit. */
  importEntries(state: HpackTableState): boolean {
    if (!this.resize(state.maxBytes)) return false;
    for (const { name, value } of state.entries) {
      const id = headerNameOf(name, 0, name.length), had = this.#count;
      this.insert(id, name, 0, name.length, value, 0, value.length);
      if (this.#count !== had + 1) return false; // Something was evicted: no table holds more than its size.
    }
    return true;
  }

  #moveToFront(): void {
    const moved = this.#count === 0 ? this.#writeAt : this.#starts[this.#oldest]!;
    this.bytes.copyWithin(0, moved, this.#writeAt);
    for (let index = 0; index < this.#count; index++) {
      const row = (this.#oldest + index) % this.#rowCount;
      this.#starts[row] = this.#starts[row]! - moved;
      this.#valueStarts[row] = this.#valueStarts[row]! - moved;
      this.#ends[row] = this.#ends[row]! - moved;
    }
    this.#writeAt -= moved;
  }
}
