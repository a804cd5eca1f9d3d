/** DNS messages as bytes: where their parts are (RFC 1035 §4.1, RFC 6891 §6.1). All reading is bounded and fails by value. */
import { readUint16, readUint32 } from "../bytes.ts";
import { equalsWithoutCase, nameText, skipName } from "./name.ts";

export const DNS_HEADER_BYTES = 12;
/** The shortest limit of an answer over UDP, and the limit without EDNS (RFC 1035 §4.2.1). */
export const UDP_BYTES_MIN = 512;
/** A length of 16 bits stands before a message over TCP (RFC 1035 §4.2.2). */
export const MESSAGE_BYTES_MAX = 0xffff;

export const Code = { NOERROR: 0, FORMERR: 1, SERVFAIL: 2, NXDOMAIN: 3, NOTIMP: 4, REFUSED: 5 } as const;
export type Code = number;

export const Type = { A: 1, CNAME: 5, SOA: 6, AAAA: 28, OPT: 41 } as const;
export const CLASS_INTERNET = 1;

/** Bits of the header's second word (RFC 1035 §4.1.1, RFC 4035 §3). */
export const Flag = {
  RESPONSE: 0x8000,
  AUTHORITATIVE: 0x0400,
  TRUNCATED: 0x0200,
  RECURSION_DESIRED: 0x0100,
  RECURSION_AVAILABLE: 0x0080,
  AUTHENTIC: 0x0020,
  CHECKING_DISABLED: 0x0010,
} as const;
export const OPCODE_BITS = 0x7800;
export const CODE_BITS = 0x000f;

/** What a query's OPT record says. */
export interface Edns {
  readonly payloadBytes: number;
  readonly version: number;
  readonly dnssecOk: boolean;
}

/** A well-formed query of one question. */
export interface Query {
  readonly id: number;
  readonly flags: number;
  /** Lower case, without closing dot; undefined when a label is not visible ASCII without dots. */
  readonly name: string | undefined;
  readonly type: number;
  readonly class: number;
  /** The question as it came: name, type and class. A copy. */
  readonly question: Uint8Array<ArrayBuffer>;
  readonly edns: Edns | undefined;
}

/** What is to be done with received bytes: serve the query, refuse with a code, or say nothing. */
export type Received =
  | { readonly kind: "query"; readonly query: Query }
  | {
    readonly kind: "refuse";
    readonly id: number;
    readonly flags: number;
    readonly code: Code;
    readonly query?: Query;
  }
  | { readonly kind: "ignore" };

export const Section = { ANSWER: 0, AUTHORITY: 1, ADDITIONAL: 2 } as const;

/** One record by its places in the message. */
export interface RecordPlace {
  readonly section: number;
  readonly start: number;
  readonly type: number;
  readonly ttlAt: number;
  readonly dataStart: number;
  readonly end: number;
}

/**
 * Reads what a client sent: one question of opcode QUERY, whatever else it asks (ZT-176). A response is ignored, as the
 * original does: who answers it could be answered for ever.
 */
export function readQuery(bytes: Uint8Array): Received {
  if (bytes.length < DNS_HEADER_BYTES) return { kind: "ignore" };
  const id = readUint16(bytes, 0), flags = readUint16(bytes, 2);
  const refuse = (code: Code, query?: Query): Received => ({ kind: "refuse", id, flags, code, query });
  if ((flags & Flag.RESPONSE) !== 0) return { kind: "ignore" };
  const query = readQuestion(bytes, id, flags);
  if ((flags & OPCODE_BITS) !== 0) return refuse(Code.NOTIMP, query);
  if (query === undefined) return refuse(Code.FORMERR);
  return { kind: "query", query };
}

/** The one question and what EDNS says; undefined if the message is malformed. */
function readQuestion(bytes: Uint8Array, id: number, flags: number): Query | undefined {
  const questionEnd = readUint16(bytes, 4) === 1 ? endOfQuestion(bytes) : -1;
  const records = questionEnd < 0 ? undefined : readRecords(bytes, questionEnd);
  if (records === undefined) return undefined;
  const options = records.filter((record) => record.type === Type.OPT);
  if (options.length > 1 || options.some((record) => !isOption(bytes, record))) return undefined;
  return {
    id,
    flags,
    name: nameText(bytes, DNS_HEADER_BYTES),
    type: readUint16(bytes, questionEnd - 4),
    class: readUint16(bytes, questionEnd - 2),
    question: bytes.slice(DNS_HEADER_BYTES, questionEnd),
    edns: options.length === 0 ? undefined : readEdns(bytes, options[0]!),
  };
}

/** A well-formed response to our question. */
export interface Response {
  readonly code: Code;
  readonly truncated: boolean;
  /** In the order of the message, the OPT record and what follows it left out. */
  readonly records: readonly RecordPlace[];
}

/** Reads an upstream's response. @returns undefined if it is malformed, or answers another question than `question`, `id`. */
export function readResponse(bytes: Uint8Array, id: number, question: Uint8Array): Response | undefined {
  const questionEnd = DNS_HEADER_BYTES + question.length;
  if (bytes.length < questionEnd || readUint16(bytes, 0) !== id) return undefined;
  const flags = readUint16(bytes, 2);
  if ((flags & Flag.RESPONSE) === 0 || (flags & OPCODE_BITS) !== 0 || readUint16(bytes, 4) !== 1) return undefined;
  if (!equalsWithoutCase(bytes.subarray(DNS_HEADER_BYTES, questionEnd), question)) return undefined;
  const records = readRecords(bytes, questionEnd);
  if (records === undefined) return undefined;
  const option = records.findIndex((record) => record.type === Type.OPT);
  const extended = option < 0 ? 0 : bytes[records[option]!.ttlAt]!; // The upper bits of the code (RFC 6891 §6.1.3).
  return {
    code: (extended << 4) | (flags & CODE_BITS),
    truncated: (flags & Flag.TRUNCATED) !== 0,
    // What follows an OPT record is additional, and could point behind it: it is not worth moving pointers for.
    records: option < 0 ? records : records.slice(0, option),
  };
}

/** For how long a message may be kept, in seconds: the least TTL of its answers, or of its SOA for none (RFC 2308 §5). 0: not at all. */
export function secondsToKeep(bytes: Uint8Array, { code, truncated, records }: Response): number {
  if (truncated || (code !== Code.NOERROR && code !== Code.NXDOMAIN)) return 0;
  const answers = records.filter((record) => record.section === Section.ANSWER);
  const ttls = answers.map((record) => readTtl(bytes, record.ttlAt));
  // A chain of aliases that leads nowhere is negative as a whole, and its SOA counts as well.
  const soa = records.find((record) => record.section === Section.AUTHORITY && record.type === Type.SOA);
  if (soa !== undefined && soa.end - soa.dataStart >= 22) {
    ttls.push(Math.min(readTtl(bytes, soa.ttlAt), readTtl(bytes, soa.end - 4))); // MINIMUM is the last of its fields.
  } else if (answers.length === 0 || code === Code.NXDOMAIN) return 0;
  return Math.min(...ttls);
}

/** A TTL with its first bit set counts as 0 (RFC 2181 §8). */
export function readTtl(bytes: Uint8Array, at: number): number {
  const ttl = readUint32(bytes, at);
  return ttl > 0x7fffffff ? 0 : ttl;
}

/** The question's name may not be compressed: nothing stands before it to point to. */
function endOfQuestion(bytes: Uint8Array): number {
  const nameEnd = skipName(bytes, DNS_HEADER_BYTES);
  const end = nameEnd + 4;
  if (nameEnd < 0 || end > bytes.length || bytes[nameEnd - 1] !== 0) return -1;
  for (let at = DNS_HEADER_BYTES; at < nameEnd; at += bytes[at]! + 1) if (bytes[at]! > 63) return -1;
  return end;
}

/** All records as the header counts them; bytes behind them are nobody's. */
function readRecords(bytes: Uint8Array, at: number): RecordPlace[] | undefined {
  const records: RecordPlace[] = [];
  for (const section of [Section.ANSWER, Section.AUTHORITY, Section.ADDITIONAL]) {
    for (let left = readUint16(bytes, 6 + section * 2); left > 0; left--) {
      const start = at, nameEnd = skipName(bytes, at), dataStart = nameEnd + 10;
      if (nameEnd < 0 || dataStart > bytes.length) return undefined;
      at = dataStart + readUint16(bytes, nameEnd + 8);
      if (at > bytes.length) return undefined;
      records.push({ section, start, type: readUint16(bytes, nameEnd), ttlAt: nameEnd + 4, dataStart, end: at });
    }
  }
  return records;
}

function isOption(bytes: Uint8Array, record: RecordPlace): boolean {
  return record.section === Section.ADDITIONAL && bytes[record.start] === 0;
}

function readEdns(bytes: Uint8Array, { ttlAt }: RecordPlace): Edns {
  return {
    payloadBytes: readUint16(bytes, ttlAt - 2),
    version: bytes[ttlAt + 1]!,
    dnssecOk: (bytes[ttlAt + 2]! & 0x80) !== 0,
  };
}
