import { assert, assertEquals } from "@std/assert";
import { planOf, UNKNOWN_SECONDS } from "./plan.ts";
import { WEIGHTS } from "./weights.ts";

const weights = {
  seconds: { long: 60, middle: 9, fetches: 4, short: 2, last: 1, measures: 30 },
  alone: ["measures"],
  fetching: ["fetches"],
};

Deno.test("planOf() gives every file to one batch: the longest first, short ones together, those that measure or fetch alone", () => {
  const { shared, alone } = planOf(["last", "measures", "fetches", "short", "middle", "new", "long"], weights);
  assertEquals(shared, [
    { files: ["long"], seconds: 60 },
    { files: ["middle", "new"], seconds: 9 + UNKNOWN_SECONDS },
    { files: ["fetches"], seconds: 4, fetching: true },
    { files: ["short", "last"], seconds: 3 },
  ]);
  assertEquals(alone, [{ files: ["measures"], seconds: 30 }]);
});

Deno.test("planOf() is the same whatever the order of what is given", () => {
  const files = ["last", "short", "new", "newer", "middle", "long"];
  assertEquals(planOf(files, weights), planOf(files.toReversed(), weights));
});

Deno.test("WEIGHTS names files that are there", () => {
  for (const file of [...Object.keys(WEIGHTS.seconds), ...WEIGHTS.alone, ...WEIGHTS.fetching]) {
    assert(Deno.statSync(new URL(`../../${file}`, import.meta.url)).isFile);
  }
});
