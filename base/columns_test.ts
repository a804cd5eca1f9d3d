/** Aligned columns. */
import { assertEquals } from "@std/assert";
import { columns } from "./columns.ts";

Deno.test("columns() aligns cells under their headings, and leaves no cell empty", () => {
  const table = columns(["TARGET", "STATE", "PORTS"], [["netns/a", "enrolled", ""], ["unit/db.service", "x", "5432"]]);
  assertEquals(
    table,
    "TARGET            STATE      PORTS\n" +
      "netns/a           enrolled   -\n" +
      "unit/db.service   x          5432\n",
  );
  assertEquals(columns(["A", "B"], []), "A   B\n");
  assertEquals(columns(["A"], [["x\x1b[2J\u202ey\n"]]), "A\nx?[2J?y?\n", "a name cannot speak to the terminal");
});
