import { assertEquals } from "@std/assert";
import { hex, joined } from "../h2/testing.ts";
import { messagePrefix, MessageReader } from "./message_reader.ts";

const MESSAGES = [hex(""), hex("01"), new Uint8Array(3_000).fill(7), hex("aabb")];
const WIRE = joined(...MESSAGES.flatMap((message) => [messagePrefix(message.length), message]));

Deno.test("MessageReader gives the same messages wherever their bytes are cut", () => {
  for (let cut = 0; cut <= WIRE.length; cut++) {
    const reader = new MessageReader(3_000), got: Uint8Array[] = [];
    const keep = (message: Uint8Array) => got.push(message) > 0;
    assertEquals(reader.receive(WIRE, 0, cut, keep), undefined);
    assertEquals(reader.receive(WIRE, cut, WIRE.length, keep), undefined);
    assertEquals([got, reader.betweenMessages], [MESSAGES, true]);
  }
});

Deno.test("MessageReader lends a message that comes whole, and gathers one that does not", () => {
  const wire = WIRE.slice(), lent: boolean[] = [];
  const look = (message: Uint8Array) => lent.push(message.buffer === wire.buffer) > 0;
  const reader = new MessageReader(3_000);
  reader.receive(wire, 0, 100, look);
  reader.receive(wire, 100, wire.length, look);
  assertEquals(lent, [true, true, false, true]);
});

Deno.test("MessageReader refuses a message by its announced length, before a byte of it, and whatever is compressed", () => {
  const never = () => {
    throw new Error("a message came");
  };
  assertEquals(new MessageReader(10).receive(messagePrefix(11), 0, 5, never)?.status, "RESOURCE_EXHAUSTED");
  assertEquals(new MessageReader(10).receive(hex("01 00000001"), 0, 5, never)?.status, "INTERNAL");
  assertEquals(new MessageReader(10).receive(hex("00 ffffffff"), 0, 5, never)?.status, "RESOURCE_EXHAUSTED");
});

Deno.test("MessageReader reads no further than its taker wants, and knows an end within a message", () => {
  const reader = new MessageReader(3_000);
  let count = 0;
  reader.receive(WIRE, 0, WIRE.length, () => ++count < 2);
  assertEquals(count, 2);
  for (let end = 1; end < 6; end++) {
    const cut = new MessageReader(10);
    cut.receive(joined(messagePrefix(2), hex("0102")), 0, end, () => true);
    assertEquals(cut.betweenMessages, false);
  }
});
