/** For tests of DNS: queries as clients write them, answers as nameservers give them, by a library that is not ours. */
import { Buffer } from "node:buffer";
import library from "dns-packet";
import type { Respond } from "./responder.ts";

export interface Record {
  readonly name: string;
  readonly type: string;
  readonly ttl?: number;
  readonly data?: unknown;
  readonly udpPayloadSize?: number;
  readonly flag_do?: boolean;
}

export interface Decoded {
  readonly id: number;
  readonly type: "query" | "response";
  readonly rcode: string;
  readonly flag_aa: boolean;
  readonly flag_tc: boolean;
  readonly flag_rd: boolean;
  readonly flag_ra: boolean;
  readonly questions: readonly { readonly name: string; readonly type: string }[];
  readonly answers: readonly Record[];
  readonly authorities: readonly Record[];
  readonly additionals: readonly Record[];
}

/** The library has no types of its own. */
const packet = library as unknown as {
  encode(message: object): Uint8Array;
  decode(bytes: Uint8Array): Decoded;
  readonly RECURSION_DESIRED: number;
  readonly RECURSION_AVAILABLE: number;
  readonly AUTHORITATIVE_ANSWER: number;
  readonly TRUNCATED_RESPONSE: number;
  readonly DNSSEC_OK: number;
};

/** A query's bytes. `edns`: the payload size of an OPT record. */
export function queryBytes(
  name: string,
  type: string,
  options: { id?: number; flags?: number; edns?: number; dnssecOk?: boolean; opcode?: "NOTIFY" } = {},
): Uint8Array<ArrayBuffer> {
  const { id = 0x1234, flags = packet.RECURSION_DESIRED, edns, dnssecOk } = options;
  const additionals = edns === undefined ? [] : [{
    type: "OPT",
    name: ".",
    udpPayloadSize: edns,
    extendedRcode: 0,
    ednsVersion: 0,
    flags: dnssecOk === true ? packet.DNSSEC_OK : 0,
    flag_do: dnssecOk === true,
    options: [],
  }];
  const questions = [{ name, type, class: "IN" }];
  const bytes = new Uint8Array(packet.encode({ type: "query", id, flags, questions, additionals }));
  if (options.opcode === "NOTIFY") bytes[2]! |= 4 << 3;
  return bytes;
}

/** What a message says. */
export function decode(bytes: Uint8Array): Decoded {
  return packet.decode(Buffer.from(bytes));
}

/** Records as `name type data`, in the order of the message. */
export function recordsOf(bytes: Uint8Array): string[] {
  return decode(bytes).answers.map(({ name, type, data }) => `${name} ${type} ${String(data)}`);
}

/** What a nameserver of {@link nameserver} knows: by `name type`, records or the code it answers with. */
export type Zone = ReadonlyMap<string, readonly Record[] | number>;

/** A nameserver's behaviour: from the query's bytes to the answer's. Unknown names are NXDOMAIN, with an SOA. */
export function nameserver(zone: Zone, onQuery: (asked: string, overTcp: boolean) => void = () => {}): Respond {
  return (bytes, overTcp) => {
    const query = decode(bytes), question = query.questions[0]!;
    const asked = `${question.name} ${question.type}`;
    onQuery(asked, overTcp);
    const known = zone.get(asked.toLowerCase()) ?? 3, code = typeof known === "number" ? known : 0;
    const answer = (answers: readonly Record[], truncated: number) =>
      new Uint8Array(packet.encode({
        type: "response",
        id: query.id,
        flags: packet.RECURSION_DESIRED | packet.RECURSION_AVAILABLE | packet.AUTHORITATIVE_ANSWER | truncated | code,
        questions: query.questions,
        answers: [...answers],
        authorities: code === 3 ? [soa(60)] : [],
      }));
    const records = typeof known === "number" ? [] : known, whole = answer(records, 0);
    return overTcp || whole.length <= 1232 ? whole : answer(records.slice(0, 1), packet.TRUNCATED_RESPONSE);
  };
}

export function soa(minimum: number): Record {
  const data = { mname: "ns.example", rname: "admin.example", serial: 1, refresh: 1, retry: 1, expire: 1, minimum };
  return { name: "example", type: "SOA", ttl: 3_600, data };
}

export function a(name: string, data: string, ttl = 300): Record {
  return { name, type: "A", ttl, data };
}
