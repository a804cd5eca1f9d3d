/** Tokens of an OpenID Connect issuer. */
import { assert, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import * as jose from "jose";
import { MeshError } from "../../base/errors.ts";
import type { Refused } from "./caller.ts";
import { bearer } from "./cluster_testing.ts";
import { OidcWay, readOidcRule } from "./oidc.ts";

const ISSUER = "https://issuer.test", KEYS = "https://keys.test/jwks";
const NOW_MS = Date.UTC(2026, 0, 1);

interface Page {
  readonly status?: number;
  readonly body: string;
}

async function rig({ keysUrl = KEYS } = {}) {
  const { publicKey, privateKey } = await jose.generateKeyPair("ES256");
  const keys = JSON.stringify({ keys: [{ ...await jose.exportJWK(publicKey), kid: "one", alg: "ES256" }] });
  const pages = new Map<string, Page>([
    [KEYS, { body: keys }],
    [`${ISSUER}/.well-known/openid-configuration`, { body: JSON.stringify({ issuer: ISSUER, jwks_uri: KEYS }) }],
  ]);
  const fetched: string[] = [];
  const way = new OidcWay({
    rule: { issuer: ISSUER, keysUrl, audiences: ["istio-ca"] },
    trustDomain: () => "mesh.test",
    now: () => NOW_MS,
    fetch: (url) => {
      fetched.push(String(url));
      const page = pages.get(String(url));
      if (page === undefined) return Promise.reject(new TypeError("connection refused"));
      return Promise.resolve(new Response(page.body, { status: page.status ?? 200 }));
    },
  });
  const mint = (claims: jose.JWTPayload = {}, key = privateKey) =>
    new jose.SignJWT({
      iss: ISSUER,
      aud: "istio-ca",
      sub: "system:serviceaccount:shop:cart",
      exp: NOW_MS / 1_000 + 60,
      ...claims,
    }).setProtectedHeader({ alg: "ES256", kid: "one" }).sign(key);
  return { way, pages, fetched, mint };
}

async function refusal({ way }: { way: OidcWay }, token: string): Promise<Refused> {
  const result = await way.authenticate(bearer(token));
  if (!("refused" in result)) throw new Error("the token was taken");
  return result;
}

Deno.test("OidcWay takes what the issuer signed for us, and asks for its keys once (CP-430)", async () => {
  for (const keysUrl of [KEYS, ""]) {
    const it = await rig({ keysUrl });
    for (let count = 0; count < 3; count++) {
      assertEquals(await it.way.authenticate(bearer(await it.mint())), {
        identities: ["spiffe://mesh.test/ns/shop/sa/cart"],
        token: undefined,
      });
    }
    assertEquals(it.fetched.length, keysUrl === "" ? 2 : 1, "with a page that says where the keys are, if need be");
  }
});

Deno.test("OidcWay refuses other audiences, times, keys, subjects and issuers, the last without asking anybody (CP-430)", async () => {
  const it = await rig();
  const other = await jose.generateKeyPair("ES256");
  assertStringIncludes((await refusal(it, await it.mint({ iss: "https://other" }))).refused, "is not of");
  assertStringIncludes((await refusal(it, "x")).refused, "refused");
  assertEquals(it.fetched, []);
  const cases: [string, string][] = [
    ["aud", await it.mint({ aud: "vault" })],
    ["aud", await it.mint({ aud: undefined })],
    ["exp", await it.mint({ exp: NOW_MS / 1_000 })],
    ["exp", await it.mint({ exp: undefined })],
    ["nbf", await it.mint({ nbf: NOW_MS / 1_000 + 60 })],
    ["signature", await it.mint({}, other.privateKey)],
    ["subject", await it.mint({ sub: "system:node:a" })],
    ["subject", await it.mint({ sub: "system:serviceaccount:shop" })],
    ["subject", await it.mint({ sub: "system:serviceaccount:shop:cart:x" })],
    ["subject", await it.mint({ sub: "system:serviceaccount:a/b:cart" })],
    ["sub", await it.mint({ sub: undefined })],
    ["too long", "x".repeat(20_000)],
  ];
  for (const [reason, token] of cases) {
    const { refused, unavailable } = await refusal(it, token);
    assertStringIncludes(refused, reason);
    assert(!unavailable, reason);
  }
});

Deno.test("OidcWay says when keys cannot be had, and finds them later (CP-430)", async () => {
  const it = await rig({ keysUrl: "" });
  const page = `${ISSUER}/.well-known/openid-configuration`, good = it.pages.get(page)!, token = await it.mint();
  const bad: (Page | undefined)[] = [
    undefined,
    { status: 503, body: "" },
    { body: JSON.stringify({ issuer: "https://other", jwks_uri: KEYS }) },
    { body: JSON.stringify({ issuer: ISSUER, jwks_uri: "http://keys.test" }) },
    { body: "x".repeat(2_000_000) },
  ];
  for (const answer of bad) {
    if (answer === undefined) it.pages.delete(page);
    else it.pages.set(page, answer);
    assertEquals((await refusal(it, token)).unavailable, true);
  }
  it.pages.set(page, good);
  assert(!("refused" in await it.way.authenticate(bearer(token))));
});

Deno.test("readOidcRule() reads Istio's form, and refuses what would let in nobody or anybody (CP-430)", () => {
  const rule = { issuer: ISSUER, audiences: ["a"] };
  assertEquals(readOidcRule(JSON.stringify(rule)), { issuer: ISSUER, keysUrl: "", audiences: ["a"] });
  assertEquals(readOidcRule(JSON.stringify({ ...rule, jwks_uri: KEYS })).keysUrl, KEYS);
  assertEquals(readOidcRule(JSON.stringify({ ...rule, jwksUri: KEYS, more: 1 })).keysUrl, KEYS);
  assertEquals(readOidcRule('{"issuer":"http://localhost:1","audiences":["a"]}').issuer, "http://localhost:1");
  const wrong = [
    "",
    "[",
    "null",
    "{}",
    '{"issuer":"x","audiences":["a"]}',
    '{"issuer":"http://a.test","audiences":["a"]}',
    '{"issuer":"https://a.test"}',
    '{"issuer":"https://a.test","audiences":[]}',
    '{"issuer":"https://a.test","audiences":[""]}',
    '{"issuer":"https://a.test","audiences":["a"],"jwks_uri":7}',
  ];
  for (const json of wrong) {
    assertEquals((assertThrows(() => readOidcRule(json), MeshError) as MeshError).code, "AMB0257", json);
  }
});
