import { assertEquals, assertThrows } from "@std/assert";
import { parseIp } from "../../base/address.ts";
import type { Policy, PolicyMatch } from "../policy.ts";
import { decodeAuthorization, encodeAuthorization } from "./authorization_codec.ts";
import { assertSurvivesHostileBytes } from "./hostile_bytes_testing.ts";
import { WireFormatError } from "./wire_format_error.ts";

const bytes = (hex: string): Uint8Array => Uint8Array.fromHex(hex.replaceAll(" ", ""));
const decode = (input: Uint8Array): Policy => decodeAuthorization(input, "shop/full");

const FULL_MATCH: PolicyMatch = {
  namespaces: [{ kind: "exact", value: "a" }, { kind: "exact", value: "" }],
  notNamespaces: [{ kind: "prefix", value: "b" }],
  principals: [{ kind: "suffix", value: "c" }],
  notPrincipals: [{ kind: "presence", value: "" }],
  sourceIps: [{ ip: parseIp("10.0.0.0")!, prefixLength: 8 }],
  notSourceIps: [{ ip: parseIp("10.1.0.0")!, prefixLength: 0 }],
  destinationIps: [{ ip: parseIp("2001:db8::")!, prefixLength: 32 }],
  notDestinationIps: [{ ip: parseIp("::")!, prefixLength: 0 }],
  destinationPorts: [80, 65535, 0],
  notDestinationPorts: [443],
  serviceAccounts: [{ namespace: "a", serviceAccount: "b" }],
  notServiceAccounts: [{ namespace: "", serviceAccount: "" }],
};
const EMPTY_MATCH: PolicyMatch = {
  namespaces: [],
  notNamespaces: [],
  principals: [],
  notPrincipals: [],
  sourceIps: [],
  notSourceIps: [],
  destinationIps: [],
  notDestinationIps: [],
  destinationPorts: [],
  notDestinationPorts: [],
  serviceAccounts: [],
  notServiceAccounts: [],
};
const FULL: Policy = {
  key: "shop/full",
  name: "full",
  namespace: "shop",
  scope: 2,
  action: 1,
  rules: [{ clauses: [[FULL_MATCH, EMPTY_MATCH], []] }, { clauses: [] }],
  dryRun: true,
};

Deno.test("decodeAuthorization() gives back what encodeAuthorization() was given", () => {
  assertEquals(decode(encodeAuthorization(FULL)), FULL);
});

Deno.test("encodeAuthorization() uses the field numbers of the API", () => {
  const rules = [{ clauses: [[{ ...EMPTY_MATCH, principals: [{ kind: "presence" as const, value: "" }] }]] }];
  assertEquals(
    encodeAuthorization({ key: "", name: "n", namespace: "s", scope: 1, action: 1, rules, dryRun: true }),
    bytes("0a016e 120173 1801 2001 2a 08 0a 06 12 04 1a 02 22 00 3001"),
  );
});

Deno.test("decodeAuthorization() reads ports packed or not", () => {
  const ports = (hex: string) => decode(bytes(hex)).rules[0]!.clauses[0]![0]!.destinationPorts;
  assertEquals(ports("2a 08 0a 06 12 04 4a 02 50 51"), [80, 81]);
  assertEquals(ports("2a 08 0a 06 12 04 48 50 48 51"), [80, 81]);
});

Deno.test("decodeAuthorization() refuses unknown enum values and impossible ports (ZT-108)", () => {
  assertThrows(() => decode(bytes("18 03")), WireFormatError, "unknown policy scope 3");
  assertThrows(() => decode(bytes("20 02")), WireFormatError, "unknown policy action 2");
  assertThrows(() => decode(bytes("20 ffffffffffffffffff01")), WireFormatError, "unknown policy action -1");
  assertThrows(() => decode(bytes("2a 0a 0a 08 12 06 4a 04 50 80 80 04")), WireFormatError, "a port is above 65535");
});

Deno.test("decodeAuthorization() drops entries it cannot parse, and never lets an ALLOW widen or a DENY narrow by it (ZT-117)", () => {
  // One Match with exact principal "a" and, in turn: a kindless string, an address of 5 bytes, a prefix length of 33.
  for (const broken of ["1a 00", "2a 07 0a 05 0102030405", "2a 08 0a 04 01020304 10 21"]) {
    const match = Uint8Array.of(...bytes("1a 03 0a 01 61"), ...bytes(broken));
    const nested = [0x12, match.length, ...match];
    const rule = [0x0a, nested.length, ...nested];
    const matchIn = (action: number) =>
      decode(Uint8Array.of(0x2a, rule.length, ...rule, 0x20, action)).rules[0]!.clauses[0]!;
    // Of a DENY, what the broken entry's own list says beside it no longer narrows.
    const left = broken === "1a 00" ? [] : [{ ...EMPTY_MATCH, principals: [{ kind: "exact" as const, value: "a" }] }];
    assertEquals(matchIn(1), left, broken);
    assertEquals(matchIn(0), [EMPTY_MATCH], broken); // Never matches (ZT-112).
  }
});

Deno.test("decodeAuthorization() refuses more, never less, where a DENY has an entry that it cannot parse (ZT-117)", () => {
  const everybody = "what an empty clause holds for";
  const kindless = "00", address = "0a 04 0a000000 10 08", badAddress = "0a 05 0102030405";
  const outcomes: readonly [matches: readonly (readonly [field: number, value: string])[], expected: unknown][] = [
    // A positive list without its only entry, or without one of two: whom it named nobody knows.
    [[[3, kindless]], everybody],
    [[[5, badAddress]], everybody],
    [[[5, address], [5, badAddress]], everybody],
    [[[1, kindless], [1, "0a 01 61"]], everybody],
    // What else is written still narrows.
    [[[5, address], [5, badAddress], [9, "443"]], { ...EMPTY_MATCH, destinationPorts: [443] }],
    // An exception that nobody can read excepts nobody.
    [[[6, badAddress]], everybody],
    [[[4, kindless], [9, "443"]], { ...EMPTY_MATCH, destinationPorts: [443] }],
    [[[6, badAddress], [6, address]], {
      ...EMPTY_MATCH,
      notSourceIps: [{ ip: parseIp("10.0.0.0")!, prefixLength: 8 }],
    }],
  ];
  for (const [fields, expected] of outcomes) {
    const match = fields.flatMap(([field, value]) => {
      if (field === 9) return [0x48, Number(value) & 0x7f | 0x80, Number(value) >> 7];
      const content = value === kindless ? bytes("") : bytes(value);
      return [field << 3 | 2, content.length, ...content];
    });
    const clause = [0x12, match.length, ...match], rule = [0x0a, clause.length, ...clause];
    const policy = decode(Uint8Array.of(0x2a, rule.length, ...rule, 0x20, 1));
    assertEquals(policy.rules[0]!.clauses[0], expected === everybody ? [] : [expected as PolicyMatch], `${fields}`);
  }
});

Deno.test("decodeAuthorization() counts the prefix of a mapped address in the family it belongs to", () => {
  const mapped = "0a 10 00000000000000000000ffff0a000000";
  const decoded = decode(bytes(`2a 1a 0a 18 12 16 2a 14 ${mapped} 10 68`)).rules[0]!.clauses[0]![0]!;
  assertEquals(decoded.sourceIps, [{ ip: parseIp("10.0.0.0")!, prefixLength: 8 }]);
});

Deno.test("decodeAuthorization() survives hostile bytes", () => {
  assertSurvivesHostileBytes(decode, encodeAuthorization(FULL));
});
