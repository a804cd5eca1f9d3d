import { assertEquals } from "@std/assert";
import library from "dns-packet";
import { Code, DNS_HEADER_BYTES, type Query, readQuery, readResponse, secondsToKeep, Type } from "./message.ts";
import { nameText, parseName, skipName } from "./name.ts";

/** Another implementation, which has no types of its own. */
const other = library as unknown as { encode(message: object): Uint8Array };
const bytesOf = (message: object) => new Uint8Array(other.encode(message));

const QUESTION = { name: "Web.Shop", type: "A", class: "IN" };
const OPTION = { type: "OPT", name: ".", udpPayloadSize: 1400, flags: 0x8000, options: [] };
const query = (fields: object = {}) =>
  bytesOf({ type: "query", id: 7, flags: 0x100, questions: [QUESTION], ...fields });

function refusal(bytes: Uint8Array): string {
  const received = readQuery(bytes);
  return received.kind === "refuse" ? `${received.kind} ${received.code}` : received.kind;
}

function readGood(bytes: Uint8Array): Query {
  const received = readQuery(bytes);
  if (received.kind !== "query") throw new Error(`it is read as ${received.kind}`);
  return received.query;
}

Deno.test("readQuery() finds the question and what EDNS says (RFC 1035 §4.1, RFC 6891 §6.1.2)", () => {
  const plain = readGood(query());
  assertEquals([plain.id, plain.name, plain.type, plain.class, plain.edns], [7, "web.shop", Type.A, 1, undefined]);
  assertEquals(new TextDecoder().decode(plain.question.subarray(1, 4)), "Web", "as it was spelt");
  assertEquals(readGood(query({ additionals: [OPTION] })).edns, { payloadBytes: 1400, version: 0, dnssecOk: true });
  assertEquals(readGood(query({ questions: [{ ...QUESTION, name: "." }] })).name, "");
});

Deno.test("readQuery() refuses what is no query, and is silent to responses and where there is no header (ZT-176)", () => {
  const changed = (at: number, byte: number) => {
    const bytes = query();
    bytes[at] = byte;
    return bytes;
  };
  assertEquals(refusal(changed(2, 0x81)), "ignore", "a response");
  assertEquals(refusal(changed(2, 4 << 3)), `refuse ${Code.NOTIMP}`, "NOTIFY");
  assertEquals(refusal(changed(5, 0)), `refuse ${Code.FORMERR}`, "no question");
  assertEquals(refusal(changed(5, 2)), `refuse ${Code.FORMERR}`, "two questions");
  assertEquals(refusal(changed(DNS_HEADER_BYTES, 64)), `refuse ${Code.FORMERR}`, "a label of 64 bytes");
  assertEquals(refusal(changed(DNS_HEADER_BYTES, 0xc0)), `refuse ${Code.FORMERR}`, "a compressed question");
  assertEquals(refusal(query({ additionals: [OPTION, OPTION] })), `refuse ${Code.FORMERR}`, "two OPT records");
  assertEquals(refusal(query({ answers: [OPTION] })), `refuse ${Code.FORMERR}`, "OPT among answers");
  assertEquals(refusal(new Uint8Array(11)), "ignore");
});

Deno.test("readQuery() refuses every truncation, and ignores what follows the message", () => {
  const whole = query({ additionals: [OPTION] });
  for (let length = 0; length < whole.length; length++) {
    assertEquals(refusal(whole.subarray(0, length)), length < 12 ? "ignore" : "refuse 1", `${length} bytes`);
  }
  assertEquals(refusal(Uint8Array.from([...whole, 1, 2, 3])), "query");
});

Deno.test("readQuery() has no text for a name with bytes that text could not hold without doubt", () => {
  for (const byte of [0x00, 0x20, 0x2e, 0x7f, 0x80, 0xff]) {
    const bytes = query();
    bytes[DNS_HEADER_BYTES + 2] = byte;
    assertEquals(readGood(bytes).name, undefined, `byte ${byte}`);
  }
});

Deno.test("skipName() follows no pointer, and lets none point ahead (RFC 1035 §4.1.4)", () => {
  const name = (...bytes: number[]) => Uint8Array.from([0, 0, ...bytes]);
  assertEquals(skipName(name(1, 97, 0), 2), 5);
  assertEquals(skipName(name(1, 97, 0xc0, 0), 2), 6);
  assertEquals([skipName(name(0xc0, 2), 2), skipName(name(0xc0, 9), 2), skipName(name(0xc0), 2)], [-1, -1, -1]);
  assertEquals([skipName(name(0x80, 0), 2), skipName(name(0x40, 0), 2), skipName(name(3, 97), 2)], [-1, -1, -1]);
  const longest = Uint8Array.from([...Array(3).fill([63, ...Array(63).fill(97)]).flat(), 61, ...Array(61).fill(97), 0]);
  assertEquals([longest.length, skipName(longest, 0), nameText(longest, 0)!.length], [255, 255, 253]);
  const longer = Uint8Array.from([...longest.subarray(0, 192), 62, ...Array(62).fill(97), 0]);
  assertEquals(skipName(longer, 0), -1);
});

Deno.test("parseName() is a name's text in lower case, or nothing", () => {
  assertEquals([parseName("A.b."), parseName("."), parseName("")], ["a.b", "", ""]);
  assertEquals(["a..b", ".a", "a b", "ä", "x".repeat(64), "ab.".repeat(90)].map(parseName), Array(6).fill(undefined));
});

const response = (fields: object = {}) =>
  bytesOf({ type: "response", id: 7, flags: 0x180, questions: [QUESTION], ...fields });
const A = { name: "Web.Shop", type: "A", ttl: 300, data: "192.0.2.1" };
const soa = (ttl: number, minimum: number) => ({
  name: "shop",
  type: "SOA",
  ttl,
  data: { mname: "ns", rname: "admin", serial: 1, refresh: 1, retry: 1, expire: 1, minimum },
});

Deno.test("readResponse() takes only an answer to the very question, whatever the case of its letters (ZT-186)", () => {
  const question = readGood(query()).question;
  const read = (fields: object, id = 7) => readResponse(response(fields), id, question) !== undefined;
  assertEquals(read({}), true);
  assertEquals(read({ questions: [{ ...QUESTION, name: "wEB.sHOP" }] }), true);
  assertEquals(read({}, 8), false, "another id");
  assertEquals(read({ questions: [{ ...QUESTION, name: "web.shot" }] }), false, "another name");
  assertEquals(read({ questions: [{ ...QUESTION, type: "AAAA" }] }), false, "another type");
  assertEquals(read({ questions: [] }), false, "no question");
  assertEquals(read({ type: "query" }), false, "no response");
});

Deno.test("readResponse() refuses every truncation", () => {
  const question = readGood(query()).question, whole = response({ answers: [A, A], additionals: [OPTION] });
  assertEquals(readResponse(whole, 7, question)?.records.length, 2, "the OPT record is not passed on");
  for (let length = 0; length < whole.length; length++) {
    assertEquals(readResponse(whole.subarray(0, length), 7, question), undefined, `${length} bytes`);
  }
});

Deno.test("secondsToKeep() is the least TTL, of nothing the SOA's, of failures none (RFC 2308 §5)", () => {
  const question = readGood(query()).question;
  const seconds = (fields: object) => {
    const bytes = response(fields);
    return secondsToKeep(bytes, readResponse(bytes, 7, question)!);
  };
  assertEquals(seconds({ answers: [A, { ...A, ttl: 20 }] }), 20);
  assertEquals(seconds({ answers: [{ ...A, ttl: 0x80000001 }] }), 0, "a TTL with its first bit set (RFC 2181 §8)");
  assertEquals(seconds({ authorities: [soa(90, 60)] }), 60);
  assertEquals(seconds({ authorities: [soa(50, 60)], flags: 0x183 }), 50);
  assertEquals([seconds({}), seconds({ flags: 0x183 }), seconds({ answers: [A], flags: 0x182 })], [0, 0, 0]);
  assertEquals(seconds({ answers: [A], flags: 0x380 }), 0, "truncated");
});
