import { assertEquals } from "@std/assert";
import { Cleanup } from "./cleanup.ts";

Deno.test("Cleanup.run() undoes last in, first out, and goes on after a failure", () => {
  const cleanup = new Cleanup(), order: string[] = [];
  cleanup.add("namespace", () => order.push("namespace"));
  cleanup.add("broken", () => {
    throw new Error("busy");
  });
  cleanup.add("process", () => order.push("process"));
  cleanup.run();
  assertEquals(order, ["process", "namespace"]);
  assertEquals(cleanup.failures, ["broken: busy"]);
});

Deno.test("Cleanup.add() hands back a way to undo one step early, and only once", () => {
  const cleanup = new Cleanup();
  let undone = 0;
  const undo = cleanup.add("process", () => undone++);
  undo();
  undo();
  cleanup.run();
  assertEquals(undone, 1);
});
