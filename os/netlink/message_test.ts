import { assert, assertEquals, assertThrows } from "@std/assert";
import { Attributes, HEADER_BYTES, MessageWriter, readMessages, REQUEST_BYTES_MAX } from "./message.ts";

const written = () =>
  new MessageWriter().message(20, 5, 7, (writer) => {
    writer.raw([2, 24, 0, 0]).string(3, "eth0").u16(4, 0x1234).u32Be(5, 1).nest(18, () => writer.u8(1, 9).u64Be(2, 5n));
  }).message(21, 0, 8, () => {}).finish();

Deno.test("readMessages() and Attributes.read() give back what MessageWriter wrote", () => {
  const messages = readMessages(written())!;
  assertEquals(messages.map(({ type, flags, sequence }) => [type, flags, sequence]), [[20, 5, 7], [21, 0, 8]]);
  const attributes = Attributes.read(messages[0]!.payload, 4)!;
  assertEquals(attributes.string(3), "eth0");
  assertEquals(attributes.bytes(4), Uint8Array.of(0x34, 0x12));
  assertEquals(attributes.u32Be(5), 1);
  assertEquals(attributes.nest(18)!.bytes(1), Uint8Array.of(9));
  assertEquals(attributes.nest(18)!.list.length, 2);
  assertEquals(attributes.u32(99), undefined);
});

Deno.test("readMessages() and Attributes.read() refuse every cut and every false length, without throwing", () => {
  const whole = written();
  for (let cut = 1; cut < whole.length; cut++) {
    const messages = readMessages(whole.subarray(0, cut));
    assert(messages === undefined || messages.length === 1, `cut at ${cut}`);
  }
  for (let at = 0; at < whole.length; at++) {
    for (const value of [0, 1, 3, 0x7f, 0xff]) {
      const broken = whole.slice();
      broken[at] = value;
      for (const message of readMessages(broken) ?? []) Attributes.read(message.payload, 4)?.nest(18);
    }
  }
  assertEquals(readMessages(new Uint8Array(HEADER_BYTES)), undefined);
});

Deno.test("MessageWriter writes the same wherever its buffer has to grow", () => {
  const body = (writer: MessageWriter) => writer.u8(1, 1).u16(2, 2).u32(3, 3).u32Be(4, 4).u64Be(5, 5n).string(6, "six");
  const expected = body(new MessageWriter()).finish().slice();
  for (let filler = 4000; filler <= 4096; filler += 4) {
    const bytes = body(new MessageWriter().raw(new Uint8Array(filler))).finish();
    assertEquals(bytes.slice(filler), expected, `after ${filler} bytes`);
  }
});

Deno.test("MessageWriter refuses to grow past its bound", () => {
  const writer = new MessageWriter();
  const chunk = new Uint8Array(60_000);
  assertThrows(() => {
    for (let bytes = 0; bytes <= REQUEST_BYTES_MAX; bytes += chunk.length) writer.bytes(1, chunk);
  });
});
