import { assertEquals, assertThrows } from "@std/assert";
import { MeshError } from "../base/errors.ts";
import { CAPABILITIES, missingCapabilities, parseEffectiveCapabilities, requireCapabilities } from "./capabilities.ts";

Deno.test("parseEffectiveCapabilities() reads the effective set, and no other", () => {
  const status = "Name:\tx\nCapInh:\tffffffffffffffff\nCapEff:\t0000000000001000\nCapBnd:\tffffffffffffffff\n";
  assertEquals(parseEffectiveCapabilities(status), 1n << BigInt(CAPABILITIES.CAP_NET_ADMIN));
  assertEquals(parseEffectiveCapabilities("Name:\tx\n"), undefined);
});

Deno.test("requireCapabilities() throws exactly when missingCapabilities() names some (ZT-172)", () => {
  const wanted = ["CAP_NET_ADMIN", "CAP_SYS_ADMIN"] as const;
  const missing = missingCapabilities(wanted);
  if (missing.length === 0) requireCapabilities(wanted);
  else assertEquals(assertThrows(() => requireCapabilities(wanted), MeshError).code, "AMB7020");
});
