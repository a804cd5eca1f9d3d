import { assertEquals } from "@std/assert";
import { formatIdentity, parseIdentity, principalOf } from "./identity.ts";

Deno.test("parseIdentity() reads the mesh's form of SPIFFE and nothing else (ZT-148)", () => {
  assertEquals(parseIdentity("spiffe://td/ns/a/sa/b"), { trustDomain: "td", namespace: "a", serviceAccount: "b" });
  const wrong = [
    "td/ns/a/sa/b",
    "spiffe://td/ns/a/sa/b/",
    "spiffe://td/ns/a/sa",
    "spiffe://td/sa/a/ns/b",
    "spiffe://td/xx/a/sa/b",
    "spiffe://td/ns/a/xx/b",
    "spiffe://td/ns/a/sa/b/extra",
    "SPIFFE://td/ns/a/sa/b",
    "",
  ];
  for (const text of wrong) assertEquals(parseIdentity(text), undefined, text);
});

Deno.test("formatIdentity() writes what parseIdentity() reads", () => {
  const identity = { trustDomain: "td", namespace: "a", serviceAccount: "b" };
  assertEquals(parseIdentity(formatIdentity(identity)), identity);
  assertEquals(principalOf(identity), "td/ns/a/sa/b");
});
