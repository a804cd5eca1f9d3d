import { assert, assertEquals, assertThrows } from "@std/assert";
import { list, maybe, record, recordCodec, shapeHash } from "./record_codec.ts";

const SHAPE = record({
  count: "u32",
  window: "i32",
  bytes: "f64",
  open: "flag",
  name: "text",
  secret: "bytes",
  parts: list(record({ at: "u32", what: maybe("text") })),
  more: maybe(list("u32")),
});
const codec = recordCodec(SHAPE);
const value = {
  count: 0xffffffff,
  window: -0x80000000,
  bytes: 2 ** 53,
  open: true,
  name: "grüß dich",
  secret: new Uint8Array(9_000).fill(7), // More than the buffer that encoding begins with.
  parts: [{ at: 0, what: undefined }, { at: 1, what: "" }],
  more: [3, 2, 1],
};

Deno.test("RecordCodec gives back what it was given, and takes no other length", () => {
  const bytes = codec.encode(value);
  assertEquals(codec.decode(bytes), value);
  for (let cut = 0; cut < bytes.length; cut++) assertEquals(codec.decode(bytes.subarray(0, cut)), undefined);
  const longer = new Uint8Array(bytes.length + 1);
  longer.set(bytes);
  assertEquals(codec.decode(longer), undefined);
});

Deno.test("RecordCodec.decode makes nothing of a length beyond the input, nor of numbers that are none", () => {
  const numbers = recordCodec(record({ all: list("u32"), one: "f64" }));
  const bytes = numbers.encode({ all: [], one: 1 });
  bytes.fill(0xff, 0, 4); // Four thousand million items.
  assertEquals(numbers.decode(bytes), undefined);
  const flags = recordCodec(record({ it: "flag" }));
  assertEquals(flags.decode(Uint8Array.of(2)), undefined);
  const finite = recordCodec(record({ it: "f64" }));
  assertEquals(finite.decode(new Uint8Array(new Float64Array([NaN]).buffer)), undefined);
  assertThrows(() => finite.encode({ it: Infinity }), Error, "finite");
});

Deno.test("RecordCodec.decode never throws, whatever it reads", () => {
  const bytes = codec.encode({ ...value, secret: new Uint8Array(4) });
  let seed = 1, taken = 0;
  const random = (below: number) => (seed = Math.imul(seed, 0x41c64e6d) + 12345 >>> 0) % below;
  for (let round = 0; round < 20_000; round++) {
    const changed = bytes.slice();
    for (let left = 1 + random(4); left > 0; left--) changed[random(bytes.length)] = random(256);
    if (codec.decode(changed) !== undefined) taken++;
  }
  assert(taken > 0, "most changes of a value are another value");
});

Deno.test("shapeHash() tells every change of name, order and kind apart", () => {
  const hashes = [
    record({ a: "u32", b: "u32" }),
    record({ b: "u32", a: "u32" }),
    record({ a: "u32", b: "i32" }),
    record({ a: "u32", b: maybe("u32") }),
    record({ a: "u32", b: list("u32") }),
    record({ a: "u32", c: "u32" }),
  ].map(shapeHash);
  assertEquals(new Set(hashes).size, hashes.length);
});
