/** Tests of request_check.ts, through the decoder as in service. */
import { assertEquals } from "@std/assert";
import { H2Error } from "./frame_rules.ts";
import { HpackDecoder } from "./hpack_decoder.ts";
import { DISCARD, RequestHead, ResponseHead } from "./request_check.ts";
import { ascii, joined, latin1Text } from "./testing.ts";

const MALFORMED = -H2Error.PROTOCOL_ERROR;

/** A block of literals from `name=value`, the colon of a pseudo-header included. */
function block(fields: readonly string[]): Uint8Array {
  return joined(...fields.map((field) => {
    const cut = field.indexOf("="), name = ascii(field.slice(0, cut)), value = ascii(field.slice(cut + 1));
    return joined(Uint8Array.of(0, name.length), name, Uint8Array.of(value.length), value);
  }));
}

const head = new RequestHead(16_384); // Kept from test to test: begin() must forget everything.

function judge(...fields: readonly string[]): number {
  const bytes = block(fields);
  head.begin();
  assertEquals(new HpackDecoder(4_096, 16_384).decode(bytes, 0, bytes.length, head), 0);
  return head.verdict();
}

const CONNECT = [":method=CONNECT", ":authority=10.0.0.2:80"];

Deno.test("RequestHead takes a plain CONNECT and keeps what the mesh reads (ZT-052, ZT-054, RFC 9113 §8.5)", () => {
  const status = judge(
    ...CONNECT,
    "baggage=a=b",
    'forwarded=for="10.0.0.1:3"',
    "x-other=1",
    "traceparent=00-1-2-00",
    "baggage=c=d",
    "x-forwarded-network=n2",
    "te=trailers",
  );
  assertEquals(status, 200);
  assertEquals(latin1Text(head.bytes, head.authorityStart, head.authorityEnd), "10.0.0.2:80");
  assertEquals(latin1Text(head.bytes, head.forwardedStart, head.forwardedEnd), 'for="10.0.0.1:3"');
  assertEquals(latin1Text(head.bytes, head.traceparentStart, head.traceparentEnd), "00-1-2-00");
  assertEquals(latin1Text(head.bytes, head.networkStart, head.networkEnd), "n2");
  assertEquals(latin1Text(head.baggageBytes, 0, head.baggageEnd), "a=b,c=d");
});

Deno.test("RequestHead.begin() forgets the last head", () => {
  assertEquals(judge(...CONNECT), 200);
  assertEquals([head.forwardedEnd, head.traceparentEnd, head.networkEnd, head.baggageEnd], [0, 0, 0, 0]);
});

Deno.test("RequestHead tells an empty network from none: the first network of a mesh may have no name (ZT-099)", () => {
  const said = (...fields: string[]) => {
    assertEquals(judge(...CONNECT, ...fields), 200);
    return [head.networkSaid, latin1Text(head.bytes, head.networkStart, head.networkEnd)];
  };
  assertEquals(said("x-forwarded-network="), [true, ""]);
  assertEquals(said("x-forwarded-network=", "x-forwarded-network=n2"), [true, ""]);
  assertEquals(said(), [false, ""]);
});

Deno.test("RequestHead keeps the first of a repeated field", () => {
  assertEquals(judge(...CONNECT, "forwarded=host=a", "forwarded=host=b"), 200);
  assertEquals(latin1Text(head.bytes, head.forwardedStart, head.forwardedEnd), "host=a");
});

Deno.test("RequestHead answers 400 to what is well formed but no CONNECT with an authority (ZT-060)", () => {
  const get = [":method=GET", ":scheme=https", ":path=/", ":authority=a"];
  assertEquals(judge(...get), 400);
  assertEquals(judge(":path=/x", ":scheme=http", ":method=POST", "content-length=3"), 400);
  assertEquals(judge(":method=CONNECT"), 400);
  assertEquals(judge(":method=CONNECT", ":authority="), 400);
  assertEquals(judge(":method=connect", ":scheme=http", ":path=/"), 400); // Methods are case-sensitive.
});

Deno.test("RequestHead finds malformed pseudo-headers (RFC 9113 §8.3, §8.5)", () => {
  for (
    const fields of [
      [],
      [":authority=a:1"],
      [...CONNECT, ":scheme=https"],
      [...CONNECT, ":path=/"],
      [...CONNECT, ":protocol=websocket", ":scheme=https", ":path=/"],
      [":method=CONNECT", ":method=CONNECT", ":authority=a:1"],
      [...CONNECT, ":authority=b:1"],
      [":method=CONNECT", "x=1", ":authority=a:1"],
      [...CONNECT, ":status=200"],
      [...CONNECT, ":unknown=1"],
      [...CONNECT, ":=1"],
      [":method=GET", ":path=/"],
      [":method=GET", ":scheme=https"],
      [":method=GET", ":scheme=https", ":path="],
      [":Method=CONNECT", ":authority=a:1"],
    ]
  ) {
    assertEquals(judge(...fields), MALFORMED, fields.join(" "));
  }
});

Deno.test("RequestHead finds malformed fields, one octet at a time (RFC 9113 §8.2.1)", () => {
  for (let octet = 0; octet < 256; octet++) {
    const letter = String.fromCharCode(octet);
    const badInName = octet <= 0x20 || octet >= 0x7f || letter === ":" || (letter >= "A" && letter <= "Z");
    assertEquals(judge(...CONNECT, `x${letter}y=1`), badInName ? MALFORMED : 200, `0x${octet.toString(16)} in a name`);
    const badInValue = octet === 0 || octet === 0x0a || octet === 0x0d;
    assertEquals(
      judge(...CONNECT, `x=1${letter}2`),
      badInValue ? MALFORMED : 200,
      `0x${octet.toString(16)} in a value`,
    );
    const badAtEdge = badInValue || octet === 0x20 || octet === 0x09;
    assertEquals(judge(...CONNECT, `x=${letter}2`), badAtEdge ? MALFORMED : 200);
    assertEquals(judge(...CONNECT, `x=2${letter}`), badAtEdge ? MALFORMED : 200);
    assertEquals(judge(":method=CONNECT", `:authority=a${letter}:1`), badInValue ? MALFORMED : 200);
  }
  assertEquals(judge(...CONNECT, "=1"), MALFORMED);
  assertEquals(judge(...CONNECT, "x="), 200);
});

Deno.test("RequestHead refuses fields that are specific to a connection (RFC 9113 §8.2.2)", () => {
  for (const name of ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"]) {
    assertEquals(judge(...CONNECT, `${name}=x`), MALFORMED, name);
  }
  assertEquals(judge(...CONNECT, "te=gzip"), MALFORMED);
  assertEquals(judge(...CONNECT, "te=trailers"), 200);
});

Deno.test("RequestHead holds a list that just fits its limit, baggage cut into as many fields as can be", () => {
  const count = 387; // A field counts 42, the pseudo-headers 99: 16,353 of 16,384.
  const fields = new Array(count).fill("baggage=a=b");
  assertEquals(judge(...CONNECT, ...fields), 200);
  assertEquals(head.baggageEnd, count * 4 - 1);
});

Deno.test("ResponseHead wants :status once, of three digits, and nothing else in front (RFC 9113 §8.3.2)", () => {
  const response = new ResponseHead(16_384);
  const check = (expected: number, ...fields: readonly string[]) => {
    const bytes = block(fields);
    response.begin();
    assertEquals(new HpackDecoder(4_096, 16_384).decode(bytes, 0, bytes.length, response), 0);
    assertEquals(response.verdict(), expected, fields.join(" "));
  };
  check(200, ":status=200", "baggage=a=b", "baggage=c=d");
  assertEquals(latin1Text(response.baggageBytes, 0, response.baggageEnd), "a=b,c=d");
  check(503, ":status=503");
  assertEquals(response.baggageEnd, 0);
  check(100, ":status=100");
  check(599, ":status=599");
  for (const status of ["", "2", "20", "2000", "20x", "-20", "099", "000", "600", "101", " 20"]) {
    check(MALFORMED, `:status=${status}`);
  }
  check(MALFORMED);
  check(MALFORMED, "x=1");
  check(MALFORMED, ":status=200", ":status=200");
  check(MALFORMED, "x=1", ":status=200");
  check(MALFORMED, ":status=200", ":method=CONNECT");
  check(MALFORMED, ":status=200", "connection=close");
});

Deno.test("DISCARD keeps the table in step while nobody looks", () => {
  const decoder = new HpackDecoder(4_096, 16_384), bytes = Uint8Array.of(0x40, 1, 0x61, 1, 0x62);
  assertEquals(decoder.decode(bytes, 0, bytes.length, DISCARD), 0);
  assertEquals(decoder.tableBytes, 34);
});
