/** The agent's own image of the next snapshot: changed in place, copied whole or in part into the idle slot. */
import { isIpv4 } from "../../base/address.ts";
import { assert } from "../../base/assert.ts";
import { HashIndex, indexWords } from "../../base/shm/index.ts";
import {
  EntryKind,
  EntryWord,
  hashAddress,
  hashName,
  HEAP_AT,
  KIND_MASK,
  RowKind,
  RowWord,
} from "./snapshot_format.ts";
import { SlotWord, SNAPSHOT_MAGIC } from "./snapshot_format.ts";

const COMPACT_BYTES_MIN = 1024 * 1024; // below that, garbage is not worth a copy
const encoder = new TextEncoder();

/** What a slot holds of the heap: a part already copied need not be copied again. */
export interface SlotCopy {
  heapEpoch: number;
  heapBytes: number;
}

/** Rows, keys and heap of a mesh, in private memory. Numbers of rows and entries are reused once freed. */
export class SnapshotImage {
  readonly seed: number;
  /** Grows with any change of a policy. */
  policiesVersion = 0;
  #rows = new Int32Array(1024 * RowWord.WORDS);
  #rowCount = 0;
  #freeRows: number[] = [];
  #entries = new Int32Array(1024 * EntryWord.WORDS);
  #entryCount = 0;
  #freeEntries: number[] = [];
  #index = new HashIndex(new Int32Array(indexWords(1024)));
  #heap = new Uint8Array(64 * 1024);
  #heapBytes = 0;
  #garbageBytes = 0;
  #heapEpoch = 1;
  #version = 0;
  /** How many CIDR keys have each length: IPv4 0 to 32, then IPv6 0 to 128. */
  #prefixCounts = new Int32Array(33 + 129);

  /** @param seed random, so that nobody outside can aim at one chain of the index. */
  constructor(seed: number) {
    this.seed = seed | 0;
  }

  /** Moves what is in use together: if that frees much, or if there is no room for `slotBytes` otherwise. */
  tidy(roomBytes: number, podCount: number): void {
    const worthIt = this.#garbageBytes > COMPACT_BYTES_MIN && this.#garbageBytes > this.#heapBytes / 2;
    if (worthIt || this.slotBytes(podCount) > roomBytes) this.#compact();
  }

  /** Bytes a slot needs for this image. */
  slotBytes(podCount: number): number {
    return HEAP_AT + align(this.#heapBytes) +
      4 * (this.#rowCount * RowWord.WORDS + this.#entryCount * EntryWord.WORDS + this.#index.words.length + podCount);
  }

  /** Adds a resource or list. */
  addRow(kind: number, content: Uint8Array): number {
    const row = this.#freeRows.pop() ?? this.#rowCount++;
    const needed = this.#rowCount * RowWord.WORDS;
    if (needed > this.#rows.length) this.#rows = enlarged(this.#rows, needed);
    const at = row * RowWord.WORDS;
    this.#rows[at + RowWord.KIND] = kind;
    this.#rows[at + RowWord.LENGTH] = 0;
    this.#rows[at + RowWord.LINK] = -1;
    this.setContent(row, content);
    return row;
  }

  /** Replaces a row's content, which gets a version of its own. */
  setContent(row: number, content: Uint8Array): void {
    const at = row * RowWord.WORDS;
    this.#garbageBytes += align(this.#rows[at + RowWord.LENGTH]!);
    this.#rows[at + RowWord.LENGTH] = 0;
    this.#rows[at + RowWord.OFFSET] = this.#append(content);
    this.#rows[at + RowWord.LENGTH] = content.length;
    this.touch(row);
  }

  /** Gives a row a new version: what readers derived from it no longer stands. */
  touch(row: number): void {
    this.#version = (this.#version + 1) | 0 || 1; // 0 is what readers have of a row they never read.
    this.#rows[row * RowWord.WORDS + RowWord.VERSION] = this.#version;
  }

  setLink(row: number, link: number): void {
    this.#rows[row * RowWord.WORDS + RowWord.LINK] = link;
  }

  removeRow(row: number): void {
    const at = row * RowWord.WORDS;
    assert(this.#rows[at] !== RowKind.FREE, "a row is removed once");
    this.#garbageBytes += align(this.#rows[at + RowWord.LENGTH]!);
    this.#rows[at + RowWord.KIND] = RowKind.FREE;
    this.#rows[at + RowWord.LENGTH] = 0;
    this.touch(row);
    this.#freeRows.push(row);
  }

  /** Adds a key of an address. `extra` is the rank of a workload or the length of a CIDR, whose bits beyond are 0. */
  addAddress(kind: number, extra: number, network: number, ip: Readonly<ArrayLike<number>>, value: number): void {
    const hash = this.#hashOf(kind, extra, network, ip);
    const at = this.#addEntry(hash, kind | (extra << 8), value);
    this.#entries[at + EntryWord.NETWORK] = network;
    for (let word = 0; word < 4; word++) this.#entries[at + EntryWord.IP + word] = ip[word]!;
    if (kind === EntryKind.SERVICE_CIDR) this.#prefixCounts[prefixSlot(extra, ip)]!++;
  }

  /** Takes a key of an address away again; it must be there. */
  removeAddress(kind: number, extra: number, network: number, ip: Readonly<ArrayLike<number>>, value: number): void {
    const hash = this.#hashOf(kind, extra, network, ip);
    this.#removeEntry(hash, (at) => {
      const entries = this.#entries;
      if (entries[at + EntryWord.KIND] !== (kind | (extra << 8)) || entries[at + EntryWord.VALUE] !== value) {
        return false;
      }
      for (let word = 0; word < 4; word++) if (entries[at + EntryWord.IP + word] !== (ip[word]! | 0)) return false;
      return entries[at + EntryWord.NETWORK] === network;
    });
    if (kind === EntryKind.SERVICE_CIDR) this.#prefixCounts[prefixSlot(extra, ip)]!--;
  }

  addName(kind: number, name: string, value: number): void {
    const text = encoder.encode(name);
    const offset = this.#append(text);
    const at = this.#addEntry(hashName(this.seed, kind, text, 0, text.length), kind, value);
    this.#entries[at + EntryWord.NETWORK] = offset;
    this.#entries[at + EntryWord.IP] = text.length;
  }

  removeName(kind: number, name: string, value: number): void {
    const text = encoder.encode(name);
    this.#garbageBytes += align(text.length);
    this.#removeEntry(hashName(this.seed, kind, text, 0, text.length), (at) => {
      const entries = this.#entries;
      if (entries[at + EntryWord.KIND] !== kind || entries[at + EntryWord.VALUE] !== value) return false;
      const offset = entries[at + EntryWord.NETWORK]!, length = entries[at + EntryWord.IP]!;
      if (length !== text.length) return false;
      for (let byte = 0; byte < length; byte++) if (this.#heap[offset + byte] !== text[byte]) return false;
      return true;
    });
  }

  /** Copies the image into a slot; of the heap just what the slot has not got yet. The slot must have `slotBytes` room. */
  copyInto(slot: SharedArrayBuffer, copied: SlotCopy, generation: number, pods: Int32Array): void {
    assert(this.slotBytes(pods.length) <= slot.byteLength, "a snapshot fits its slot");
    const words = new Int32Array(slot);
    const from = copied.heapEpoch === this.#heapEpoch ? copied.heapBytes : 0;
    new Uint8Array(slot, HEAP_AT).set(this.#heap.subarray(from, this.#heapBytes), from);
    copied.heapEpoch = this.#heapEpoch;
    copied.heapBytes = this.#heapBytes;

    let end = words.length;
    const place = (source: Int32Array, length: number): number => {
      end -= length;
      words.set(source.subarray(0, length), end);
      return end * 4;
    };
    words[SlotWord.ROWS_AT] = place(this.#rows, this.#rowCount * RowWord.WORDS);
    words[SlotWord.ENTRIES_AT] = place(this.#entries, this.#entryCount * EntryWord.WORDS);
    words[SlotWord.INDEX_AT] = place(this.#index.words, this.#index.words.length);
    words[SlotWord.PODS_AT] = place(pods, pods.length);
    words[SlotWord.MAGIC] = SNAPSHOT_MAGIC;
    words[SlotWord.GENERATION] = generation;
    words[SlotWord.ROW_COUNT] = this.#rowCount;
    words[SlotWord.ENTRY_COUNT] = this.#entryCount;
    words[SlotWord.INDEX_CAPACITY] = this.#index.capacity;
    words[SlotWord.POD_COUNT] = pods.length;
    words[SlotWord.SEED] = this.seed;
    words[SlotWord.POLICIES_VERSION] = this.policiesVersion;
    words.fill(0, SlotWord.PREFIXES, SlotWord.WORDS);
    this.#writePrefixes(words, SlotWord.PREFIXES, 0, 32);
    this.#writePrefixes(words, SlotWord.PREFIXES_V6, 33, 128);
  }

  #writePrefixes(words: Int32Array, at: number, first: number, longest: number): void {
    for (let length = 0; length <= longest; length++) {
      if (this.#prefixCounts[first + length]! > 0) words[at + (length >>> 5)]! |= 1 << (length & 31);
    }
  }

  #hashOf(kind: number, extra: number, network: number, ip: Readonly<ArrayLike<number>>): number {
    const prefixLength = kind === EntryKind.SERVICE_CIDR ? extra : 0; // A rank is not part of the key.
    return hashAddress(this.seed, kind & KIND_MASK, prefixLength, network, ip[0]!, ip[1]!, ip[2]!, ip[3]!);
  }

  /** @returns Where the entry's words begin. */
  #addEntry(hash: number, kind: number, value: number): number {
    const entry = this.#freeEntries.pop() ?? this.#entryCount++;
    const needed = this.#entryCount * EntryWord.WORDS;
    if (needed > this.#entries.length) this.#entries = enlarged(this.#entries, needed);
    const at = entry * EntryWord.WORDS;
    this.#entries.fill(0, at, at + EntryWord.WORDS);
    this.#entries[at + EntryWord.HASH] = hash;
    this.#entries[at + EntryWord.KIND] = kind;
    this.#entries[at + EntryWord.VALUE] = value;
    this.#index = this.#index.grown();
    this.#index.put(hash, entry);
    return at;
  }

  #removeEntry(hash: number, matches: (at: number) => boolean): void {
    let slot = this.#index.first(hash);
    while (slot >= 0 && !matches(this.#index.valueAt(slot) * EntryWord.WORDS)) slot = this.#index.next(slot, hash);
    assert(slot >= 0, "a key that is removed was there");
    const entry = this.#index.valueAt(slot);
    this.#index.remove(hash, entry);
    this.#entries[entry * EntryWord.WORDS + EntryWord.KIND] = EntryKind.FREE;
    this.#freeEntries.push(entry);
  }

  #append(content: Uint8Array): number {
    const offset = this.#heapBytes;
    this.#heapBytes += align(content.length);
    if (this.#heapBytes > this.#heap.length) {
      const larger = new Uint8Array(Math.max(this.#heapBytes, this.#heap.length * 2));
      larger.set(this.#heap.subarray(0, offset));
      this.#heap = larger;
    }
    this.#heap.set(content, offset);
    return offset;
  }

  /** Moves everything still in use to the front of a new heap; both slots then need all of it again. */
  #compact(): void {
    const old = this.#heap;
    this.#heap = new Uint8Array(Math.max(64 * 1024, this.#heapBytes - this.#garbageBytes));
    this.#heapBytes = 0;
    this.#garbageBytes = 0;
    this.#heapEpoch++;
    for (let at = 0; at < this.#rowCount * RowWord.WORDS; at += RowWord.WORDS) {
      if (this.#rows[at + RowWord.KIND] === RowKind.FREE) continue;
      const offset = this.#rows[at + RowWord.OFFSET]!, length = this.#rows[at + RowWord.LENGTH]!;
      this.#rows[at + RowWord.OFFSET] = this.#append(old.subarray(offset, offset + length));
    }
    for (let at = 0; at < this.#entryCount * EntryWord.WORDS; at += EntryWord.WORDS) {
      if ((this.#entries[at + EntryWord.KIND]! & KIND_MASK) < EntryKind.NETWORK) continue; // Free, or an address.
      const offset = this.#entries[at + EntryWord.NETWORK]!, length = this.#entries[at + EntryWord.IP]!;
      this.#entries[at + EntryWord.NETWORK] = this.#append(old.subarray(offset, offset + length));
    }
  }
}

/** Contents start at whole words, so that lists can be read as words. */
function align(bytes: number): number {
  return (bytes + 3) & ~3;
}

function prefixSlot(prefixLength: number, ip: Readonly<ArrayLike<number>>): number {
  return isIpv4(ip[0]!, ip[1]!, ip[2]!) ? prefixLength : 33 + prefixLength;
}

function enlarged(words: Int32Array, needed: number): Int32Array<ArrayBuffer> {
  const larger = new Int32Array(Math.max(needed, words.length * 2));
  larger.set(words);
  return larger;
}
