import { assertEquals } from "@std/assert";
import { formatTraceparent, parseTraceparent } from "./traceparent.ts";

Deno.test("formatTraceparent() writes six words as one unsampled id (ZT-058)", () => {
  const text = formatTraceparent(1, 0xffffffff, 0xabc, -1, 0x12345678, 0);
  assertEquals(text, "00-00000001ffffffff00000abcffffffff-1234567800000000-00");
  assertEquals(text.length, 55);
  assertEquals(parseTraceparent(text), { traceId: "00000001ffffffff00000abcffffffff", spanId: "1234567800000000" });
});

Deno.test("parseTraceparent() refuses all that is not one (ZT-058)", () => {
  const trace = "4bf92f3577b34da6a3ce929d0e0e4736", span = "00f067aa0ba902b7";
  assertEquals(parseTraceparent(`00-${trace}-${span}-01`)?.spanId, span);
  const wrong = [
    "",
    `00-${trace}-${span}-0`,
    `00-${trace}-${span}-00-`,
    `ff-${trace}-${span}-00`,
    `00-${trace.toUpperCase()}-${span}-00`,
    `00-${"0".repeat(32)}-${span}-00`,
    `00-${trace}-${"0".repeat(16)}-00`,
    `00_${trace}-${span}-00`,
  ];
  for (const text of wrong) assertEquals(parseTraceparent(text), undefined, text);
});
