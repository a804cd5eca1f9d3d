/** How a snapshot slot is laid out. Only the image (agent) and the reader (worker) know; everyone else sees domain objects. */
import { finishHash, hashBytes, mixWord } from "../../base/shm/index.ts";

export const SNAPSHOT_MAGIC = 0x534e4150; // "SNAP" in ASCII

/** Words of a slot's header. Offsets are in bytes from the slot's start. */
export const SlotWord = {
  MAGIC: 0,
  GENERATION: 1,
  ROW_COUNT: 2,
  ROWS_AT: 3,
  ENTRY_COUNT: 4,
  ENTRIES_AT: 5,
  INDEX_CAPACITY: 6,
  INDEX_AT: 7,
  POD_COUNT: 8,
  PODS_AT: 9,
  SEED: 10,
  POLICIES_VERSION: 11, // grows with any policy: what is cached of policies stands as long as it does
  PREFIXES: 12, // two words: a bit for every IPv4 CIDR length in use, 0 to 32
  PREFIXES_V6: 14, // five words: the same of IPv6, 0 to 128
  WORDS: 32,
} as const;

/** The heap starts here and grows up; the tables stand at the slot's end and are copied whole. */
export const HEAP_AT = SlotWord.WORDS * 4;

/** Words of a row: a resource or a list, under a number that it keeps until it is removed. */
export const RowWord = {
  KIND: 0,
  VERSION: 1, // of the content; no two contents of the process's life share one, until 2^32 changes
  OFFSET: 2, // from the heap's start
  LENGTH: 3, // in bytes
  LINK: 4, // of a SERVICE: the row of its endpoint list
  WORDS: 5,
} as const;

export const RowKind = { FREE: 0, WORKLOAD: 1, SERVICE: 2, POLICY: 3, ENDPOINTS: 4 } as const;

/** Words of an entry: a key and the row it leads to. Several entries may share a key. */
export const EntryWord = {
  HASH: 0,
  KIND: 1, // EntryKind; of a CIDR with the prefix length above it
  NETWORK: 2, // of a name: where its text stands in the heap
  IP: 3, // four words; of a name: the first is its length in bytes
  VALUE: 7,
  WORDS: 8,
} as const;

/** The kinds of keys. The first four lead from addresses, the others from texts. */
export const EntryKind = {
  FREE: 0,
  WORKLOAD_AT: 1, // rank 0 to 3 of the owner (ZT-024) above the kind
  SERVICE_AT: 2,
  SERVICE_CIDR: 3, // prefix length above the kind
  NETWORK: 4, // network name → its number
  SERVICE_NAMED: 5, // namespace/hostname
  HOSTNAME: 6, // hostname → every service of it
  WORKLOAD_NAMED: 7, // namespace/hostname
  POLICY_NAMED: 8, // resource name
  POLICIES_OF: 9, // namespace → every policy of scope NAMESPACE in it
  GLOBAL_POLICIES: 10, // the empty name → every policy of scope GLOBAL
} as const;

/** A kind's number in KIND takes the low byte; a rank or a prefix length stands above it. */
export const KIND_MASK = 0xff;

/** Hash of an address key. `prefixLength` only for SERVICE_CIDR, else 0. */
export function hashAddress(
  seed: number,
  kind: number,
  prefixLength: number,
  network: number,
  word0: number,
  word1: number,
  word2: number,
  word3: number,
): number {
  let hash = mixWord(seed, kind | (prefixLength << 8));
  hash = mixWord(hash, network);
  hash = mixWord(hash, word0);
  hash = mixWord(hash, word1);
  hash = mixWord(hash, word2);
  return finishHash(mixWord(hash, word3));
}

/** Hash of a text key. */
export function hashName(seed: number, kind: number, text: Uint8Array, from: number, end: number): number {
  return hashBytes(mixWord(seed, kind), text, from, end);
}

/** One word of an address under a prefix: the bits beyond `bits` (counted from this word's first) cleared. */
export function maskWord(word: number, bits: number): number {
  return bits >= 32 ? word | 0 : bits <= 0 ? 0 : word & (-1 << (32 - bits));
}
