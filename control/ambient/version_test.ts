import { assertEquals } from "@std/assert";
import { versionOf } from "./version.ts";

Deno.test("versionOf() is FNV-1a with 64 bits, by its authors' vectors (CP-200)", () => {
  const vectors: [string, string][] = [
    ["", "cbf29ce484222325"],
    ["a", "af63dc4c8601ec8c"],
    ["foobar", "85944171f73967e8"],
  ];
  for (const [text, expected] of vectors) assertEquals(versionOf(new TextEncoder().encode(text)), expected);
});
