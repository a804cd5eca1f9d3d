import { assertEquals } from "@std/assert";
import { planCores } from "./pinning.ts";

Deno.test("planCores() gives every process cores of its own, or none", () => {
  assertEquals(planCores(4, 1), { client: [0], out: [1], in: [2], server: [3] });
  assertEquals(planCores(6, 2), { client: [0], out: [1, 2], in: [3, 4], server: [5] });
  assertEquals(planCores(4, 2), undefined);
});
