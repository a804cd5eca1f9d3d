/** What waits for a client, and that clients in the same state are handed the same arrays. */
import { assertEquals, assertNotStrictEquals, assertStrictEquals } from "@std/assert";
import { ADDRESS_TYPE_URL } from "../../mesh/proto/workload_codec.ts";
import type { Resource, ResourceChange } from "./resources.ts";
import { WaitingChanges } from "./waiting_changes.ts";

const ALL = { updates: true, removals: true };

function resource(name: string, version = "1"): Resource {
  return { name, version, aliases: [], bytes: new Uint8Array(1) };
}

function change(updated: readonly Resource[], removed: readonly string[] = []): ResourceChange {
  return { typeUrl: ADDRESS_TYPE_URL, updated, removed };
}

Deno.test("WaitingChanges hands out a lone change in its own arrays, so that it is encoded once for all (CP-658)", () => {
  const updated = [resource("a"), resource("b")], removed = ["x", "y"];
  const clients = [new WaitingChanges(), new WaitingChanges()];
  for (const waiting of clients) waiting.add(change(updated, removed));
  for (const waiting of clients) {
    assertEquals([waiting.size, waiting.hasUpdates()], [4, true]);
    const taken = waiting.take(ALL);
    assertStrictEquals(taken.resources, updated);
    assertStrictEquals(taken.removed, removed);
    assertEquals(waiting.size, 0);
  }
});

Deno.test("WaitingChanges gives updates before removals in the same arrays (CP-427)", () => {
  const updated = [resource("a")], removed = ["x"], waiting = new WaitingChanges();
  waiting.add(change(updated, removed));
  assertStrictEquals(waiting.take({ updates: true, removals: false }).resources, updated);
  assertEquals([waiting.size, waiting.hasUpdates(), waiting.has("x"), waiting.has("a")], [1, false, true, false]);
  assertEquals(waiting.take({ updates: false, removals: true }), { resources: [], removed: ["x"] });
  assertEquals(waiting.take(ALL), { resources: [], removed: [] });
});

Deno.test("WaitingChanges merges what comes on top by name, the newest wins (CP-441, CP-443)", () => {
  const waiting = new WaitingChanges(), newer = resource("a", "2");
  const first = change([resource("a"), resource("b")], ["y", "x"]);
  waiting.add(first);
  waiting.add(change([newer, resource("x")], ["b"]));
  waiting.add(change([]));
  assertEquals(waiting.size, 4);
  const { resources, removed } = waiting.take(ALL);
  assertEquals(resources.map(({ name, version }) => `${name}@${version}`).sort(), ["a@2", "x@1"]);
  assertEquals(removed, ["b", "y"]);
  assertEquals(first.updated.length, 2, "the change itself is as it was: others hold it too");
});

Deno.test("WaitingChanges sorts removals, and leaves the change's own array alone (CP-416)", () => {
  const removed = ["y", "x"], waiting = new WaitingChanges();
  waiting.add(change([], removed));
  const taken = waiting.take(ALL);
  assertEquals([taken.removed, removed], [["x", "y"], ["y", "x"]]);
  assertNotStrictEquals(taken.removed, removed);
});

Deno.test("WaitingChanges can be told of single names, and forgets", () => {
  const waiting = new WaitingChanges();
  waiting.add(change([resource("a")], ["x"]));
  waiting.delete("a");
  waiting.set("z", undefined);
  assertEquals(waiting.take(ALL), { resources: [], removed: ["x", "z"] });
  waiting.add(change([resource("a")]));
  waiting.clear();
  assertEquals([waiting.size, waiting.has("a")], [0, false]);
});
