/** Tests of bytes.ts. */
import { assertEquals } from "@std/assert";
import {
  copyBytes,
  equalsAscii,
  readUint16,
  readUint24,
  readUint31,
  readUint32,
  writeUint16,
  writeUint24,
  writeUint32,
} from "./bytes.ts";

Deno.test("readUint…() gives back what writeUint…() wrote, at the ends of each range", () => {
  const bytes = new Uint8Array(8);
  const check = (
    write: (target: Uint8Array, at: number, value: number) => number,
    read: (bytes: Uint8Array, at: number) => number,
    byteCount: number,
    values: readonly number[],
  ) => {
    for (const value of values) {
      assertEquals(write(bytes, 1, value), 1 + byteCount);
      assertEquals(read(bytes, 1), value);
    }
  };
  check(writeUint16, readUint16, 2, [0, 1, 0xff, 0x100, 0xfffe, 0xffff]);
  check(writeUint24, readUint24, 3, [0, 1, 0xffff, 0x10000, 0xffffff]);
  check(writeUint32, readUint32, 4, [0, 1, 0x7fffffff, 0x80000000, 0xffffffff]);
});

Deno.test("readUint31() drops the reserved bit (RFC 9113 §4.1)", () => {
  assertEquals(readUint31(Uint8Array.of(0xff, 0xff, 0xff, 0xff), 0), 0x7fffffff);
  assertEquals(readUint31(Uint8Array.of(0x80, 0, 0, 1), 0), 1);
});

Deno.test("copyBytes() copies alike by loop and by native copy", () => {
  const source = Uint8Array.from({ length: 300 }, (_, at) => at);
  for (const count of [0, 1, 63, 64, 65, 290]) {
    const target = new Uint8Array(300);
    assertEquals(copyBytes(target, 4, source, 7, 7 + count), 4 + count);
    assertEquals(target.subarray(4, 4 + count), source.subarray(7, 7 + count));
    assertEquals(target.subarray(4 + count).every((octet) => octet === 0), true);
  }
});

Deno.test("equalsAscii() wants the whole text and nothing more", () => {
  const bytes = new TextEncoder().encode("xbaggagex");
  assertEquals(equalsAscii(bytes, 1, 8, "baggage"), true);
  assertEquals(equalsAscii(bytes, 1, 7, "baggage"), false);
  assertEquals(equalsAscii(bytes, 1, 9, "baggage"), false);
  assertEquals(equalsAscii(bytes, 0, 7, "baggage"), false);
});
