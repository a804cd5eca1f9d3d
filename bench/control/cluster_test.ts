import { assertEquals } from "@std/assert";
import { podPlan } from "./cluster.ts";

Deno.test("podPlan() gives every pod a name and an address of its own, and a successor the place of whom it follows", () => {
  const plans = Array.from({ length: 5_000 }, (_, number) => podPlan(number, 1_000));
  assertEquals(new Set(plans.map(({ ip }) => ip)).size, plans.length);
  assertEquals(new Set(plans.map(({ name }) => name)).size, plans.length);
  const place = ({ namespace, service, node }: ReturnType<typeof podPlan>) => ({ namespace, service, node });
  assertEquals(place(podPlan(4_321, 1_000)), place(podPlan(321, 1_000)));
});
