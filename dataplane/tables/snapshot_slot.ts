/** One slot as a reader sees it: keys to rows, rows to contents. Numbers only; nothing here knows the domain. */
import { assert } from "../../base/assert.ts";
import { HashIndex, indexWords } from "../../base/shm/index.ts";
import { EntryKind, EntryWord, hashAddress, hashName, HEAP_AT, KIND_MASK, RowWord } from "./snapshot_format.ts";
import { SlotWord, SNAPSHOT_MAGIC } from "./snapshot_format.ts";

const NAME_BYTES_MAX = 1024; // two DNS names of 253 bytes and a slash fit; longer names take the slow way

/** A cursor is the index place that was found last for the key that was asked last: finish one walk before the next begins. */
export class SnapshotSlot {
  #words = new Int32Array(new SharedArrayBuffer(SlotWord.WORDS * 4));
  #bytes = new Uint8Array(this.#words.buffer);
  #index = new HashIndex(new Int32Array(indexWords(1)));
  #seed = 0;
  #rowsAt = 0;
  #entriesAt = 0;
  #podsAt = 0;
  #podCount = 0;
  readonly #networks = new Map<string, number>();
  readonly #encoder = new TextEncoder();
  #name: Uint8Array<ArrayBuffer> = new Uint8Array(NAME_BYTES_MAX);
  #nameBytes = 0;

  /** Turns to a published slot. */
  attach(buffer: SharedArrayBuffer, generation: number): void {
    if (this.#words.buffer !== buffer) {
      this.#words = new Int32Array(buffer);
      this.#bytes = new Uint8Array(buffer);
    }
    const words = this.#words;
    assert(words[SlotWord.MAGIC] === SNAPSHOT_MAGIC, "a published slot holds a snapshot");
    assert(
      words[SlotWord.GENERATION] === (generation | 0),
      "a published slot holds the generation it was published as",
    );
    this.#seed = words[SlotWord.SEED]!;
    this.#rowsAt = words[SlotWord.ROWS_AT]! / 4;
    this.#entriesAt = words[SlotWord.ENTRIES_AT]! / 4;
    this.#podsAt = words[SlotWord.PODS_AT]! / 4;
    this.#podCount = words[SlotWord.POD_COUNT]!;
    const indexAt = words[SlotWord.INDEX_AT]! / 4;
    this.#index = new HashIndex(words.subarray(indexAt, indexAt + indexWords(words[SlotWord.INDEX_CAPACITY]!)));
  }

  get policiesVersion(): number {
    return this.#words[SlotWord.POLICIES_VERSION]!;
  }

  /** Whether any CIDR of that family has that length. */
  hasPrefix(v4: boolean, length: number): boolean {
    const at = (v4 ? SlotWord.PREFIXES : SlotWord.PREFIXES_V6) + (length >>> 5);
    return (this.#words[at]! >>> (length & 31) & 1) === 1;
  }

  /** The number of a network, or -1. Numbers stand for the process's life, so found ones are kept. */
  networkNumber(network: string): number {
    const known = this.#networks.get(network);
    if (known !== undefined) return known;
    const at = this.firstNamed(EntryKind.NETWORK, network);
    if (at < 0) return -1;
    this.#networks.set(network, this.rowAt(at));
    return this.rowAt(at);
  }

  /** First key of that address, or -1. */
  firstAt(
    kind: number,
    prefixLength: number,
    network: number,
    word0: number,
    word1: number,
    word2: number,
    word3: number,
  ): number {
    const hash = hashAddress(this.#seed, kind, prefixLength, network, word0, word1, word2, word3);
    let place = this.#index.first(hash);
    while (place >= 0 && !this.#isAddress(place, kind, prefixLength, network, word0, word1, word2, word3)) {
      place = this.#index.next(place, hash);
    }
    return place;
  }

  /** The next key equal to the one at `place`, or -1. */
  nextAt(place: number): number {
    const words = this.#words, key = this.#entriesAt + this.#index.valueAt(place) * EntryWord.WORDS;
    const kind = words[key + EntryWord.KIND]! & KIND_MASK, hash = words[key + EntryWord.HASH]!;
    const prefixLength = kind === EntryKind.SERVICE_CIDR ? words[key + EntryWord.KIND]! >>> 8 : 0;
    let next = this.#index.next(place, hash);
    while (
      next >= 0 && !this.#isAddress(
        next,
        kind,
        prefixLength,
        words[key + EntryWord.NETWORK]!,
        words[key + EntryWord.IP]!,
        words[key + EntryWord.IP + 1]!,
        words[key + EntryWord.IP + 2]!,
        words[key + EntryWord.IP + 3]!,
      )
    ) next = this.#index.next(next, hash);
    return next;
  }

  /** First key of that name, or -1. */
  firstNamed(kind: number, name: string): number {
    this.#encode(name);
    const hash = hashName(this.#seed, kind, this.#name, 0, this.#nameBytes);
    return this.#named(this.#index.first(hash), kind, hash);
  }

  /** The next key equal to the one at `place`, or -1. */
  nextNamed(place: number): number {
    const words = this.#words, at = this.#entriesAt + this.#index.valueAt(place) * EntryWord.WORDS;
    const hash = words[at + EntryWord.HASH]!, length = words[at + EntryWord.IP]!;
    const from = HEAP_AT + words[at + EntryWord.NETWORK]!;
    if (this.#name.length < length) this.#name = new Uint8Array(length);
    for (let byte = 0; byte < length; byte++) this.#name[byte] = this.#bytes[from + byte]!;
    this.#nameBytes = length;
    return this.#named(this.#index.next(place, hash), words[at + EntryWord.KIND]!, hash);
  }

  /** The row a key leads to. */
  rowAt(place: number): number {
    return this.#words[this.#entriesAt + this.#index.valueAt(place) * EntryWord.WORDS + EntryWord.VALUE]!;
  }
  /** The rank or prefix length of a key. */
  extraAt(place: number): number {
    return this.#words[this.#entriesAt + this.#index.valueAt(place) * EntryWord.WORDS + EntryWord.KIND]! >>> 8;
  }

  kindOf(row: number): number {
    return this.#words[this.#rowsAt + row * RowWord.WORDS + RowWord.KIND]!;
  }
  versionOf(row: number): number {
    return this.#words[this.#rowsAt + row * RowWord.WORDS + RowWord.VERSION]!;
  }
  linkOf(row: number): number {
    return this.#words[this.#rowsAt + row * RowWord.WORDS + RowWord.LINK]!;
  }
  listLength(row: number): number {
    return this.#words[this.#rowsAt + row * RowWord.WORDS + RowWord.LENGTH]! / 4;
  }
  listItem(row: number, at: number): number {
    const offset = this.#words[this.#rowsAt + row * RowWord.WORDS + RowWord.OFFSET]!;
    return this.#words[(HEAP_AT + offset) / 4 + at]!;
  }
  /** A private copy: decoders of text take no shared memory. */
  contentOf(row: number): Uint8Array<ArrayBuffer> {
    const at = this.#rowsAt + row * RowWord.WORDS, from = HEAP_AT + this.#words[at + RowWord.OFFSET]!;
    const content = new Uint8Array(this.#words[at + RowWord.LENGTH]!);
    content.set(this.#bytes.subarray(from, from + content.length));
    return content;
  }
  /** The row of a pod's workload, or -1. */
  podWorkloadRow(pod: number): number {
    return pod < this.#podCount ? this.#words[this.#podsAt + pod]! : -1;
  }

  #isAddress(
    place: number,
    kind: number,
    prefixLength: number,
    network: number,
    word0: number,
    word1: number,
    word2: number,
    word3: number,
  ): boolean {
    const words = this.#words, at = this.#entriesAt + this.#index.valueAt(place) * EntryWord.WORDS;
    const found = words[at + EntryWord.KIND]!;
    return (found & KIND_MASK) === kind && (kind !== EntryKind.SERVICE_CIDR || found >>> 8 === prefixLength) &&
      words[at + EntryWord.NETWORK] === network && words[at + EntryWord.IP] === (word0 | 0) &&
      words[at + EntryWord.IP + 1] === (word1 | 0) && words[at + EntryWord.IP + 2] === (word2 | 0) &&
      words[at + EntryWord.IP + 3] === (word3 | 0);
  }

  #named(place: number, kind: number, hash: number): number {
    while (place >= 0 && !this.#isName(place, kind)) place = this.#index.next(place, hash);
    return place;
  }

  #isName(place: number, kind: number): boolean {
    const words = this.#words, at = this.#entriesAt + this.#index.valueAt(place) * EntryWord.WORDS;
    if (words[at + EntryWord.KIND] !== kind || words[at + EntryWord.IP] !== this.#nameBytes) return false;
    const from = HEAP_AT + words[at + EntryWord.NETWORK]!;
    for (let byte = 0; byte < this.#nameBytes; byte++) {
      if (this.#bytes[from + byte] !== this.#name[byte]) return false;
    }
    return true;
  }

  #encode(name: string): void {
    // A UTF-16 unit takes at most three bytes of UTF-8.
    if (name.length * 3 > this.#name.length) this.#name = new Uint8Array(name.length * 3);
    this.#nameBytes = this.#encoder.encodeInto(name, this.#name).written;
  }
}
