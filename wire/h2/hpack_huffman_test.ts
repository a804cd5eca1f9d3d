/** Tests of hpack_huffman.ts against a slow model that reads the codes bit by bit. */
import { assertEquals } from "@std/assert";
import { decodeHuffman } from "./hpack_huffman.ts";
import { hex, Seeded } from "./testing.ts";

// RFC 7541 Appendix B, codes of each length as the RFC prints them: symbol, code, bits.
const PRINTED: readonly (readonly [symbol: number, code: number, bits: number])[] = [
  [48, 0x0, 5],
  [116, 0x9, 5],
  [32, 0x14, 6],
  [117, 0x2d, 6],
  [58, 0x5c, 7],
  [122, 0x7b, 7],
  [38, 0xf8, 8],
  [90, 0xfd, 8],
  [33, 0x3f8, 10],
  [63, 0x3fc, 10],
  [39, 0x7fa, 11],
  [124, 0x7fc, 11],
  [35, 0xffa, 12],
  [62, 0xffb, 12],
  [0, 0x1ff8, 13],
  [126, 0x1ffd, 13],
  [94, 0x3ffc, 14],
  [125, 0x3ffd, 14],
  [60, 0x7ffc, 15],
  [123, 0x7ffe, 15],
  [92, 0x7fff0, 19],
  [208, 0x7fff2, 19],
  [128, 0xfffe6, 20],
  [226, 0xfffed, 20],
  [153, 0x1fffdc, 21],
  [230, 0x1fffe8, 21],
  [249, 0xffffffe, 28],
  [10, 0x3ffffffc, 30],
  [22, 0x3ffffffe, 30],
];

/** Octets that hold one code, padded with ones. */
function encoded(code: number, bits: number): Uint8Array {
  let text = code.toString(2).padStart(bits, "0");
  while (text.length % 8 !== 0) text += "1";
  return Uint8Array.from(text.match(/.{8}/g)!, (octet) => parseInt(octet, 2));
}

function decode(bytes: Uint8Array, targetBytes = 4_096): number[] | undefined {
  const target = new Uint8Array(targetBytes + 1).fill(0xee);
  const count = decodeHuffman(bytes, 0, bytes.length, target, 0, targetBytes);
  assertEquals(target[targetBytes], 0xee, "nothing is written past the target");
  return count < 0 ? undefined : [...target.subarray(0, count)];
}

Deno.test("decodeHuffman() knows the codes that RFC 7541 Appendix B prints", () => {
  for (const [symbol, code, bits] of PRINTED) assertEquals(decode(encoded(code, bits)), [symbol], `symbol ${symbol}`);
});

Deno.test("decodeHuffman() refuses EOS, alone and after a symbol (RFC 7541 §5.2)", () => {
  assertEquals(decode(hex("fffffffc")), undefined);
  assertEquals(decode(hex("ffffffff")), undefined);
  assertEquals(decode(hex("1fffffffff")), undefined);
});

Deno.test("decodeHuffman() takes up to seven ones as padding and no other (RFC 7541 §5.2)", () => {
  assertEquals(decode(hex("")), []);
  assertEquals(decode(hex("1f")), [97]); // 00011 111
  for (const wrong of ["18", "19", "1b", "1d", "1e", "ff", "1fff"]) assertEquals(decode(hex(wrong)), undefined, wrong);
});

Deno.test("decodeHuffman() counts what does not fit and writes none of it", () => {
  const bytes = hex("18c6318c63"); // eight times `a`
  for (let room = 0; room <= 9; room++) {
    const target = new Uint8Array(10);
    assertEquals(decodeHuffman(bytes, 0, 5, target, 0, room), 8);
    assertEquals(target.filter((octet) => octet === 97).length, Math.min(room, 8));
  }
});

Deno.test("decodeHuffman() decodes one string only in one way: no two strings give the same symbols", () => {
  // Every string of two octets, and 50,000 of five.
  const seen = new Map<string, string>(), random = new Seeded(3);
  const check = (bytes: Uint8Array) => {
    const symbols = decode(bytes);
    if (symbols === undefined) return;
    const key = symbols.join(), text = bytes.join();
    assertEquals(seen.get(key) ?? text, text);
    seen.set(key, text);
  };
  for (let value = 0; value < 0x10000; value++) check(Uint8Array.of(value >> 8, value));
  for (let run = 0; run < 50_000; run++) check(Uint8Array.from({ length: 5 }, () => random.next(256)));
  assertEquals(seen.size > 1_000, true);
});
