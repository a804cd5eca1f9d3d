import { assertEquals } from "@std/assert";
import { IPV4_MAPPED_WORD, parseIp } from "./address.ts";

Deno.test("parseIp() reads four numbers of 0 to 255 without leading zeros, and nothing that only looks like them", () => {
  const read = (text: string) => parseIp(text)?.[3];
  assertEquals(parseIp("10.86.0.2"), [0, 0, IPV4_MAPPED_WORD, 0x0a560002]);
  assertEquals([read("0.0.0.0"), read("255.255.255.255"), read("1.20.100.0")], [0, 0xffffffff, 0x01146400]);
  const wrong = [
    "",
    ".",
    "1",
    "1.2.3",
    "1.2.3.",
    ".1.2.3",
    "1..2.3",
    "1.2.3.4.",
    "1.2.3.4.5",
    "1.2.3.256",
    "1.2.3.1000",
  ];
  wrong.push("01.2.3.4", "1.2.3.00", "1.2.3.-4", "1.2.3.+4", " 1.2.3.4", "1.2.3.4 ", "1.2.3.a", "1.2.3.٤", "0x1.2.3.4");
  for (const text of wrong) assertEquals(parseIp(text), undefined, text);
});
