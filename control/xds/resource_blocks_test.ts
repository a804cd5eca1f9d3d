/** Blocks of a large state: their bytes, and what of them is used again. */
import { assert, assertEquals } from "@std/assert";
import { encodeResourceFields } from "../../mesh/proto/resource_fields.ts";
import { ResourceBlocks } from "./resource_blocks.ts";
import type { Resource } from "./resources.ts";

const TYPE = "type.googleapis.com/istio.workload.Address";

function resource(name: string, version = "1"): Resource {
  return { name, version, aliases: [`/${name}`], bytes: new TextEncoder().encode(name + version) };
}

const mesh = () => Array.from({ length: 20_000 }, (_, at) => resource(`c1//Pod/shop-${at % 7}/cart-${at * 7919}`));

function joined(parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, it) => sum + it.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** How many blocks of the second encoding are not of the first; that encoding is right as well. */
function fresh(change: (resources: Resource[]) => void): { fresh: number; blocks: number } {
  const blocks = new ResourceBlocks(), resources = mesh(), before = new Set(blocks.encode(resources, TYPE));
  const next = [...resources];
  change(next);
  const after = blocks.encode(next, TYPE);
  assertEquals(joined(after), encodeResourceFields(next, TYPE));
  return { fresh: after.filter((it) => !before.has(it)).length, blocks: after.length };
}

Deno.test("ResourceBlocks.encode() encodes anew just where something changed, came or went (CP-658)", () => {
  const unchanged = fresh(() => {});
  assertEquals(unchanged.fresh, 0);
  assert(unchanged.blocks > 20 && unchanged.blocks < 400, `${unchanged.blocks} blocks of 20,000`);
  const middle = 10_000;
  assertEquals(fresh((all) => all[middle] = resource(all[middle]!.name, "2")).fresh, 1);
  assert(fresh((all) => all.splice(middle, 1)).fresh <= 2, "one that goes");
  assert(fresh((all) => all.splice(middle, 0, resource("new"))).fresh <= 2, "one that comes");
  assertEquals(fresh((all) => all[0] = resource(all[0]!.name, "2")).fresh, 1, "the first of a block");
});

Deno.test("ResourceBlocks.encode() bounds a block whatever the names are, and takes none and one (CP-658)", () => {
  const blocks = new ResourceBlocks(), same = Array.from({ length: 5_000 }, () => resource("same"));
  const parts = blocks.encode(same, TYPE);
  assert(parts.length >= 4);
  assertEquals(joined(parts), encodeResourceFields(same, TYPE));
  assertEquals(blocks.encode([], TYPE), []);
  assertEquals(joined(blocks.encode([resource("a")], TYPE)), encodeResourceFields([resource("a")], TYPE));
});
