/** Decodes HPACK header blocks (RFC 7541 §3) without allocating: names come as numbers, names and values as borrowed bytes. */
import { assert } from "../../base/assert.ts";
import { copyBytes } from "../bytes.ts";
import { H2Error } from "./frame_rules.ts";
import {
  headerNameOf,
  STATIC_BYTES,
  STATIC_NAME,
  STATIC_NAME_START,
  STATIC_TABLE,
  STATIC_VALUE_END,
  STATIC_VALUE_START,
} from "./header_names.ts";
import { decodeHuffman } from "./hpack_huffman.ts";
import { ENTRY_OVERHEAD_BYTES, HpackTable, type HpackTableState } from "./hpack_table.ts";

/** Takes headers in the order they came. All bytes are borrowed: they are valid during the call only. */
export interface HeaderSink {
  /** `name` is a HeaderName; a name that is OTHER or OTHER_PSEUDO is told by its bytes. */
  onHeader(
    name: number,
    nameBytes: Uint8Array,
    nameStart: number,
    nameEnd: number,
    valueBytes: Uint8Array,
    valueStart: number,
    valueEnd: number,
  ): void;
}

/** What {@link HpackDecoder.decode} returns for a list beyond its limit; the connection's state is intact. */
export const HEADER_LIST_TOO_LARGE = 1;

const STATIC_COUNT = STATIC_TABLE.length;
const INTEGER_MAX = 1 << 28; // Four continuation octets; nothing that we accept comes near.
const FAILED = -1;

/** One direction of one connection. After an error its table no longer equals the sender's, so the connection is dead. */
export class HpackDecoder {
  readonly #table: HpackTable;
  readonly #listBytesMax: number;
  readonly #scratch: Uint8Array;
  readonly #half: number;
  #at = 0;
  #oversized = false;
  #dead = false;
  #listBytes = 0;
  // The string that readString read last.
  #stringBytes: Uint8Array;
  #stringStart = 0;
  #stringEnd = 0;

  /**
   * @param tableBytesMax our HEADER_TABLE_SIZE. @param headerListBytesMax our MAX_HEADER_LIST_SIZE.
   * @param scratch for Huffman strings; decoders of one thread may share one of {@link scratchBytesFor} bytes.
   */
  constructor(
    tableBytesMax: number,
    headerListBytesMax: number,
    scratch: Uint8Array = new Uint8Array(HpackDecoder.scratchBytesFor(tableBytesMax, headerListBytesMax)),
  ) {
    assert(scratch.length >= HpackDecoder.scratchBytesFor(tableBytesMax, headerListBytesMax), "enough scratch");
    this.#table = new HpackTable(tableBytesMax);
    this.#listBytesMax = headerListBytesMax;
    this.#scratch = scratch;
    this.#half = scratch.length >>> 1;
    this.#stringBytes = scratch;
  }

  /** Half for a name, half for a value, each large enough for whatever is not refused for its size. */
  static scratchBytesFor(tableBytesMax: number, headerListBytesMax: number): number {
    return 2 * Math.max(tableBytesMax, headerListBytesMax);
  }

  /** Octets in the dynamic table as RFC 7541 §4.1 counts them. */
  get tableBytes(): number {
    return this.#table.usedBytes;
  }

  /**
   * Decodes the whole block `bytes[start..end)`. @returns 0; HEADER_LIST_TOO_LARGE (the sink missed what went beyond the
   * limit: refuse the stream); or -H2Error.COMPRESSION_ERROR, also for every later call. Never throws, unless the sink does.
   */
  decode(bytes: Uint8Array, start: number, end: number, sink: HeaderSink): number {
    if (this.#dead) return -H2Error.COMPRESSION_ERROR;
    this.#at = start;
    this.#listBytes = 0;
    this.#oversized = false;
    let mayResize = true; // Size updates stand before the first field only (RFC 7541 §4.2).
    while (this.#at < end) {
      const first = bytes[this.#at]!;
      let well: boolean;
      if (first >= 0x80) well = this.#indexed(bytes, end, sink);
      else if (first >= 0x40) well = this.#literal(bytes, end, 6, sink);
      else if (first >= 0x20) well = mayResize && this.#resize(bytes, end);
      else well = this.#literal(bytes, end, 4, sink);
      if (!well) {
        this.#dead = true;
        return -H2Error.COMPRESSION_ERROR;
      }
      if (first >= 0x40 || first < 0x20) mayResize = false;
    }
    return this.#oversized ? HEADER_LIST_TOO_LARGE : 0;
  }

  /** The dynamic table, for a decoder elsewhere that goes on with this connection. */
  exportTable(): HpackTableState {
    return this.#table.exportEntries();
  }

  /** Goes on where another decoder stopped. @returns false if that cannot have been its table. */
  importTable(state: HpackTableState): boolean {
    return this.#table.importEntries(state);
  }

  /** RFC 7541 §5.1. Advances past the integer. @returns It, or FAILED if it is cut or of more than five octets. */
  #integer(bytes: Uint8Array, end: number, prefixBits: number): number {
    const mask = (1 << prefixBits) - 1;
    let value = bytes[this.#at++]! & mask;
    if (value < mask) return value;
    for (let shift = 0; shift <= 21; shift += 7) {
      if (this.#at >= end) return FAILED;
      const octet = bytes[this.#at++]!;
      value += (octet & 0x7f) << shift;
      if (octet < 0x80) return value < INTEGER_MAX ? value : FAILED;
    }
    return FAILED;
  }

  #resize(bytes: Uint8Array, end: number): boolean {
    const maxBytes = this.#integer(bytes, end, 5);
    return maxBytes !== FAILED && this.#table.resize(maxBytes);
  }

  /** RFC 7541 §6.1. */
  #indexed(bytes: Uint8Array, end: number, sink: HeaderSink): boolean {
    const index = this.#integer(bytes, end, 7);
    if (index <= 0) return false; // Zero is forbidden.
    if (index <= STATIC_COUNT) {
      const nameStart = STATIC_NAME_START[index]!, valueStart = STATIC_VALUE_START[index]!;
      const valueEnd = STATIC_VALUE_END[index]!;
      if (this.#counts(valueEnd - nameStart)) {
        sink.onHeader(
          STATIC_NAME[index]!,
          STATIC_BYTES,
          nameStart,
          valueStart,
          STATIC_BYTES,
          valueStart,
          valueEnd,
        );
      }
      return true;
    }
    const table = this.#table;
    if (index - STATIC_COUNT > table.count) return false;
    const row = table.rowOf(index - STATIC_COUNT - 1);
    const nameStart = table.nameStart(row), valueStart = table.valueStart(row), valueEnd = table.valueEnd(row);
    if (this.#counts(valueEnd - nameStart)) {
      sink.onHeader(table.nameOf(row), table.bytes, nameStart, valueStart, table.bytes, valueStart, valueEnd);
    }
    return true;
  }

  /** RFC 7541 §6.2: with indexing (a prefix of 6 bits), without, or never indexed (4 bits). */
  #literal(bytes: Uint8Array, end: number, prefixBits: number, sink: HeaderSink): boolean {
    const indexing = prefixBits === 6;
    const index = this.#integer(bytes, end, prefixBits);
    if (index === FAILED) return false;
    let name: number, nameBytes: Uint8Array, nameStart: number, nameEnd: number;
    if (index === 0) {
      if (!this.#string(bytes, end, 0)) return false;
      nameBytes = this.#stringBytes;
      nameStart = this.#stringStart;
      nameEnd = this.#stringEnd;
      name = headerNameOf(nameBytes, nameStart, Math.min(nameEnd, nameBytes.length));
    } else if (index <= STATIC_COUNT) {
      nameBytes = STATIC_BYTES;
      nameStart = STATIC_NAME_START[index]!;
      nameEnd = STATIC_VALUE_START[index]!;
      name = STATIC_NAME[index]!;
    } else {
      if (index - STATIC_COUNT > this.#table.count) return false;
      const row = this.#table.rowOf(index - STATIC_COUNT - 1);
      name = this.#table.nameOf(row);
      nameBytes = this.#table.bytes;
      nameStart = this.#table.nameStart(row);
      nameEnd = this.#table.valueStart(row);
      if (indexing) { // Inserting may move or overwrite the table's bytes (RFC 7541 §4.4).
        nameEnd = copyBytes(this.#scratch, 0, nameBytes, nameStart, nameEnd);
        nameBytes = this.#scratch;
        nameStart = 0;
      }
    }
    if (!this.#string(bytes, end, this.#half)) return false;
    const valueBytes = this.#stringBytes, valueStart = this.#stringStart, valueEnd = this.#stringEnd;
    const entryBytes = nameEnd - nameStart + valueEnd - valueStart;
    if (this.#counts(entryBytes)) {
      sink.onHeader(name, nameBytes, nameStart, nameEnd, valueBytes, valueStart, valueEnd);
    }
    // A string that did not fit the scratch is longer than the table, so `insert` would read none of it.
    if (indexing) this.#table.insert(name, nameBytes, nameStart, nameEnd, valueBytes, valueStart, valueEnd);
    return true;
  }

  /** RFC 7541 §5.2. A plain string is borrowed from the block; a Huffman string goes to the scratch from `target` on. */
  #string(bytes: Uint8Array, end: number, target: number): boolean {
    if (this.#at >= end) return false;
    const huffman = bytes[this.#at]! >= 0x80;
    const length = this.#integer(bytes, end, 7);
    if (length === FAILED || length > end - this.#at) return false;
    const start = this.#at;
    this.#at += length;
    if (!huffman) {
      this.#stringBytes = bytes;
      this.#stringStart = start;
      this.#stringEnd = this.#at;
      return true;
    }
    const count = decodeHuffman(bytes, start, this.#at, this.#scratch, target, target + this.#half);
    this.#stringBytes = this.#scratch;
    this.#stringStart = target;
    this.#stringEnd = target + count;
    return count >= 0;
  }

  /** Counts a field against the list's limit. @returns Whether the sink may have it. */
  #counts(fieldBytes: number): boolean {
    this.#listBytes += fieldBytes + ENTRY_OVERHEAD_BYTES;
    if (this.#listBytes > this.#listBytesMax) this.#oversized = true;
    return !this.#oversized;
  }
}
