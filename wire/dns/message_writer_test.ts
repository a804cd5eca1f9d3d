import { assertEquals } from "@std/assert";
import { Buffer } from "node:buffer";
import library from "dns-packet";
import { parseIp } from "../../base/address.ts";
import { Code, type Query, readQuery, readResponse } from "./message.ts";
import {
  answerBytesMax,
  withLength,
  writeForwarded,
  writeOwnAnswer,
  writeQuery,
  writeRefusal,
} from "./message_writer.ts";

interface Read {
  readonly id: number;
  readonly type: string;
  readonly rcode: string;
  readonly flag_aa: boolean;
  readonly flag_tc: boolean;
  readonly flag_rd: boolean;
  readonly flag_ra: boolean;
  readonly flag_ad: boolean;
  readonly flag_cd: boolean;
  readonly questions: readonly { readonly name: string; readonly type: string }[];
  readonly answers: readonly {
    readonly name: string;
    readonly type: string;
    readonly ttl: number;
    readonly data: unknown;
  }[];
  readonly authorities: readonly { readonly type: string }[];
  readonly additionals: readonly {
    readonly type: string;
    readonly udpPayloadSize?: number;
    readonly flag_do?: boolean;
  }[];
}

/** Another implementation, which has no types of its own. */
const other = library as unknown as { encode(message: object): Uint8Array; decode(bytes: Uint8Array): Read };
const read = (bytes: Uint8Array) => other.decode(Buffer.from(bytes));
const lines = (bytes: Uint8Array) =>
  read(bytes).answers.map(({ name, type, ttl, data }) => `${name} ${type} ${ttl} ${data}`);

function query(name: string, fields: { edns?: number; flags?: number; type?: string } = {}): Query {
  const { edns, flags = 0x100, type = "A" } = fields;
  const additionals = edns === undefined
    ? []
    : [{ type: "OPT", name: ".", udpPayloadSize: edns, flags: 0x8000, options: [] }];
  const bytes = other.encode({ type: "query", id: 9, flags, questions: [{ name, type, class: "IN" }], additionals });
  const received = readQuery(new Uint8Array(bytes));
  if (received.kind !== "query") throw new Error(`it is read as ${received.kind}`);
  return received.query;
}

const own = (name: string, alias: string | undefined, addresses: string[]) =>
  ({ name, alias, addresses: addresses.map((text) => parseIp(text)!), ttlSeconds: 30 }) as const;

Deno.test("writeOwnAnswer() has our authority, the name in lower case, and a TTL of its own (ZT-181, ZT-184, ZT-185)", () => {
  const bytes = writeOwnAnswer(query("Web.Shop.ns"), own("web.shop.ns", "web.shop", ["10.0.0.1", "fd00::1"]), 512);
  assertEquals(lines(bytes), ["web.shop.ns CNAME 30 web.shop", "web.shop A 30 10.0.0.1", "web.shop AAAA 30 fd00::1"]);
  const { id, type, rcode, flag_aa, flag_ra, flag_rd, flag_tc, questions, additionals } = read(bytes);
  assertEquals([id, type, rcode, flag_aa, flag_ra, flag_rd, flag_tc], [
    9,
    "response",
    "NOERROR",
    true,
    true,
    true,
    false,
  ]);
  assertEquals([questions[0]!.name, additionals.length], ["Web.Shop.ns", 0], "the question as it was spelt");
});

Deno.test("writeOwnAnswer() without addresses says nothing but that the name exists (ZT-183)", () => {
  const { answers, rcode, flag_aa } = read(writeOwnAnswer(query("web"), own("web", "w", []), 512));
  assertEquals([answers.length, rcode, flag_aa], [0, "NOERROR", true]);
});

Deno.test("writeOwnAnswer() points to names that stand there already (RFC 1035 §4.1.4)", () => {
  const asked = query("web.shop.svc.cluster.local");
  const one = writeOwnAnswer(asked, own("web.shop.svc.cluster.local", undefined, ["10.0.0.1"]), 512);
  assertEquals(one.length, 12 + asked.question.length + 16);
});

Deno.test("writeOwnAnswer() holds as many records as there is room for, then says that there are more (ZT-185)", () => {
  const addresses = Array.from({ length: 256 }, (_, at) => `10.0.1.${at}`);
  for (const edns of [undefined, 100, 512, 1232, 4000]) {
    const asked = query("large.example", { edns }), max = answerBytesMax(asked, false);
    assertEquals(max, Math.max(512, edns ?? 512));
    const bytes = writeOwnAnswer(asked, own("large.example", undefined, addresses), max);
    const room = max - 12 - asked.question.length - (edns === undefined ? 0 : 11);
    const { answers, flag_tc, additionals } = read(bytes);
    assertEquals([answers.length, flag_tc, bytes.length <= max], [Math.floor(room / 16), true, true]);
    assertEquals(
      additionals.map((it) => [it.type, it.udpPayloadSize, it.flag_do]),
      edns === undefined ? [] : [["OPT", max, true]],
    );
  }
  const whole = writeOwnAnswer(query("large.example"), own("large.example", undefined, addresses), 65_535);
  assertEquals([read(whole).answers.length, read(whole).flag_tc], [256, false]);
});

Deno.test("writeRefusal() has the question if there was one, and neither authority nor recursion (ZT-185)", () => {
  const asked = query("web", { edns: 600, flags: 0x110 });
  const { rcode, flag_aa, flag_ra, flag_rd, flag_cd, questions, additionals } = read(
    writeRefusal({ ...asked, query: asked }, Code.SERVFAIL),
  );
  assertEquals([rcode, flag_aa, flag_ra, flag_rd, flag_cd], ["SERVFAIL", false, false, true, true]);
  assertEquals([questions.length, additionals[0]?.udpPayloadSize], [1, 600]);
  assertEquals(
    writeRefusal({ id: 0x0102, flags: 0x2100 }, Code.NOTIMP),
    Uint8Array.of(1, 2, 0xa1, 4, 0, 0, 0, 0, 0, 0, 0, 0),
  );
});

Deno.test("writeQuery() asks the same with an id and a payload size of our own (ZT-186)", () => {
  const { id, flag_rd, flag_cd, questions, additionals } = read(
    writeQuery(77, query("A.b", { edns: 4000, flags: 0x10 })),
  );
  assertEquals([id, flag_rd, flag_cd, questions[0]!.name], [77, true, true, "A.b"]);
  assertEquals(additionals.map((it) => [it.udpPayloadSize, it.flag_do]), [[1232, true]]);
});

function upstream(asked: Query, fields: object) {
  const name = "web.example", question = { name, type: "A", class: "IN" };
  const bytes = new Uint8Array(
    other.encode({ type: "response", id: 77, flags: 0x5a0, questions: [question], ...fields }),
  );
  const response = readResponse(bytes, 77, asked.question);
  if (response === undefined) throw new Error("it is no response");
  return { bytes, response };
}

const A = { name: "web.example", type: "A", ttl: 300, data: "192.0.2.1" };
const OPTION = { type: "OPT", name: ".", udpPayloadSize: 4096, flags: 0, options: [] };
const SOA = {
  name: "example",
  type: "SOA",
  ttl: 60,
  data: { mname: "ns", rname: "admin", serial: 1, refresh: 1, retry: 1, expire: 1, minimum: 60 },
};

Deno.test("writeForwarded() keeps the records, counts TTLs down, and has no authority of anybody's (ZT-185)", () => {
  const asked = query("WEB.example", { edns: 1232 });
  const from = upstream(asked, {
    answers: [A, { ...A, ttl: 5 }],
    additionals: [{ ...A, name: "glue.example" }, OPTION],
  });
  const bytes = writeForwarded(asked, from, { bytesMax: 1232, ageSeconds: 10 });
  assertEquals(lines(bytes), ["web.example A 290 192.0.2.1", "web.example A 0 192.0.2.1"]);
  const { id, flag_aa, flag_ra, flag_ad, flag_tc, questions, additionals } = read(bytes);
  assertEquals([id, flag_aa, flag_ra, flag_ad, flag_tc], [9, false, true, false, false]);
  assertEquals(questions[0]!.name, "WEB.example", "spelt as it was asked");
  assertEquals(additionals.map((it) => [it.type, it.udpPayloadSize]), [["A", undefined], ["OPT", 1232]]);
});

Deno.test("writeForwarded() passes NXDOMAIN on with its SOA, both flags clear (ZT-185, ZT-186)", () => {
  const asked = query("web.example");
  const from = upstream(asked, { flags: 0x583, authorities: [SOA] });
  const { rcode, flag_aa, flag_ra, authorities } = read(writeForwarded(asked, from, { bytesMax: 512, ageSeconds: 0 }));
  assertEquals([rcode, flag_aa, flag_ra, authorities.length], ["NXDOMAIN", false, false, 1]);
});

Deno.test("writeForwarded() cuts between records: answers with a word, additional ones without (RFC 2181 §9)", () => {
  const asked = query("web.example");
  const answers = Array.from({ length: 60 }, () => A);
  const cut = read(writeForwarded(asked, upstream(asked, { answers }), { bytesMax: 512, ageSeconds: 0 }));
  const recordBytes = 13 + 14; // The other implementation does not compress.
  assertEquals([cut.answers.length, cut.flag_tc], [Math.floor((512 - 12 - asked.question.length) / recordBytes), true]);
  const additional = upstream(asked, { answers: [A], additionals: answers });
  const fewer = read(writeForwarded(asked, additional, { bytesMax: 512, ageSeconds: 0 }));
  assertEquals([fewer.answers.length, fewer.additionals.length < 20, fewer.flag_tc], [1, true, false]);
});

Deno.test("withLength() is how TCP carries a message (RFC 1035 §4.2.2)", () => {
  assertEquals(withLength(new Uint8Array(258).fill(7)).subarray(0, 3), Uint8Array.of(1, 2, 7));
});
