/** Tests of hpack_decoder.ts: RFC 7541 Appendix C, every illegal form, every truncation. */
import { assertEquals, assertNotEquals } from "@std/assert";
import { H2Error } from "./frame_rules.ts";
import { HeaderName } from "./header_names.ts";
import { HEADER_LIST_TOO_LARGE, HpackDecoder } from "./hpack_decoder.ts";
import { HeaderTexts, hex, joined } from "./testing.ts";

const BROKEN = -H2Error.COMPRESSION_ERROR;

function decode(
  decoder: HpackDecoder,
  block: string | Uint8Array,
): { result: number; texts: string[]; names: number[] } {
  const bytes = typeof block === "string" ? hex(block) : block, sink = new HeaderTexts();
  // Framed by octets that do not belong to the block, which nothing may look at.
  const framed = joined(hex("ffff"), bytes, hex("ff"));
  const result = decoder.decode(framed, 2, 2 + bytes.length, sink);
  return { result, texts: sink.texts, names: sink.names };
}

/** Another decoder that goes on where this one stands. */
function successorOf(decoder: HpackDecoder, tableBytesMax: number): HpackDecoder {
  const successor = new HpackDecoder(tableBytesMax, 16_384);
  assertEquals(successor.importTable(decoder.exportTable()), true);
  assertEquals(successor.tableBytes, decoder.tableBytes);
  return successor;
}

/** Blocks decoded one after the other, each also by a decoder that took over: expected headers, and octets in the table afterwards. */
function check(
  tableBytesMax: number,
  blocks: readonly (readonly [block: string, texts: string, tableBytes: number])[],
) {
  const decoder = new HpackDecoder(tableBytesMax, 16_384);
  for (const [block, texts, tableBytes] of blocks) {
    const successor = successorOf(decoder, tableBytesMax), got = decode(decoder, block);
    assertEquals(decode(successor, block), got);
    assertEquals(successor.exportTable(), decoder.exportTable());
    assertEquals(got.result, 0);
    assertEquals(got.texts.join("|"), texts);
    assertEquals(decoder.tableBytes, tableBytes);
  }
}

const REQUEST_1 = ":method: GET|:scheme: http|:path: /|:authority: www.example.com";
const REQUEST_2 = `${REQUEST_1}|cache-control: no-cache`;
const REQUEST_3 = ":method: GET|:scheme: https|:path: /index.html|:authority: www.example.com|custom-key: custom-value";
const DATE = "Mon, 21 Oct 2013 20:13:21 GMT", LATER = "Mon, 21 Oct 2013 20:13:22 GMT";
const RESPONSE_1 = `:status: 302|cache-control: private|date: ${DATE}|location: https://www.example.com`;
const RESPONSE_2 = `:status: 307|cache-control: private|date: ${DATE}|location: https://www.example.com`;
const RESPONSE_3 = `:status: 200|cache-control: private|date: ${LATER}|location: https://www.example.com|` +
  "content-encoding: gzip|set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1";

Deno.test("HpackDecoder decodes RFC 7541 Appendix C.2: one field a form", () => {
  check(4_096, [["400a637573746f6d2d6b65790d637573746f6d2d686561646572", "custom-key: custom-header", 55]]);
  check(4_096, [["040c2f73616d706c652f70617468", ":path: /sample/path", 0]]);
  check(4_096, [["100870617373776f726406736563726574", "password: secret", 0]]);
  check(4_096, [["82", ":method: GET", 0]]);
});

Deno.test("HpackDecoder decodes RFC 7541 Appendix C.3 and C.4: requests, plain and Huffman", () => {
  check(4_096, [
    ["828684410f7777772e6578616d706c652e636f6d", REQUEST_1, 57],
    ["828684be58086e6f2d6361636865", REQUEST_2, 110],
    ["828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565", REQUEST_3, 164],
  ]);
  check(4_096, [
    ["828684418cf1e3c2e5f23a6ba0ab90f4ff", REQUEST_1, 57],
    ["828684be5886a8eb10649cbf", REQUEST_2, 110],
    ["828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf", REQUEST_3, 164],
  ]);
});

Deno.test("HpackDecoder decodes RFC 7541 Appendix C.5 and C.6: responses that evict, plain and Huffman", () => {
  check(256, [
    [
      "4803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a31333a323120474d54" +
      "6e1768747470733a2f2f7777772e6578616d706c652e636f6d",
      RESPONSE_1,
      222,
    ],
    ["4803333037c1c0bf", RESPONSE_2, 222],
    [
      "88c1611d4d6f6e2c203231204f637420323031332032303a31333a323220474d54c05a04677a69707738666f6f3d4153444a4b48514b42" +
      "5a584f5157454f50495541585157454f49553b206d61782d6167653d333630303b2076657273696f6e3d31",
      RESPONSE_3,
      215,
    ],
  ]);
  check(256, [
    [
      "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43d3",
      RESPONSE_1,
      222,
    ],
    ["4883640effc1c0bf", RESPONSE_2, 222],
    [
      "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f" +
      "3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007",
      RESPONSE_3,
      215,
    ],
  ]);
});

Deno.test("HpackDecoder gives each known name its number, from static table, literal and dynamic table alike", () => {
  const block = "00076261676761676500 40076261676761676500 be 7e00 0f2f00 8d 00033a787800 0003782d7900 0002746500";
  const { names, result } = decode(new HpackDecoder(4_096, 16_384), block);
  assertEquals(result, 0);
  assertEquals(names, [
    HeaderName.BAGGAGE,
    HeaderName.BAGGAGE,
    HeaderName.BAGGAGE,
    HeaderName.BAGGAGE,
    HeaderName.BAGGAGE,
    HeaderName.STATUS,
    HeaderName.OTHER_PSEUDO,
    HeaderName.OTHER,
    HeaderName.TE,
  ]);
});

Deno.test("HpackDecoder refuses what HPACK forbids, and stays dead", () => {
  for (
    const [why, block] of [
      ["index 0 (RFC 7541 §6.1)", "80"],
      ["an index past the tables (RFC 7541 §2.3.3)", "be"],
      ["a name index past the tables", "7e0161"],
      ["an integer that ends early (RFC 7541 §5.1)", "ff"],
      ["an integer that ends early", "ff80"],
      ["an integer of six octets", "ff8080808001"],
      ["an integer past its bound", "ffffffffff7f"],
      ["a name longer than the block (RFC 7541 §5.2)", "000261"],
      ["no value", "000161"],
      ["a value longer than the block", "00016102 61"],
      ["a size above the limit (RFC 7541 §6.3)", "3fe21f"],
      ["a size change after a field (RFC 7541 §4.2)", "8220"],
      ["EOS in a string (RFC 7541 §5.2)", "000161 84ffffffff"],
      ["padding of eight ones", "000161 821fff"],
      ["padding with a zero", "000161 8118"],
      ["a whole octet of padding", "000161 81ff"],
      ["a cut symbol", "000161 82fffe"],
    ] as const
  ) {
    const decoder = new HpackDecoder(4_096, 16_384);
    assertEquals(decode(decoder, block).result, BROKEN, why);
    assertEquals(decode(decoder, "82"), { result: BROKEN, texts: [], names: [] }, `after ${why}`);
  }
});

Deno.test("HpackDecoder takes padding of none to seven ones (RFC 7541 §5.2)", () => {
  // `a` is five bits, so one to eight of them leave each count of bits to pad.
  for (let count = 1; count <= 8; count++) {
    const bits = "00011".repeat(count), octetCount = Math.ceil(bits.length / 8);
    const octets = bits.padEnd(octetCount * 8, "1").match(/.{8}/g)!.map((octet) => parseInt(octet, 2));
    const block = Uint8Array.of(0, 1, 0x61, 0x80 | octetCount, ...octets);
    const { result, texts } = decode(new HpackDecoder(4_096, 16_384), block);
    assertEquals([result, texts[0]], [0, `a: ${"a".repeat(count)}`]);
  }
});

Deno.test("HpackDecoder obeys size changes before the first field: shrinking evicts, growing does not restore (RFC 7541 §4.3)", () => {
  const decoder = new HpackDecoder(4_096, 16_384);
  assertEquals(decode(decoder, "400161 0162 400163 0164").texts, ["a: b", "c: d"]);
  assertEquals(decoder.tableBytes, 68);
  assertEquals(decode(decoder, "3f03 be").texts, ["c: d"]); // 34: one entry fits
  assertEquals(decoder.tableBytes, 34);
  assertEquals(decode(decoder, "20 3fe11f 400165 0166 be").texts, ["e: f", "e: f"]); // 0, then 4,096
  assertEquals(decode(decoder, "bf").result, BROKEN);
});

Deno.test("HpackDecoder empties the table for an entry that is larger than it (RFC 7541 §4.4)", () => {
  const decoder = new HpackDecoder(64, 16_384);
  assertEquals(decode(decoder, "400161 0162").result, 0);
  const long = joined(hex("40016120"), new Uint8Array(32).fill(0x78));
  assertEquals(decode(decoder, long).texts, [`a: ${"x".repeat(32)}`]);
  assertEquals(decoder.tableBytes, 0);
});

Deno.test("HpackDecoder inserts with the name of an entry that the insertion evicts (RFC 7541 §4.4)", () => {
  const decoder = new HpackDecoder(40, 16_384);
  assertEquals(decode(decoder, "4004 6e616d65 0131").result, 0);
  for (let round = 0; round < 50; round++) assertEquals(decode(decoder, "7e 0132 be").texts, ["name: 2", "name: 2"]);
});

Deno.test("HpackDecoder bounds the list, keeps the table in step, and goes on (RFC 9113 §10.5.1)", () => {
  const decoder = new HpackDecoder(4_096, 100);
  // Each field counts 34: two fit in 100, the third does not, though it is inserted.
  const over = decode(decoder, "400161 0162 400163 0164 400165 0166");
  assertEquals([over.result, over.texts], [HEADER_LIST_TOO_LARGE, ["a: b", "c: d"]]);
  assertEquals(decode(decoder, "be").texts, ["e: f"]);
  assertEquals(decode(decoder, "bebf").result, 0);
});

Deno.test("HpackDecoder survives a Huffman string larger than its scratch: refused for its size, table emptied", () => {
  const decoder = new HpackDecoder(64, 64);
  assertEquals(decode(decoder, "400161 0162").result, 0);
  // `a` is 00011: eight of them are five octets.
  const octets = hex("18c6318c63".repeat(20));
  const huge = joined(hex("400163 e4"), octets);
  assertEquals(decode(decoder, huge).result, HEADER_LIST_TOO_LARGE);
  assertEquals(decoder.tableBytes, 0);
  assertEquals(decode(decoder, joined(hex("40 e4"), octets, hex("0161"))).result, HEADER_LIST_TOO_LARGE);
  assertEquals(decode(decoder, "82").texts, [":method: GET"]);
});

Deno.test("HpackDecoder refuses every truncation that cuts a field, and no other", () => {
  const fields = [
    "82",
    "418cf1e3c2e5f23a6ba0ab90f4ff",
    "400a637573746f6d2d6b65790d637573746f6d2d686561646572",
    "0f2f00",
  ];
  const block = hex(fields.join("")), borders = new Set([0]);
  for (const field of fields) borders.add(Math.max(...borders) + hex(field).length);
  for (let end = 0; end <= block.length; end++) {
    const decoder = new HpackDecoder(4_096, 16_384);
    assertEquals(decode(decoder, block.slice(0, end)).result, borders.has(end) ? 0 : BROKEN, `cut at ${end}`);
  }
});

Deno.test("HpackDecoders of one thread may share their scratch", () => {
  const scratch = new Uint8Array(HpackDecoder.scratchBytesFor(4_096, 16_384));
  const one = new HpackDecoder(4_096, 16_384, scratch), other = new HpackDecoder(4_096, 16_384, scratch);
  assertEquals(decode(one, "408825a849e95ba97d7f8925a849e95bb8e8b4bf").result, 0);
  assertEquals(decode(other, "5886a8eb10649cbf").result, 0);
  assertEquals(decode(one, "be").texts, ["custom-key: custom-value"]);
  assertEquals(decode(other, "be").texts, ["cache-control: no-cache"]);
  assertNotEquals(one.tableBytes, other.tableBytes);
});

Deno.test("HpackDecoder.importTable() takes no table that does not fit its size", () => {
  const entry = { name: new Uint8Array(10), value: new Uint8Array(10) }; // 52 octets, as RFC 7541 §4.1 counts.
  const takes = (maxBytes: number, count: number) =>
    new HpackDecoder(104, 16_384).importTable({ maxBytes, entries: new Array(count).fill(entry) });
  assertEquals([takes(104, 2), takes(104, 3), takes(103, 2), takes(105, 0)], [true, false, false, false]);
});
