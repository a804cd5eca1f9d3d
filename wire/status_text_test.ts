/** Tests of status_text.ts. */
import { assertEquals } from "@std/assert";
import { statusText } from "./status_text.ts";

Deno.test("statusText() names what tunnels are refused by (ZT-059, RFC 9110 §15)", () => {
  assertEquals([401, 503, 299].map(statusText), ["401 Unauthorized", "503 Service Unavailable", "299"]);
});
