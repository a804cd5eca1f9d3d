import { assert, assertEquals, assertThrows } from "@std/assert";
import {
  bool,
  boolAlways,
  bytes,
  int,
  intAlways,
  intOrText,
  message,
  messages,
  protoFields,
  text,
  textAlways,
  textMap,
  texts,
  time,
} from "./proto_fields.ts";
import { readProto } from "./proto_reader.ts";
import { field, joined, varint } from "./proto_testing.ts";

const FIELDS = protoFields({
  1: text("text"),
  2: textAlways("textAlways"),
  3: texts("texts"),
  4: bool("bool"),
  5: boolAlways("boolAlways"),
  6: int("int"),
  7: intAlways("intAlways"),
  8: time("time"),
  9: intOrText("port"),
  10: textMap("map", (key) => key !== "unwanted"),
  11: message("inner", { 1: text("name") }),
  12: messages("list", { 1: int("number") }),
  13: bytes("bytes"),
});
const entry = (key: string, value: string) => field(10, joined(field(1, key), field(2, value)));
const LONG = "ä".repeat(40);

const WHOLE = joined(
  field(1, LONG),
  field(3, "a"),
  field(3, ""),
  field(4, true),
  field(6, -1),
  field(8, joined(field(1, 1_700_000_000), field(2, 0))),
  field(9, joined(field(1, 0), field(2, 8080), field(3, ""))),
  entry("wanted", "1"),
  entry("unwanted", "2"),
  entry("__proto__", "3"),
  field(11, field(1, "x")),
  field(12, field(1, 1)),
  field(12, field(1, 2n ** 53n - 1n)),
  field(13, "raw"),
  field(17, "managed"), // Nobody asks for it.
  joined(varint(18 << 3 | 1), "8 bytes.", varint(19 << 3 | 5), "4by.", field(20, 7)),
);

Deno.test("readProto() reads the fields it is asked for, as JSON says them, and passes over all others", () => {
  const map = JSON.parse('{"wanted":"1","__proto__":"3"}');
  assertEquals(readProto(WHOLE, FIELDS), {
    text: LONG,
    texts: ["a", ""],
    bool: true,
    int: -1,
    time: "2023-11-14T22:13:20Z",
    port: 8080,
    map,
    inner: { name: "x" },
    list: [{ number: 1 }, { number: 2 ** 53 - 1 }],
    bytes: new TextEncoder().encode("raw"),
  });
  assertEquals(Object.getPrototypeOf(readProto(WHOLE, FIELDS).map), Object.prototype);
});

Deno.test("readProto() leaves out what JSON leaves out: no text, no time, 0 and false, but not where JSON says them", () => {
  const zeros = joined(
    field(1, ""),
    field(2, ""),
    field(4, false),
    field(5, false),
    field(6, 0),
    field(7, 0),
    field(8, ""),
  );
  assertEquals(readProto(zeros, FIELDS), { textAlways: "", boolAlways: false, intAlways: 0 });
  assertEquals(readProto(field(9, joined(field(1, 1), field(3, "http"))), FIELDS), { port: "http" });
  assertEquals(readProto(field(8, field(1, -1)), FIELDS), { time: "1969-12-31T23:59:59Z" });
});

Deno.test("readProto() refuses a message that is cut off anywhere within a field, by RangeError alone", () => {
  let whole = 0;
  for (let cut = 0; cut < WHOLE.length; cut++) {
    try {
      readProto(WHOLE.subarray(0, cut), FIELDS);
      whole++;
    } catch (error) {
      assert(error instanceof RangeError, String(error));
    }
  }
  assertEquals(whole, 18, "it may end before each of its fields");
});

Deno.test("readProto() refuses what no message says", () => {
  const refused: Record<string, Uint8Array> = {
    "a field's number 0": joined(varint(2), varint(0)),
    "a field's number above 32 bits": joined(varint(2n ** 33n | 2n), varint(0)),
    "a text that is a number": field(1, 1),
    "a number that is a text": field(6, "x"),
    "a message that is a number": field(11, 1),
    "a map whose key is a number": field(10, field(1, 1)),
    "a group": joined(varint(30 << 3 | 3), varint(30 << 3 | 4)),
    "a length beyond the end": joined(varint(30 << 3 | 2), varint(1)),
    "a length above 32 bits": joined(varint(30 << 3 | 2), varint(2n ** 32n)),
    "an inner length beyond its message": joined(
      field(11, joined(varint(1 << 3 | 2), varint(9))),
      field(1, "long enough"),
    ),
    "a number without an end": joined(varint(6 << 3), new Uint8Array(11).fill(0xff)),
    "a number that is not exact": field(6, 2n ** 60n),
    "a text that is no UTF-8": field(1, new Uint8Array([0xc3])),
    "a time that no calendar has": field(8, field(1, 2n ** 50n)),
    "a port that is neither": field(9, field(4, 1)),
  };
  for (const [what, bytes] of Object.entries(refused)) {
    assertThrows(() => readProto(bytes, FIELDS), RangeError, undefined, what);
  }
});
