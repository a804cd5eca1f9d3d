import { assertEquals } from "@std/assert";
import { formatIp, parseIp } from "../../base/address.ts";
import { addressQuery, answeredAddresses } from "./lookup.ts";
import { readQuery, readResponse } from "./message.ts";
import { writeOwnAnswer, writeQuery } from "./message_writer.ts";

const ip = (text: string) => parseIp(text)!;

Deno.test("addressQuery() asks what readQuery() reads, and only for what is a name (RFC 1035 §3.1)", () => {
  for (const [v4, type] of [[true, 1], [false, 28]] as const) {
    const query = addressQuery("WWW.example.com.", v4)!;
    const received = readQuery(writeQuery(7, query));
    assertEquals(received.kind === "query" && [received.query.name, received.query.type, received.query.class], [
      "www.example.com",
      type,
      1,
    ]);
    assertEquals(received.kind === "query" && received.query.question, query.question);
  }
  for (const text of ["", ".", "a..b", "a b", "é.example", `${"x".repeat(64)}.example`, "x.".repeat(128)]) {
    assertEquals(addressQuery(text, true), undefined, text);
  }
});

Deno.test("answeredAddresses() gives the addresses of the asked family, also behind an alias, and nothing else", () => {
  const query = addressQuery("short", true)!;
  const answer = { name: "short", alias: "long.example", addresses: [ip("10.0.0.1"), ip("10.0.0.2")], ttlSeconds: 5 };
  const bytes = writeOwnAnswer(query, answer, 512), response = readResponse(bytes, 0, query.question)!;
  assertEquals(answeredAddresses(bytes, response, true).map((it) => formatIp(...it)), ["10.0.0.1", "10.0.0.2"]);
  assertEquals(answeredAddresses(bytes, response, false), []);
  const sixth = addressQuery("short", false)!,
    sixBytes = writeOwnAnswer(sixth, { ...answer, alias: undefined, addresses: [ip("fd00::1")] }, 512);
  const six = readResponse(sixBytes, 0, sixth.question)!;
  assertEquals(answeredAddresses(sixBytes, six, false).map((it) => formatIp(...it)), ["fd00::1"]);
  // A record whose length is not its family's is no address.
  const wrong = { ...six, records: six.records.map((record) => ({ ...record, end: record.end - 1 })) };
  assertEquals(answeredAddresses(sixBytes, wrong, false), []);
});
