import { assertEquals } from "@std/assert";
import { builtInClasses } from "./classes.ts";

Deno.test("the classes that we make are such as the Gateway API takes: a description has 64 bytes at most (CP-550)", () => {
  const classes = builtInClasses(true);
  assertEquals(classes.length, 3);
  assertEquals(classes.filter(({ description }) => new TextEncoder().encode(description).length > 64), []);
});
