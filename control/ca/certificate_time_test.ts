import { assertEquals } from "@std/assert";
import { TAG } from "../../wire/der.ts";
import { time } from "./certificate_time.ts";

Deno.test("time() writes what RFC 5280 §4.1.2.5 asks", () => {
  const text = (ms: number) => new TextDecoder().decode(time(ms).subarray(2));
  assertEquals([time(0)[0], text(0)], [TAG.UTC_TIME, "700101000000Z"]);
  assertEquals(text(Date.UTC(2049, 11, 31, 23, 59, 59, 999)), "491231235959Z");
  const later = Date.UTC(2050, 0, 1);
  assertEquals([time(later)[0], text(later)], [TAG.GENERALIZED_TIME, "20500101000000Z"]);
});
