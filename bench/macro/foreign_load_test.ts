import { assertEquals } from "@std/assert";
import { parseMachineTime } from "./foreign_load.ts";

Deno.test("parseMachineTime() counts stolen time apart, and guests once", () => {
  const stat = "cpu  100 200 300 4000 500 10 20 70 100 0\ncpu0 1 2 3 4 5 6 7 8 9 10\n";
  assertEquals(parseMachineTime(stat), { busy: 6.3, stolen: 0.7, total: 52 });
});
