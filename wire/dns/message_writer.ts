/** DNS messages as we send them: answers of our own, answers passed on, refusals and queries. */
import { ipToBytes, type IpWords } from "../../base/address.ts";
import { readUint16, writeUint16, writeUint32 } from "../bytes.ts";
import {
  CLASS_INTERNET,
  Code,
  CODE_BITS,
  DNS_HEADER_BYTES,
  type Edns,
  Flag,
  MESSAGE_BYTES_MAX,
  OPCODE_BITS,
  type Query,
  readTtl,
  type RecordPlace,
  type Response,
  Section,
  Type,
  UDP_BYTES_MIN,
} from "./message.ts";

const OPTION_BYTES = 11;
/** A datagram of IPv4 holds no more. */
const UDP_BYTES_MAX = 65_507;
/** What we can take over UDP without fragments on any path (the recommendation of DNS flag day 2020). */
const OWN_PAYLOAD_BYTES = 1232;
const POINTER_BITS = 0xc000, POINTER_MAX = 0x3fff;

/** The most bytes that an answer to this query may have. */
export function answerBytesMax(query: Query, overTcp: boolean): number {
  if (overTcp) return MESSAGE_BYTES_MAX;
  return query.edns === undefined ? UDP_BYTES_MIN : Math.min(payloadOf(query.edns), UDP_BYTES_MAX);
}

/** A refusal of what is no query that we can serve: a header alone, or header and question. */
export function writeRefusal(
  received: { readonly id: number; readonly flags: number; readonly query?: Query },
  code: Code,
): Uint8Array<ArrayBuffer> {
  const query = received.query;
  const question = query?.question ?? new Uint8Array(0);
  const bytes = new Uint8Array(DNS_HEADER_BYTES + question.length + (query?.edns === undefined ? 0 : OPTION_BYTES));
  const kept = received.flags & (OPCODE_BITS | Flag.RECURSION_DESIRED | Flag.CHECKING_DISABLED);
  writeHeader(bytes, received.id, Flag.RESPONSE | kept | (code & CODE_BITS), [query === undefined ? 0 : 1, 0, 0, 0]);
  bytes.set(question, DNS_HEADER_BYTES);
  if (query?.edns !== undefined) appendOption(bytes, DNS_HEADER_BYTES + question.length, query.edns);
  return bytes;
}

/** Records that we answer with. */
export interface OwnAnswer {
  /** The name that was asked, as text. */
  readonly name: string;
  /** Another name that the addresses belong to, said by a CNAME record. */
  readonly alias: string | undefined;
  /** All of the asked family. */
  readonly addresses: readonly IpWords[];
  readonly ttlSeconds: number;
}

/** An answer that we are the authority for (ZT-185): as many records as `bytesMax` holds. */
export function writeOwnAnswer(query: Query, answer: OwnAnswer, bytesMax: number): Uint8Array<ArrayBuffer> {
  const writer = new AnswerWriter(query, bytesMax);
  let fits = true;
  if (answer.alias !== undefined && answer.addresses.length > 0) {
    const { name, alias, ttlSeconds } = answer;
    fits = writer.add(name, Type.CNAME, ttlSeconds, () => writer.name(alias));
  }
  for (const ip of answer.addresses) {
    const data = ipToBytes(ip);
    fits &&= writer.add(
      answer.alias ?? answer.name,
      data.length === 4 ? Type.A : Type.AAAA,
      answer.ttlSeconds,
      () => writer.raw(data),
    );
    if (!fits) break;
  }
  return writer.finish(Flag.AUTHORITATIVE | (fits ? 0 : Flag.TRUNCATED));
}

/**
 * An upstream's response as an answer to `query`, `ageSeconds` after it came: our client's id, its own spelling of the
 * question, TTLs counted down, and as many records as `bytesMax` holds. Bytes of records are not touched.
 */
export function writeForwarded(
  query: Query,
  upstream: { readonly bytes: Uint8Array; readonly response: Response },
  options: { readonly bytesMax: number; readonly ageSeconds: number },
): Uint8Array<ArrayBuffer> {
  const { bytes: source, response } = upstream;
  const optionBytes = query.edns === undefined ? 0 : OPTION_BYTES;
  const room = options.bytesMax - optionBytes;
  const kept = response.records.filter((record) => record.end <= room);
  const end = kept.at(-1)?.end ?? DNS_HEADER_BYTES + query.question.length;
  const bytes = new Uint8Array(end + optionBytes);
  bytes.set(source.subarray(0, end));
  bytes.set(query.question, DNS_HEADER_BYTES);
  for (const { ttlAt } of kept) {
    writeUint32(bytes, ttlAt, Math.max(0, readTtl(source, ttlAt) - options.ageSeconds));
  }
  // Additional records may be left out without a word (RFC 2181 §9).
  const cut = response.truncated ||
    response.records.some((record) => record.end > room && record.section !== Section.ADDITIONAL);
  const available = response.code === Code.NOERROR ? Flag.RECURSION_AVAILABLE : 0; // ZT-185
  const flags = Flag.RESPONSE | available | (cut ? Flag.TRUNCATED : 0) | (response.code & CODE_BITS) |
    (query.flags & (Flag.RECURSION_DESIRED | Flag.CHECKING_DISABLED));
  const count = (section: number) => kept.filter((record: RecordPlace) => record.section === section).length;
  const counts = [1, count(Section.ANSWER), count(Section.AUTHORITY), count(Section.ADDITIONAL)];
  writeHeader(bytes, query.id, flags, counts);
  if (query.edns !== undefined) appendOption(bytes, end, query.edns);
  return bytes;
}

/**
 * The query that asks an upstream the same: recursion desired, our own payload size, the client's DO and CD bits.
 * @param edns false for an upstream that does not understand EDNS.
 */
export function writeQuery(id: number, query: Query, edns = true): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(DNS_HEADER_BYTES + query.question.length + (edns ? OPTION_BYTES : 0));
  writeHeader(bytes, id, Flag.RECURSION_DESIRED | (query.flags & Flag.CHECKING_DISABLED), [1, 0, 0, 0]);
  bytes.set(query.question, DNS_HEADER_BYTES);
  if (!edns) return bytes;
  const dnssecOk = query.edns?.dnssecOk ?? false;
  appendOption(bytes, bytes.length - OPTION_BYTES, { payloadBytes: OWN_PAYLOAD_BYTES, version: 0, dnssecOk });
  return bytes;
}

/** A message with its length before it, as TCP carries it (RFC 1035 §4.2.2). */
export function withLength(message: Uint8Array): Uint8Array<ArrayBuffer> {
  const framed = new Uint8Array(2 + message.length);
  writeUint16(framed, 0, message.length);
  framed.set(message, 2);
  return framed;
}

function payloadOf(edns: Edns): number {
  return Math.max(UDP_BYTES_MIN, edns.payloadBytes);
}

function writeHeader(bytes: Uint8Array, id: number, flags: number, counts: readonly number[]): void {
  writeUint16(bytes, 0, id);
  writeUint16(bytes, 2, flags);
  for (const [at, count] of counts.entries()) writeUint16(bytes, 4 + at * 2, count);
}

/** Writes an OPT record (RFC 6891 §6.1.2) and counts it. */
function appendOption(bytes: Uint8Array, at: number, edns: Edns): void {
  bytes.fill(0, at, at + OPTION_BYTES); // Its name is the root, a zero byte; it has no options.
  writeUint16(bytes, at + 1, Type.OPT);
  writeUint16(bytes, at + 3, payloadOf(edns));
  bytes[at + 6] = edns.version;
  bytes[at + 7] = edns.dnssecOk ? 0x80 : 0;
  writeUint16(bytes, 10, readUint16(bytes, 10) + 1);
}

/** Appends records as long as they fit; names are compressed (RFC 1035 §4.1.4). */
class AnswerWriter {
  readonly #query: Query;
  readonly #bytes: Uint8Array<ArrayBuffer>;
  readonly #bytesMax: number;
  /** Where each name, and each end of a name, was written. */
  readonly #places = new Map<string, number>();
  #at: number;
  #count = 0;
  #overflown = false;

  constructor(query: Query, bytesMax: number) {
    this.#query = query;
    this.#bytesMax = bytesMax - (query.edns === undefined ? 0 : OPTION_BYTES);
    this.#bytes = new Uint8Array(bytesMax);
    this.#bytes.set(query.question, DNS_HEADER_BYTES);
    this.#at = DNS_HEADER_BYTES + query.question.length;
    this.#rememberQuestion();
  }

  /** @returns False, with nothing written, if the record does not fit. */
  add(name: string, type: number, ttlSeconds: number, writeData: () => void): boolean {
    const start = this.#at;
    this.name(name);
    const fields = this.#at;
    this.raw(new Uint8Array(10));
    const dataStart = this.#at;
    writeData();
    if (this.#overflown) {
      this.#at = start;
      return false;
    }
    writeUint16(this.#bytes, fields, type);
    writeUint16(this.#bytes, fields + 2, CLASS_INTERNET);
    writeUint32(this.#bytes, fields + 4, ttlSeconds);
    writeUint16(this.#bytes, fields + 8, this.#at - dataStart);
    this.#count++;
    return true;
  }

  raw(data: Uint8Array): void {
    this.#overflown ||= this.#at + data.length > this.#bytesMax;
    if (this.#overflown) return;
    this.#bytes.set(data, this.#at);
    this.#at += data.length;
  }

  name(text: string): void {
    for (let rest = text; rest !== ""; rest = rest.slice(rest.indexOf(".") + 1)) {
      const known = this.#places.get(rest);
      if (known !== undefined) return this.raw(Uint8Array.of((POINTER_BITS | known) >> 8, known & 0xff));
      if (this.#at <= POINTER_MAX) this.#places.set(rest, this.#at);
      const label = rest.split(".", 1)[0]!;
      this.raw(Uint8Array.of(label.length, ...[...label].map((letter) => letter.charCodeAt(0))));
      if (label.length === rest.length) break;
    }
    this.raw(Uint8Array.of(0));
  }

  finish(flags: number): Uint8Array<ArrayBuffer> {
    const { id, flags: asked, edns } = this.#query;
    const kept = asked & (Flag.RECURSION_DESIRED | Flag.CHECKING_DISABLED);
    const length = this.#at + (edns === undefined ? 0 : OPTION_BYTES);
    writeHeader(this.#bytes, id, Flag.RESPONSE | Flag.RECURSION_AVAILABLE | flags | kept, [1, this.#count, 0, 0]);
    if (edns !== undefined) appendOption(this.#bytes, this.#at, edns);
    return this.#bytes.slice(0, length);
  }

  /** Answers are in lower case (ZT-181), so what the question spells otherwise is not pointed to. */
  #rememberQuestion(): void {
    const { name, question } = this.#query;
    let at = 0;
    for (let rest = name ?? ""; rest !== ""; rest = rest.slice(rest.indexOf(".") + 1)) {
      const tail = question.subarray(at, question.length - 4);
      if (!tail.some((byte) => byte >= 0x41 && byte <= 0x5a)) this.#places.set(rest, DNS_HEADER_BYTES + at);
      at += question[at]! + 1;
      if (!rest.includes(".")) break;
    }
  }
}
