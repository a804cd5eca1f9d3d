import { assertEquals } from "@std/assert";
import { addressAlias, canonicalAddress, parseIps, parsePrefix, rangeAliases } from "./addresses.ts";

Deno.test("parsePrefix() masks host bits, and leaves a full length out (CP-221)", () => {
  const text = (prefix: string) => {
    const parsed = parsePrefix(prefix);
    return parsed && addressAlias("n", parsed.ip, parsed.prefixLength);
  };
  const cases: [string, string | undefined][] = [
    ["10.0.0.5", "n/10.0.0.5"],
    ["10.0.0.5/32", "n/10.0.0.5"],
    ["10.0.0.5/24", "n/10.0.0.0/24"],
    ["10.255.255.255/9", "n/10.128.0.0/9"],
    ["255.255.255.255/0", "n/0.0.0.0/0"],
    ["fd00:1:2:3:4:5:6:7/64", "n/fd00:1:2:3::/64"],
    ["ffff::ffff/1", "n/8000::/1"],
    ["::1/128", "n/::1"],
    ["::ffff/0", "n/::/0"],
    ["10.0.0.0/33", undefined],
    ["::/129", undefined],
    ["10.0.0.0/", undefined],
    ["10.0.0.0/08", undefined],
    ["10.0.0.0/-1", undefined],
    ["10.0.0", undefined],
    ["host/8", undefined],
    ["", undefined],
  ];
  for (const [prefix, expected] of cases) assertEquals(text(prefix), expected, prefix);
});

Deno.test("parseIps() names the first text that is no address", () => {
  assertEquals(parseIps(["10.0.0.1", "::1"]).bad, undefined);
  assertEquals(parseIps(["10.0.0.1", "x", "y"]).bad, "x");
});

Deno.test("canonicalAddress() spells addresses one way, and leaves names alone (CP-201)", () => {
  assertEquals(["FD00::0:1", "10.0.0.1", "db.example.com", ""].map(canonicalAddress), [
    "fd00::1",
    "10.0.0.1",
    "db.example.com",
    "",
  ]);
});

Deno.test("rangeAliases() names every range around an address, the longest first, and none around a hostname", () => {
  const aliases = [...rangeAliases("net/10.1.2.3")];
  assertEquals([aliases.length, aliases[0], aliases[7], aliases[31]], [
    32,
    "net/10.1.2.2/31",
    "net/10.1.2.0/24",
    "net/0.0.0.0/0",
  ]);
  assertEquals([...rangeAliases("/fd00::1")].slice(0, 2), ["/fd00::/127", "/fd00::/126"]);
  for (const name of ["ns/web.example", "10.1.2.3", "", "c//Pod/ns/name", "net/10.1.2.0/24"]) {
    assertEquals([...rangeAliases(name)], [], name);
  }
});
