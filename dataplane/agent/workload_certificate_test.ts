/** What is asked of a CA, and which of its answers are believed. */
import * as x509 from "@peculiar/x509";
import { assert, assertEquals, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import { MeshError } from "../../base/errors.ts";
import { type CertificateRequest, checkAnswer, makeRequest } from "./workload_certificate.ts";

const CART = "spiffe://cluster.local/ns/shop/sa/cart";
const NOW_MS = Date.UTC(2026, 0, 1);
const ALGORITHM = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };

async function leafFor(
  request: CertificateRequest,
  { uris = [CART], expiresMs = NOW_MS + 86_400_000 } = {},
): Promise<string> {
  const keys = await crypto.subtle.generateKey(ALGORITHM, true, ["sign", "verify"]);
  const certificate = await x509.X509CertificateGenerator.create({
    serialNumber: "0abc",
    subject: "",
    issuer: "O=test",
    notBefore: new Date(NOW_MS - 60_000),
    notAfter: new Date(expiresMs),
    publicKey: await crypto.subtle.importKey("spki", request.publicKey.slice(), ALGORITHM, true, ["verify"]),
    signingKey: keys.privateKey,
    signingAlgorithm: ALGORITHM,
    extensions: [
      new x509.SubjectAlternativeNameExtension(uris.map((value) => ({ type: "url" as const, value })), true),
    ],
  });
  return certificate.toString("pem") + "\n";
}

function check(certChain: string[], request: CertificateRequest, skipped: string[] = []) {
  return checkAnswer(certChain, { identity: CART, request, nowMs: NOW_MS, onSkippedRoot: (it) => skipped.push(it) });
}

Deno.test("makeRequest() makes a new P-256 key and a CSR with an empty subject and one critical URI SAN (ZT-151)", async () => {
  const request = await makeRequest(CART);
  const file = await Deno.makeTempFile();
  await Deno.writeTextFile(file, request.csrPem);
  const { stdout, stderr } = await new Deno.Command("openssl", {
    args: ["req", "-in", file, "-noout", "-text", "-verify"],
  }).output();
  await Deno.remove(file);
  const text = new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr);
  assertStringIncludes(text, "verify OK");
  assertStringIncludes(text, "Subject: \n");
  assertStringIncludes(text, "NIST CURVE: P-256");
  assertStringIncludes(text, "Signature Algorithm: ecdsa-with-SHA256");
  assertStringIncludes(text, `X509v3 Subject Alternative Name: critical\n                    URI:${CART}\n`);
  assertEquals(text.match(/X509v3/g)!.length, 1);
  assert(request.privateKeyPem !== (await makeRequest(CART)).privateKeyPem);
});

Deno.test("checkAnswer() takes leaf, intermediates and roots apart (ZT-152)", async () => {
  const request = await makeRequest(CART), other = await makeRequest(CART);
  const leaf = await leafFor(request), middle = await leafFor(other), root = await leafFor(other);
  const certificate = check([leaf, middle, root + root], request);
  assertEquals(certificate.leafAndIntermediatesPem.match(/BEGIN/g)!.length, 2);
  assertEquals(certificate.rootsPem.match(/BEGIN/g)!.length, 2);
  assertEquals([certificate.notBeforeMs, certificate.notAfterMs], [NOW_MS - 60_000, NOW_MS + 86_400_000]);
  assertEquals([certificate.serial, certificate.privateKeyPem], ["0abc", request.privateKeyPem]);
});

Deno.test("checkAnswer() skips roots that cannot be read, as long as one can (ZT-152)", async () => {
  const request = await makeRequest(CART);
  const leaf = await leafFor(request);
  const broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
  const skipped: string[] = [];
  assertEquals(check([leaf, broken + leaf], request, skipped).rootsPem.match(/BEGIN/g)!.length, 1);
  assertEquals(skipped.length, 1);
  assertThrows(() => check([leaf, broken], request), MeshError, "no root that came");
});

Deno.test("checkAnswer() does not believe an answer that is not for this key and identity (ZT-150, ZT-152)", async () => {
  const request = await makeRequest(CART), other = await makeRequest(CART);
  const leaf = await leafFor(request);
  const cases: [string[], string][] = [
    [[], `chain returned from CA is empty for: ${CART}`],
    [[leaf], "no root certificate came"],
    [["", leaf], "is no certificate"],
    [["nonsense", leaf], "is no certificate"],
    [[leaf, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", leaf], "cannot be read"],
    [[await leafFor(request, { uris: [] }), leaf], `did not find expected SAN: ${CART}`],
    [[await leafFor(request, { uris: [`${CART}x`, CART] }), leaf], `did not find expected SAN: ${CART}`],
    [[await leafFor(other), leaf], "is for another key"],
    [[await leafFor(request, { expiresMs: NOW_MS }), leaf], "has expired already"],
    [[leaf, leaf.repeat(65)], "more than 64 certificates"],
  ];
  for (const [certChain, message] of cases) {
    await assertRejects(() => Promise.resolve().then(() => check(certChain, request)), MeshError, message);
  }
});
