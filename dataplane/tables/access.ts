/** Access records: what a worker says of a connection at its end, in a ring of its own. Nothing waits: a full ring drops and counts. */
import { assert } from "../../base/assert.ts";
import { Ring } from "../../base/shm/ring.ts";
import type { TableHandles } from "./handles.ts";

/** COMPLETE at the end of a counted connection, OPENED when it is counted (ZT-204), EARLY if it never was (ZT-205), LOG a line of the worker's own. */
export const AccessKind = { COMPLETE: 0, OPENED: 1, EARLY: 2, LOG: 3 } as const;

/** What a LOG record is about, in place of its direction. */
export const LogScope = { WORKER: 0, POLICY: 1 } as const;

export const ACCESS_WORDS = 128; // 512 bytes: 24 words of facts, the rest text
export const ACCESS_ENTRIES = 4096; // 2 MiB a worker; at 20,000 connections a second a fifth of a second

const KIND = 0, DIRECTION = 1, FLOW_ROW = 2, FLOW_EPOCH = 3, FLAG = 4, SOURCE_PORT = 5, DESTINATION_PORT = 6;
const AUTHORITY_PORT = 7, SOURCE = 8, DESTINATION = 12, AUTHORITY = 16, AUTHORITY_BYTES = 20, ERROR_BYTES = 21;
const DOUBLES = 11, RECEIVED = 11, SENT = 12, DURATION = 13; // in doubles
const TEXT_BYTES = 28 * 4, TEXT_BYTES_MAX = ACCESS_WORDS * 4 - TEXT_BYTES;
assert(DOUBLES * 2 > ERROR_BYTES && (DURATION + 1) * 8 === TEXT_BYTES, "the parts of an access record do not overlap");

/** A worker's end. Set what is known by the methods, then `push`. Nothing is allocated. */
export class AccessWriter {
  readonly #ring: Ring;
  readonly #words: Int32Array;
  readonly #doubles: Float64Array;
  readonly #text: Uint8Array<ArrayBuffer>;
  readonly #encoder = new TextEncoder();

  /** @param wake wakes the agent. */
  constructor(handles: TableHandles, worker: number, wake?: () => void) {
    this.#ring = new Ring(handles.control, handles.plan.access[worker]!, ACCESS_ENTRIES, ACCESS_WORDS, wake);
    this.#words = this.#ring.record;
    this.#doubles = new Float64Array(this.#ring.record.buffer);
    this.#text = new Uint8Array(this.#ring.record.buffer, TEXT_BYTES);
  }

  /** Begins a record and forgets the one before. `flowRow` -1: not counted. */
  begin(kind: number, direction: number, flowRow: number, flowEpoch: number, flag: number): void {
    const words = this.#words;
    words.fill(0, 0, TEXT_BYTES / 4);
    words[KIND] = kind;
    words[DIRECTION] = direction;
    words[FLOW_ROW] = flowRow;
    words[FLOW_EPOCH] = flowEpoch;
    words[FLAG] = flag;
  }
  source(word0: number, word1: number, word2: number, word3: number, port: number): void {
    this.#address(SOURCE, SOURCE_PORT, word0, word1, word2, word3, port);
  }
  /** The next hop that was dialled (ZT-202). */
  destination(word0: number, word1: number, word2: number, word3: number, port: number): void {
    this.#address(DESTINATION, DESTINATION_PORT, word0, word1, word2, word3, port);
  }
  /** The CONNECT authority where it is an address. */
  authorityAddress(word0: number, word1: number, word2: number, word3: number, port: number): void {
    this.#address(AUTHORITY, AUTHORITY_PORT, word0, word1, word2, word3, port);
  }
  /** The CONNECT authority where it is a name. Before `error`. */
  authorityText(text: string): void {
    this.#words[AUTHORITY_BYTES] = this.#encoder.encodeInto(text, this.#text).written;
  }
  /** Bytes from and to the initiator, and the time between. */
  amounts(receivedBytes: number, sentBytes: number, durationMs: number): void {
    this.#doubles[RECEIVED] = receivedBytes;
    this.#doubles[SENT] = sentBytes;
    this.#doubles[DURATION] = durationMs;
  }
  /** The text of the failure; cut where the record ends. */
  error(text: string): void {
    const from = this.#words[AUTHORITY_BYTES]!;
    this.#words[ERROR_BYTES] = this.#encoder.encodeInto(text, this.#text.subarray(from)).written;
  }
  /** @returns false if the ring was full: the record is lost, and counted. */
  push(): boolean {
    return this.#ring.push();
  }

  #address(at: number, portAt: number, word0: number, word1: number, word2: number, word3: number, port: number): void {
    const words = this.#words;
    words[at] = word0;
    words[at + 1] = word1;
    words[at + 2] = word2;
    words[at + 3] = word3;
    words[portAt] = port;
  }
}

/** A record as the agent sees it. */
export interface AccessRecord {
  readonly kind: number;
  readonly direction: number;
  readonly flowRow: number;
  readonly flowEpoch: number;
  /** ResponseFlag; of a LOG record the level, an index into LEVELS of base/log.ts. */
  readonly flag: number;
  readonly source: SocketAddress;
  readonly destination: SocketAddress;
  /** undefined: no tunnel. */
  readonly authority: SocketAddress | string | undefined;
  readonly receivedBytes: number;
  readonly sentBytes: number;
  readonly durationMs: number;
  readonly error: string | undefined;
}

interface SocketAddress {
  readonly ip: readonly [number, number, number, number];
  readonly port: number;
}

/** The agent's end. */
export class AccessReader {
  readonly #ring: Ring;
  readonly #words = new Int32Array(ACCESS_WORDS);
  readonly #doubles = new Float64Array(this.#words.buffer, 0, TEXT_BYTES / 8);
  readonly #text = new Uint8Array(this.#words.buffer, TEXT_BYTES, TEXT_BYTES_MAX);
  readonly #decoder = new TextDecoder();

  constructor(handles: TableHandles, worker: number) {
    this.#ring = new Ring(handles.control, handles.plan.access[worker]!, ACCESS_ENTRIES, ACCESS_WORDS);
  }

  /** Records lost to a full ring, since the start. */
  get dropped(): number {
    return this.#ring.dropped;
  }

  /** Records that wait to be read. */
  get waiting(): number {
    return this.#ring.length;
  }

  /** The oldest record, or undefined if there is none. */
  read(): AccessRecord | undefined {
    const words = this.#words;
    if (!this.#ring.pop(words)) return undefined;
    const doubles = this.#doubles, text = this.#text;
    const authorityBytes = words[AUTHORITY_BYTES]!, errorEnd = authorityBytes + words[ERROR_BYTES]!;
    const address = (at: number, portAt: number): SocketAddress => ({
      ip: [words[at]! >>> 0, words[at + 1]! >>> 0, words[at + 2]! >>> 0, words[at + 3]! >>> 0],
      port: words[portAt]!,
    });
    const named = authorityBytes > 0 ? this.#decoder.decode(text.subarray(0, authorityBytes)) : undefined;
    return {
      kind: words[KIND]!,
      direction: words[DIRECTION]!,
      flowRow: words[FLOW_ROW]!,
      flowEpoch: words[FLOW_EPOCH]!,
      flag: words[FLAG]!,
      source: address(SOURCE, SOURCE_PORT),
      destination: address(DESTINATION, DESTINATION_PORT),
      authority: named ?? (words[AUTHORITY_PORT] === 0 ? undefined : address(AUTHORITY, AUTHORITY_PORT)),
      receivedBytes: doubles[RECEIVED]!,
      sentBytes: doubles[SENT]!,
      durationMs: doubles[DURATION]!,
      error: errorEnd > authorityBytes ? this.#decoder.decode(text.subarray(authorityBytes, errorEnd)) : undefined,
    };
  }
}
