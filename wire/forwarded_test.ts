import { assertEquals } from "@std/assert";
import { formatForwarded, parseForwardedHost } from "./forwarded.ts";

Deno.test("formatForwarded() quotes the source and adds the host if known (ZT-057)", () => {
  assertEquals(formatForwarded("127.0.0.1:80", undefined), 'for="127.0.0.1:80"');
  assertEquals(formatForwarded("[::1]:80", undefined), 'for="[::1]:80"');
  assertEquals(formatForwarded("127.0.0.1:80", "a.example"), 'for="127.0.0.1:80";host=a.example');
  for (const odd of ["", "a;b", 'a"b', "a b", "a,b", "a\r\nb", "\u00e9"]) {
    assertEquals(formatForwarded("1.2.3.4:5", odd), 'for="1.2.3.4:5"');
  }
  assertEquals(formatForwarded("1.2.3.4:5", "*.a-b_c.example"), 'for="1.2.3.4:5";host=*.a-b_c.example');
});

Deno.test("parseForwardedHost() finds the host and nothing else (ZT-057)", () => {
  const cases: [string, string | undefined][] = [
    ["", undefined],
    ['for="1.2.3.4:80"', undefined],
    ['for="1.2.3.4:80";host=a.example', "a.example"],
    ["host=a.example", "a.example"],
    ["proto=http; host=a.example ;by=b", "a.example"],
    ['host="a.example"', "a.example"],
    ['host="a.example', '"a.example'],
    ["host=", undefined],
    ['host=""', undefined],
    ["host=;host=b", "b"],
    ["ghost=a.example", undefined],
    ["host=\u00e9.example", undefined],
    ["for=\u00e9;host=a.example", undefined],
  ];
  for (const [text, expected] of cases) assertEquals(parseForwardedHost(text), expected, text);
});

Deno.test("parseForwardedHost() reads what formatForwarded() writes", () => {
  assertEquals(parseForwardedHost(formatForwarded("[::1]:80", "a.example")), "a.example");
});
