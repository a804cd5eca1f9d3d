import { assertEquals, assertThrows } from "@std/assert";
import { MeshError } from "../../base/errors.ts";
import { parseControlOptions } from "./options.ts";

Deno.test("parseControlOptions() measures ours, and whoever has a path", () => {
  const options = parseControlOptions(["--peer", "istiod=bin/istiod", "--pods", "10,20", "-o", "json"]);
  assertEquals([options.peers, options.pods, options.proxies, options.output], [
    ["ours", "istiod"],
    [10, 20],
    [1, 10, 200],
    "json",
  ]);
  assertEquals(parseControlOptions([]).peers, ["ours"]);
  assertEquals(parseControlOptions(["--quick"]).pods, [1_000]);
});

Deno.test("parseControlOptions() says what it cannot understand", () => {
  for (
    const wrong of [["--peer", "ours=x"], ["--peer", "istiod"], ["--pods", "0"], ["--only", "x"], ["x"], ["-o", "x"]]
  ) {
    assertThrows(() => parseControlOptions(wrong), MeshError, undefined, wrong.join(" "));
  }
});
