/** DER, held against what others write and read. */
import { assertEquals } from "@std/assert";
import * as x509 from "@peculiar/x509";
import { element, objectIdentifier, readElement, readElements, sequence, TAG, time, unsigned } from "./der.ts";

const hex = (text: string) => Uint8Array.fromHex(text);

Deno.test("element() and readElement() agree on every length, at each edge of its form (X.690 §8.1.3)", () => {
  for (const length of [0, 1, 0x7f, 0x80, 0xff, 0x100, 0xffff, 0x10000]) {
    const written = element(TAG.OCTET_STRING, new Uint8Array(length));
    const read = readElement(written, 0, written.length)!;
    assertEquals([read.tag, read.end - read.contents, read.end], [TAG.OCTET_STRING, length, written.length]);
    assertEquals(readElement(written, 0, written.length - 1), undefined, "cut off");
  }
});

Deno.test("readElement() takes the shortest form of a length alone, and no tag of several bytes (X.690 §10.1)", () => {
  const wrong = ["", "30", "3080", "30810100", "3081", "308200ff", "30820001", "3085000000000100", "1f8101", "3001"];
  for (const text of wrong) assertEquals(readElement(hex(text), 0, text.length / 2), undefined, text);
  assertEquals(readElements(hex("05000500"), 0, 4, 2)?.length, 2);
  for (const [text, count] of [["05000500", 1], ["050005", 2], ["0500ff", 2]] as const) {
    assertEquals(readElements(hex(text), 0, text.length / 2, count), undefined, text);
  }
});

Deno.test("unsigned(), objectIdentifier() and time() write what X.690 and RFC 5280 §4.1.2.5 ask", () => {
  const numbers = { "00": "020100", "7f": "02017f", "80": "02020080", "0001": "020101", "00ff": "020200ff" };
  for (const [bytes, der] of Object.entries(numbers)) assertEquals(unsigned(hex(bytes)).toHex(), der);
  assertEquals(objectIdentifier("1.2.840.113549.1.1.11").toHex(), "06092a864886f70d01010b");
  assertEquals(objectIdentifier("2.5.29.15").toHex(), "0603551d0f");
  const text = (ms: number) => new TextDecoder().decode(time(ms).subarray(2));
  assertEquals([time(0)[0], text(0)], [TAG.UTC_TIME, "700101000000Z"]);
  assertEquals(text(Date.UTC(2049, 11, 31, 23, 59, 59, 999)), "491231235959Z");
  const later = Date.UTC(2050, 0, 1);
  assertEquals([time(later)[0], text(later)], [TAG.GENERALIZED_TIME, "20500101000000Z"]);
});

Deno.test("readElements() reads every certificate of another maker down to its leaves", async () => {
  const keys = await crypto.subtle.generateKey({ name: "ECDSA", namedCurve: "P-384" }, true, ["sign", "verify"]);
  const made = await x509.X509CertificateGenerator.createSelfSigned({ name: [{ O: ["Bänk"] }, { CN: ["x"] }], keys });
  const bytes = new Uint8Array(made.rawData);
  const rewrite = (start: number, end: number): Uint8Array[] =>
    readElements(bytes, start, end, 100)!.map(({ tag, contents, end }) =>
      tag & 0x20 ? element(tag, ...rewrite(contents, end)) : element(tag, bytes.subarray(contents, end))
    );
  assertEquals(rewrite(0, bytes.length)[0], bytes);
  assertEquals(sequence(...rewrite(readElement(bytes, 0, bytes.length)!.contents, bytes.length)), bytes);
});
