/** Tests of flow_window.ts. */
import { assertEquals } from "@std/assert";
import { checkGrowth, checkInitialWindowChange } from "./flow_window.ts";
import { H2Error } from "./frame_rules.ts";

const LIMIT = 2 ** 31 - 1;

Deno.test("checkGrowth() refuses 0 and whatever passes 2^31-1, from negative windows too (RFC 9113 §6.9, §6.9.1)", () => {
  assertEquals(checkGrowth(0, 0), H2Error.PROTOCOL_ERROR);
  assertEquals(checkGrowth(0, LIMIT), H2Error.NO_ERROR);
  assertEquals(checkGrowth(1, LIMIT), H2Error.FLOW_CONTROL_ERROR);
  assertEquals(checkGrowth(LIMIT, 1), H2Error.FLOW_CONTROL_ERROR);
  assertEquals(checkGrowth(LIMIT - 1, 1), H2Error.NO_ERROR);
  assertEquals(checkGrowth(-5, LIMIT), H2Error.NO_ERROR);
});

Deno.test("checkInitialWindowChange() lets a window fall below 0 and never above 2^31-1 (RFC 9113 §6.9.2)", () => {
  assertEquals(checkInitialWindowChange(0, 65_535, 0), H2Error.NO_ERROR);
  assertEquals(checkInitialWindowChange(65_535, 65_535, LIMIT), H2Error.NO_ERROR);
  assertEquals(checkInitialWindowChange(65_536, 65_535, LIMIT), H2Error.FLOW_CONTROL_ERROR);
});
