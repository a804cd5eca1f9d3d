/** Tokens: what is minted is verified, and nothing else is. */
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import * as jose from "jose";
import { MeshError } from "../base/errors.ts";
import { TokenIssuer } from "./tokens.ts";

const SUBJECT = { namespace: "shop", serviceAccount: "cart", pod: "cart-1", podUid: "u", node: "node-1" };
const NOW_MS = Date.UTC(2026, 0, 1);
const LIFE = { ttlMs: 60_000, nowMs: NOW_MS };

async function withFolder(test: (path: string) => Promise<void>): Promise<void> {
  const path = await Deno.makeTempDir({ prefix: "tokens-" });
  try {
    await test(path);
  } finally {
    await Deno.remove(path, { recursive: true });
  }
}

async function refusal(issuer: TokenIssuer, token: string, nowMs = NOW_MS): Promise<string> {
  const result = await issuer.verify(token, nowMs);
  if (!("refused" in result)) throw new Error("the token was taken");
  return result.refused;
}

Deno.test("verify() takes what mint() made, also after a restart and in another process's issuer (CP-476)", () =>
  withFolder(async (path) => {
    const token = await (await TokenIssuer.open(path)).mint(SUBJECT, LIFE);
    assertEquals(await (await TokenIssuer.open(path)).verify(token, NOW_MS), SUBJECT);
    const claims = jose.decodeJwt(token);
    assertEquals([claims.sub, claims.aud, claims.exp! - claims.iat!], [
      "system:serviceaccount:shop:cart",
      "istio-ca",
      60,
    ]);
    assertEquals(claims["kubernetes.io"], {
      namespace: "shop",
      serviceaccount: { name: "cart" },
      pod: { name: "cart-1", uid: "u" },
      node: { name: "node-1" },
    });
    assertEquals(Deno.statSync(`${path}/token-key.pem`).mode! & 0o777, 0o600);
  }));

Deno.test("verify() refuses other times, audiences, keys, algorithms and shapes (CP-476)", () =>
  withFolder(async (path) => {
    const issuer = await TokenIssuer.open(path);
    const token = await issuer.mint(SUBJECT, LIFE);
    assertStringIncludes(await refusal(issuer, token, NOW_MS + 60_000), "exp");
    assertStringIncludes(await refusal(issuer, token, NOW_MS - 10_000), "nbf");
    assertStringIncludes(await refusal(issuer, await issuer.mint(SUBJECT, { ...LIFE, audience: "vault" })), "aud");
    assertStringIncludes(await refusal(issuer, `${token}x`), "signature");
    assertStringIncludes(await refusal(issuer, "x".repeat(10_000)), "longer");
    for (const odd of ["", ".", "..", "a.b.c", "é"]) await refusal(issuer, odd);
    const [header, payload] = token.split(".");
    await refusal(issuer, `${btoa('{"alg":"none"}').replaceAll("=", "")}.${payload}.`);
    await refusal(issuer, `${header}.${payload}.`);
    const secret = new TextEncoder().encode(await Deno.readTextFile(`${path}/token-key.pem`));
    const claims = jose.decodeJwt(token);
    await refusal(issuer, await new jose.SignJWT(claims).setProtectedHeader({ alg: "HS256" }).sign(secret));
    const other = await jose.generateKeyPair("ES256");
    await refusal(issuer, await new jose.SignJWT(claims).setProtectedHeader({ alg: "ES256" }).sign(other.privateKey));
  }));

Deno.test("verify() refuses claims that do not agree with each other, though our key signed them", () =>
  withFolder(async (path) => {
    const issuer = await TokenIssuer.open(path);
    const claims = jose.decodeJwt(await issuer.mint(SUBJECT, LIFE));
    const key = await jose.importPKCS8(await Deno.readTextFile(`${path}/token-key.pem`), "ES256");
    const sign = (part: jose.JWTPayload) =>
      new jose.SignJWT({ ...claims, ...part }).setProtectedHeader({ alg: "ES256" }).sign(key);
    const bound = claims["kubernetes.io"] as Record<string, unknown>;
    assert(!("refused" in await issuer.verify(await sign({}), NOW_MS)));
    for (
      const part of [
        { sub: "system:serviceaccount:shop:admin" },
        { sub: undefined },
        { exp: undefined },
        { iss: "elsewhere" },
        { "kubernetes.io": undefined },
        { "kubernetes.io": "shop" },
        { "kubernetes.io": { ...bound, node: undefined } },
        { "kubernetes.io": { ...bound, pod: { name: 7, uid: "u" } } },
      ]
    ) await refusal(issuer, await sign(part));
  }));

Deno.test("mint() refuses names that Kubernetes would not take", () =>
  withFolder(async (path) => {
    const issuer = await TokenIssuer.open(path);
    for (
      const part of [{ namespace: "a:b" }, { namespace: "" }, { serviceAccount: "a/b" }, { pod: "A" }, { node: "-" }]
    ) {
      const error = await assertRejects(() => issuer.mint({ ...SUBJECT, ...part }, LIFE), MeshError);
      assertEquals(error.code, "AMB0215");
    }
  }));

Deno.test("open() refuses a key file that is none, or that others may read", () =>
  withFolder(async (path) => {
    await Deno.writeTextFile(`${path}/token-key.pem`, "nonsense", { mode: 0o600 });
    assertEquals((await assertRejects(() => TokenIssuer.open(path), MeshError)).code, "AMB0214");
    await Deno.chmod(`${path}/token-key.pem`, 0o640);
    assertEquals((await assertRejects(() => TokenIssuer.open(path), MeshError)).code, "AMB0211");
  }));

Deno.test("openExisting() makes no key where no istiod has made one: its tokens would be refused", () =>
  withFolder(async (path) => {
    const missing = `${path}/not/there`;
    for (const folder of [path, missing]) {
      assertEquals((await assertRejects(() => TokenIssuer.openExisting(folder), MeshError)).code, "AMB0290");
    }
    await assertRejects(() => Deno.stat(missing), Deno.errors.NotFound);
    const issuer = await TokenIssuer.open(path);
    const token = await (await TokenIssuer.openExisting(path)).mint(SUBJECT, LIFE);
    assertEquals(await issuer.verify(token, NOW_MS), SUBJECT);
  }));
