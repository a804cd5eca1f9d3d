import { assertEquals, assertRejects } from "@std/assert";
import { chain, MeshError } from "../../base/errors.ts";
import { Hopeless, until } from "./until.ts";

Deno.test("until() asks until there is an answer, whatever went wrong before", async () => {
  let asked = 0;
  const answer = await until("an answer", 5_000, () => {
    asked++;
    if (asked === 1) throw new Error("not yet");
    return asked === 2 ? undefined : asked === 3 ? false : "here";
  });
  assertEquals([answer, asked], ["here", 4]);
});

Deno.test("until() gives up at its deadline with the last reason, and at once when there is no hope", async () => {
  const late = await assertRejects(() => until("it", 1, () => Promise.reject(new Error("no"))), MeshError);
  assertEquals(chain(late), "it did not come about within 1 ms: no");
  let asked = 0;
  const hopeless = () => {
    asked++;
    throw new Hopeless("the program ended");
  };
  const early = await assertRejects(() => until("it", 60_000, hopeless), MeshError);
  assertEquals([chain(early), asked], ["it did not come about: the program ended", 1]);
});
