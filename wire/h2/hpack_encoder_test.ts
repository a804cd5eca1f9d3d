/** Tests of hpack_encoder.ts. */
import { assertEquals, assertThrows } from "@std/assert";
import { AssertionError } from "../../base/assert.ts";
import { HpackDecoder } from "./hpack_decoder.ts";
import { BAD_VALUE, DOES_NOT_FIT, writeConnectBlock, writeField, writeResponseBlock } from "./hpack_encoder.ts";
import { ascii, HeaderTexts, hex } from "./testing.ts";

function decoded(bytes: Uint8Array, end: number): string[] {
  const sink = new HeaderTexts(), decoder = new HpackDecoder(0, 1 << 20);
  assertEquals(decoder.decode(bytes, 0, end, sink), 0);
  return sink.texts;
}

Deno.test("writeConnectBlock() writes the pseudo-headers first, then the three fields (ZT-052, ZT-054)", () => {
  const target = new Uint8Array(512);
  const end = writeConnectBlock(target, 0, "10.0.0.2:8080", "k8s.namespace.name=shop", 'for="10.0.0.1:4"', "00-1-2-00");
  assertEquals(decoded(target, end), [
    ":method: CONNECT",
    ":authority: 10.0.0.2:8080",
    "baggage: k8s.namespace.name=shop",
    'forwarded: for="10.0.0.1:4"',
    "traceparent: 00-1-2-00",
  ]);
  assertEquals(target.subarray(0, 9), hex("02 07 434f4e4e454354"));
});

Deno.test("writeResponseBlock() writes each status the mesh uses, in its shortest form (ZT-059, ZT-060)", () => {
  const check = (status: number, baggage: string, expected: Uint8Array) => {
    const target = new Uint8Array(64);
    const end = writeResponseBlock(target, 3, status, baggage);
    assertEquals(target.subarray(3, end), expected);
  };
  check(200, "", hex("88"));
  check(400, "", hex("8c"));
  check(404, "", hex("8d"));
  check(500, "", hex("8e"));
  check(401, "", hex("08 03 343031"));
  check(503, "", hex("08 03 353033"));
  check(200, "a=b", Uint8Array.of(0x88, 0, 7, ...ascii("baggage"), 3, ...ascii("a=b")));
  assertThrows(() => writeResponseBlock(new Uint8Array(9), 0, 100, ""), AssertionError);
});

Deno.test("writeConnectBlock() says when it does not fit, for every size that is too small", () => {
  const write = (target: Uint8Array) =>
    writeConnectBlock(target, 0, "10.0.0.2:8080", "a=".padEnd(300, "b"), "for=x", "00-1-2-00");
  const whole = write(new Uint8Array(1_024));
  for (let bytes = 0; bytes < whole; bytes++) assertEquals(write(new Uint8Array(bytes)), DOES_NOT_FIT);
  // Five octets to spare are asked for where an integer is written, so the exact size may be refused, never overrun.
  assertEquals(write(new Uint8Array(whole + 5)), whole);
});

Deno.test("writeField() writes lengths of one, two and three octets (RFC 7541 §5.1)", () => {
  const target = new Uint8Array(70_000);
  for (const length of [0, 1, 126, 127, 128, 254, 255, 256, 16_510, 16_511, 65_536]) {
    const value = "v".repeat(length);
    assertEquals(decoded(target, writeField(target, 0, "name", value)), [`name: ${value}`]);
  }
});

Deno.test("writeField() refuses what a field may not hold, so that nothing can be smuggled (RFC 9113 §8.2.1)", () => {
  const target = new Uint8Array(64);
  for (const bad of ["a\r\nb", "a\nb", "a\0b", "\x7f", "ü", "\u{1f600}"]) {
    assertEquals(writeField(target, 0, "baggage", bad), BAD_VALUE, JSON.stringify(bad));
    assertEquals(writeConnectBlock(target, 0, "h:1", bad, "f", "t"), BAD_VALUE);
  }
  assertEquals(writeField(target, BAD_VALUE, "baggage", "fine"), BAD_VALUE);
  assertEquals(writeField(target, DOES_NOT_FIT, "baggage", "fine"), DOES_NOT_FIT);
});
