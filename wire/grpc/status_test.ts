import { assertEquals } from "@std/assert";
import { HpackDecoder } from "../h2/hpack_decoder.ts";
import { HeaderTexts } from "../h2/testing.ts";
import { percentEncoded, Status, trailerBlock } from "./status.ts";

function texts(block: Uint8Array): string[] {
  const sink = new HeaderTexts();
  assertEquals(new HpackDecoder(4_096, 65_536).decode(block, 0, block.length, sink), 0);
  return sink.texts;
}

Deno.test("trailerBlock() says the status, and a message if there is one", () => {
  assertEquals(texts(trailerBlock("OK", "")), ["grpc-status: 0"]);
  assertEquals(texts(trailerBlock("INTERNAL", "50% of ä\n")), ["grpc-status: 13", "grpc-message: 50%25 of %C3%A4%0A"]);
});

Deno.test("trailerBlock() has room for the worst of all messages, and cuts what is longer", () => {
  const [, message] = texts(trailerBlock("UNKNOWN", "\u{ffff}".repeat(5_000)));
  assertEquals(message, `grpc-message: ${"%EF%BF%BF".repeat(1_024)}`);
});

Deno.test("percentEncoded() is undone by decodeURIComponent, and leaves no space at an edge", () => {
  for (const text of ["", " ", " a b ", "100 %", "a\tb\u{1f600}", "~!@#$^&*()"]) {
    const encoded = percentEncoded(text);
    assertEquals([decodeURIComponent(encoded), encoded.trim(), /^[ -~]*$/.test(encoded)], [text, encoded, true]);
  }
});

Deno.test("Status has the seventeen codes of gRPC in their order", () => {
  assertEquals(Object.values(Status), Array.from({ length: 17 }, (_, code) => code));
});
