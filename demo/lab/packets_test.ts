import { assertEquals } from "@std/assert";
import { readSegment } from "./packets.ts";

const bytes = (...parts: readonly (readonly number[] | string)[]) =>
  new Uint8Array(parts.flatMap((part) => typeof part === "string" ? [...new TextEncoder().encode(part)] : [...part]));
const ethernet = (type: readonly number[]) => [...new Array(12).fill(0xee), ...type];
const tcp = (flags: number) => [0x3a, 0x98, 0x1f, 0x90, 0, 0, 1, 2, 0, 0, 0, 0, 0x50, flags, 0, 0, 0, 0, 0, 0];
const ipv4 = (
  total: number,
  protocol = 6,
) => [0x45, 0, 0, total, 0, 0, 0, 0, 64, protocol, 0, 0, 10, 80, 1, 2, 10, 80, 2, 3];
const V6 = [0xfd, 0x80, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10];
const ipv6 = (payload: number) => [0x60, 0, 0, 0, 0, payload, 6, 64, ...V6, ...V6];

Deno.test("readSegment() reads TCP over IPv4, without the padding that a short frame has", () => {
  const segment = readSegment(bytes(ethernet([8, 0]), ipv4(42), tcp(2), "hi", [0, 0, 0, 0]));
  assertEquals(segment && { ...segment, payload: new TextDecoder().decode(segment.payload) }, {
    source: "10.80.1.2",
    sourcePort: 15000,
    destination: "10.80.2.3",
    destinationPort: 8080,
    sequence: 258,
    syn: true,
    payload: "hi",
  });
});

Deno.test("readSegment() reads TCP over IPv6", () => {
  const segment = readSegment(bytes(ethernet([0x86, 0xdd]), ipv6(23), tcp(0x10), "abc"));
  assertEquals([segment?.source, segment?.syn, segment?.payload.length], ["fd80:1:0:0:0:0:0:10", false, 3]);
});

Deno.test("readSegment() finds nothing in other protocols, and in every frame that is cut short", () => {
  const whole = bytes(ethernet([8, 0]), ipv4(40), tcp(0));
  for (let length = 0; length < whole.length; length++) assertEquals(readSegment(whole.slice(0, length)), undefined);
  assertEquals(readSegment(bytes(ethernet([8, 6]), new Array(40).fill(0))), undefined);
  assertEquals(readSegment(bytes(ethernet([8, 0]), ipv4(40, 17), tcp(0))), undefined);
});
