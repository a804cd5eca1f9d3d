import { assertEquals } from "@std/assert";
import { writeField } from "./hpack_encoder.ts";
import { HpackDecoder } from "./hpack_decoder.ts";
import { RequestFields } from "./request_fields.ts";

type Field = readonly [string, string];

function read(fields: readonly Field[]): RequestFields {
  const block = new Uint8Array(10_000), head = new RequestFields();
  let end = 0;
  for (const [name, value] of fields) end = writeField(block, end, name, value);
  new HpackDecoder(4_096, 65_536).decode(block, 0, end, head);
  return head;
}

const GOOD: readonly Field[] = [[":method", "POST"], [":scheme", "https"], [":path", "/a"], [":authority", "b"]];

Deno.test("RequestFields keeps every value of a field in its order", () => {
  const head = read([...GOOD, ["a", "1"], ["b", ""], ["a", "2"]]);
  assertEquals([head.malformed, head.all("a"), head.first("b"), head.first("c"), head.all("c")], [
    false,
    ["1", "2"],
    "",
    undefined,
    [],
  ]);
});

Deno.test("RequestFields refuses heads that RFC 9113 §8.3 forbids", () => {
  const bad: readonly (readonly [string, readonly Field[]])[] = [
    ["nothing", []],
    ["no method", GOOD.slice(1)],
    ["no path", GOOD.filter(([name]) => name !== ":path")],
    ["an empty path", [...GOOD.filter(([name]) => name !== ":path"), [":path", ""]]],
    ["no scheme", GOOD.filter(([name]) => name !== ":scheme")],
    ["a pseudo-header twice", [...GOOD, [":path", "/a"]]],
    ["a pseudo-header after a field", [["a", "b"], ...GOOD]],
    ["a response's", [...GOOD, [":status", "200"]]],
    ["an unknown one", [...GOOD, [":what", "x"]]],
    ["of extended CONNECT", [...GOOD, [":protocol", "websocket"]]],
    ["a name in upper case", [...GOOD, ["Te", "trailers"]]],
    ["of one connection", [...GOOD, ["connection", "close"]]],
    ["te but for trailers", [...GOOD, ["te", "gzip"]]],
    ["a value with a space at its end", [...GOOD, ["a", "b "]]],
  ];
  for (const [what, fields] of bad) assertEquals([what, read(fields).malformed], [what, true]);
  assertEquals(read([...GOOD, ["te", "trailers"]]).malformed, false);
});
