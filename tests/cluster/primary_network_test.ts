import { assertEquals, assertThrows } from "@std/assert";
import { MeshError } from "../../base/errors.ts";
import { networksOf } from "./primary_network.ts";

Deno.test("networksOf() gives one network to all nodes, or each its own, and knows no others", () => {
  assertEquals(networksOf("ptp", 2), ["ptp", "ptp"]);
  assertEquals(networksOf("bridge,routed", 3), ["bridge", "routed", "bridge"]);
  assertEquals(networksOf(undefined, 2), ["bridge", "routed"]);
  assertEquals(assertThrows(() => networksOf("bridge,", 2), MeshError).code, "AMB7250");
});
