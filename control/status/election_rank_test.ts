/** The order of candidates, whatever their revisions. */
import { assert, assertEquals } from "@std/assert";
import { type Rank, rankKey, takesOver } from "./election_rank.ts";

const REVISIONS = ["default", "blue", "green"], DEFAULTS = [undefined, ...REVISIONS, "gone"];
const RANKS: readonly Rank[] = REVISIONS.flatMap((
  revision,
) => [{ revision, remote: false }, { revision, remote: true }]);

Deno.test("takesOver() prefers the default revision, then who runs in the cluster (CP-651)", () => {
  const local = { revision: "blue", remote: false }, remote = { revision: "blue", remote: true };
  assertEquals(takesOver(local, "green", "blue"), true);
  assertEquals(takesOver(remote, "green", "blue"), true);
  assertEquals(takesOver(local, "green", "green"), false);
  assertEquals(takesOver(local, "green", undefined), false);
  assertEquals(takesOver(local, "^blue", undefined), true);
  assertEquals(takesOver(local, "blue", "blue"), false);
  assertEquals(takesOver(remote, "blue", "blue"), false);
  assertEquals(takesOver(local, "", "blue"), true, "a holder that says no revision is of none");
});

Deno.test("takesOver() never goes in a circle, whatever the default is (CP-651)", () => {
  for (const defaultRevision of DEFAULTS) {
    const beats = (above: Rank, below: Rank) => takesOver(above, rankKey(below), defaultRevision);
    const reaches = (from: Rank, to: Rank, seen = new Set<Rank>()): boolean =>
      RANKS.some((next) => {
        if (!beats(from, next) || seen.has(next)) return false;
        return next === to || reaches(next, to, seen.add(next));
      });
    for (const rank of RANKS) assert(!reaches(rank, rank), `${JSON.stringify(rank)} with ${defaultRevision}`);
  }
});
