import { assertEquals } from "@std/assert";
import { TLS_1_3, TlsRecords } from "./tls_records.ts";

const record = (
  type: number,
  body: readonly number[],
  minor = 3,
) => [type, 3, minor, body.length >> 8, body.length & 255, ...body];
const serverHello = (extensions: readonly number[]) => {
  const body = [3, 3, ...new Array(32).fill(7), 0, 0x13, 1, 0, 0, extensions.length, ...extensions];
  return [2, 0, 0, body.length, ...body];
};
const STREAM = new Uint8Array([
  ...record(22, [1, 0, 0, 1, 9], 1),
  ...record(22, serverHello([0, 51, 0, 1, 5, 0, 43, 0, 2, 3, 4])),
  ...record(20, [1]),
  ...record(23, new Array(300).fill(170)),
]);

Deno.test("TlsRecords reads the same records and version wherever the bytes are cut (RFC 8446 §5.1)", () => {
  for (let cut = 0; cut <= STREAM.length; cut++) {
    const records = new TlsRecords();
    records.feed(STREAM.subarray(0, cut));
    records.feed(STREAM.subarray(cut));
    assertEquals([records.recordCount, records.applicationRecordCount, records.version], [4, 1, TLS_1_3]);
    assertEquals(records.broken, false);
  }
});

Deno.test("TlsRecords takes the version of a ServerHello without the extension from its old field", () => {
  const records = new TlsRecords();
  records.feed(new Uint8Array(record(22, serverHello([0, 51, 0, 1, 5]))));
  assertEquals(records.version, 0x0303);
});

Deno.test("TlsRecords is broken for good by what is no record", () => {
  for (const bad of ["GET / HTTP/1.1\r\n", "\x17\x02\x00\x00\x01x", "\x17\x03\x03\xff\xffx", "\x17\x03\x03\x00\x00x"]) {
    const records = new TlsRecords();
    records.feed(Uint8Array.from(bad, (character) => character.charCodeAt(0)));
    records.feed(STREAM);
    assertEquals([records.broken, records.version], [true, 0], JSON.stringify(bad));
  }
});
