import { assertEquals } from "@std/assert";
import { CLOSE_REASONS, closeFlag, CloseReason, closeText, RESPONSE_FLAGS } from "./close_reason.ts";

Deno.test("CLOSE_REASONS has one row for each CloseReason, in order", () => {
  const names = Object.entries(CloseReason).map(([name, number]) => [number, name.toLowerCase().replaceAll("_", "-")]);
  assertEquals(names, CLOSE_REASONS.map((row, number) => [number, row.name]));
});

Deno.test("every response flag has a reason that leads to it (ZT-195)", () => {
  assertEquals(new Set(CLOSE_REASONS.map((row) => row.flag)), new Set(RESPONSE_FLAGS));
  assertEquals(closeFlag(CloseReason.ENDED), 0);
  assertEquals(closeFlag(CloseReason.POLICY_CHANGED), RESPONSE_FLAGS.indexOf("DENY"));
  assertEquals(closeFlag(CloseReason.CERTIFICATE_REVOKED), 7);
});

Deno.test("closeText() joins the reason and its detail", () => {
  const denied = "explicitly denied by: ns1/d";
  assertEquals(
    closeText(CloseReason.POLICY_REJECTED, denied),
    "connection closed due to policy rejection: explicitly denied by: ns1/d",
  ); // ZT-107
  assertEquals(closeText(CloseReason.POLICY_CHANGED), "connection closed due to policy change"); // ZT-120
  assertEquals(closeText(CloseReason.STATUS_NOT_OK, "401 Unauthorized"), "http status: 401 Unauthorized"); // ZT-059
  assertEquals(closeText(CloseReason.ROUTE_REFUSED, "unknown waypoint: a/b"), "unknown waypoint: a/b");
  assertEquals(closeText(CloseReason.ENDED), "");
});
