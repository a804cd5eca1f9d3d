import { assert, assertEquals, assertThrows } from "@std/assert";
import { AssertionError } from "../assert.ts";
import { array, bytes, layout } from "./layout.ts";
import { formatTable, Rows, tableBytes } from "./rows.ts";

const SAMPLE = layout("sample", {
  state: "atomic",
  signed: "i32",
  plain: "u32",
  total: "f64",
  text: bytes(5),
  list: array("i32", 3),
  sums: array("f64", 2),
});
const OTHER = layout("other", { state: "u32" });

function sampleRows(rowCount: number): Rows<"sample"> {
  const buffer = new SharedArrayBuffer(tableBytes(SAMPLE, rowCount));
  formatTable(buffer, 0, SAMPLE, rowCount);
  return new Rows(buffer, 0, SAMPLE);
}

Deno.test("layout() keeps the order of fields and aligns f64 to 8 bytes", () => {
  assertEquals(
    SAMPLE.description,
    [
      "sample: 64 bytes a row",
      "    0 state: atomic",
      "    4 signed: i32",
      "    8 plain: u32",
      "   16 total: f64",
      "   24 text: bytes(5)",
      "   32 list: i32[3]",
      "   48 sums: f64[2]",
    ].join("\n"),
  );
  assertEquals(SAMPLE.rowWords, 16);
});

Deno.test("layout() gives every change of shape another hash", () => {
  const hashes = [
    SAMPLE.hash,
    OTHER.hash,
    layout("other", { state: "i32" }).hash,
    layout("other", { state: "u32", more: "u32" }).hash,
    layout("another", { state: "u32" }).hash,
  ];
  assertEquals(new Set(hashes).size, hashes.length);
});

Deno.test("Rows reads back what was written, in every kind, without touching the neighbours", () => {
  const rows = sampleRows(3);
  for (const row of [0, 2]) {
    rows.store(row, SAMPLE.state, 0xffff_ffff);
    rows.set(row, SAMPLE.signed, -7);
    rows.set(row, SAMPLE.plain, 0xffff_fffe);
    rows.setF64(row, SAMPLE.total, 2 ** 53);
    rows.writeBytes(row, SAMPLE.text, new TextEncoder().encode("abcde"));
    for (let at = 0; at < 3; at++) rows.setAt(row, SAMPLE.list, at, -at);
    rows.setF64At(row, SAMPLE.sums, 1, 1.5);
    rows.addF64At(row, SAMPLE.sums, 1, 1);
  }
  for (const row of [0, 2]) {
    assertEquals(rows.load(row, SAMPLE.state), 0xffff_ffff);
    assertEquals(rows.getI32(row, SAMPLE.signed), -7);
    assertEquals(rows.get(row, SAMPLE.plain), 0xffff_fffe);
    assertEquals(rows.getF64(row, SAMPLE.total), 2 ** 53);
    assertEquals(new TextDecoder().decode(rows.readBytes(row, SAMPLE.text, 5)), "abcde");
    assertEquals([0, 1, 2].map((at) => rows.getI32At(row, SAMPLE.list, at)), [0, -1, -2]);
    assertEquals([0, 1].map((at) => rows.getF64At(row, SAMPLE.sums, at)), [0, 2.5]);
  }
  assertEquals([rows.load(1, SAMPLE.state), rows.getI32(1, SAMPLE.signed), rows.getF64(1, SAMPLE.total)], [0, 0, 0]);
  rows.clear(0);
  assertEquals([rows.load(0, SAMPLE.state), rows.load(2, SAMPLE.state)], [0, 0xffff_ffff]);
});

Deno.test("Rows gives back the value before an atomic change", () => {
  const rows = sampleRows(1);
  assertEquals(rows.or(0, SAMPLE.state, 6), 0);
  assertEquals(rows.and(0, SAMPLE.state, 3), 6);
  assertEquals(rows.add(0, SAMPLE.state, 5), 2);
  assertEquals(rows.compareExchange(0, SAMPLE.state, 1, 9), 7);
  assertEquals(rows.compareExchange(0, SAMPLE.state, 7, 9), 7);
  assertEquals(rows.load(0, SAMPLE.state), 9);
});

Deno.test("Rows refuses a table that was formatted for another layout", () => {
  const buffer = new SharedArrayBuffer(tableBytes(SAMPLE, 2));
  assertThrows(() => new Rows(buffer, 0, SAMPLE), AssertionError, "built for layout");
  formatTable(buffer, 0, SAMPLE, 2);
  assertThrows(() => new Rows(buffer, 0, OTHER), AssertionError, "other");
  assertEquals(new Rows(buffer, 0, SAMPLE).rowCount, 2);
});

Deno.test("formatTable() refuses a table that is too large or shares a cache line", () => {
  const buffer = new SharedArrayBuffer(tableBytes(SAMPLE, 2));
  assertThrows(() => formatTable(buffer, 0, SAMPLE, 3), AssertionError);
  assertThrows(() => formatTable(buffer, 32, SAMPLE, 1), AssertionError);
});

Deno.test("Rows takes only a field of its own table and width: the rest does not compile", () => {
  const rows = sampleRows(1);
  const mistakes = () => {
    // @ts-expect-error a plain store to an atomic word
    rows.set(0, SAMPLE.state, 1);
    // @ts-expect-error an atomic store to a plain word
    rows.store(0, SAMPLE.plain, 1);
    // @ts-expect-error half of an f64
    rows.get(0, SAMPLE.total);
    // @ts-expect-error a word read as f64
    rows.getF64(0, SAMPLE.plain);
    // @ts-expect-error a signed word read as unsigned
    rows.get(0, SAMPLE.signed);
    // @ts-expect-error a list read as one word
    rows.getI32(0, SAMPLE.list);
    // @ts-expect-error a field of another table
    rows.get(0, OTHER.state);
    // @ts-expect-error an offset counted by hand
    rows.get(0, 2);
  };
  assert(typeof mistakes === "function"); // What is claimed here is proven by the type check.
});
