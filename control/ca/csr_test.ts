/** Certificate requests, as others make them and as nobody should. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import * as x509 from "@peculiar/x509";
import { acceptCsr } from "./csr.ts";
import { element, sequence, TAG } from "./der.ts";
import { toPem } from "./pem.ts";
import { Folder } from "./testing.ts";

const CURVE = (name: string) => ["-newkey", "ec", "-pkeyopt", `ec_paramgen_curve:${name}`];

async function made(folder: Folder, ...options: string[]): Promise<string> {
  await folder.openssl("req", "-new", "-nodes", "-keyout", "k.pem", "-out", "csr.pem", ...options);
  return await Deno.readTextFile(`${folder.path}/csr.pem`);
}

function bytesOf(pem: string): Uint8Array {
  return Uint8Array.fromBase64(pem.replace(/-----[^-]+-----/g, ""));
}

const wrap = (bytes: Uint8Array) => toPem("CERTIFICATE REQUEST", bytes);

Deno.test("acceptCsr() takes the keys that agents make, whatever else the CSR asks for (CP-490, CP-494)", async () => {
  await using folder = await Folder.create();
  const names = [
    "-addext",
    "subjectAltName=URI:spiffe://evil/ns/a/sa/b,DNS:istiod",
    "-addext",
    "basicConstraints=CA:TRUE",
  ];
  const cases: [string[], boolean][] = [
    [[...CURVE("P-256"), "-subj", "/"], false],
    [[...CURVE("P-384"), "-sha384", "-subj", "/O=Acme"], false],
    [[...CURVE("P-256"), "-subj", "/O=Acme/CN=cart"], true],
    [["-newkey", "rsa:2048", "-subj", "/CN=cart+OU=two"], true],
    [["-newkey", "rsa:3072", "-sha512", "-subj", "/"], false],
  ];
  for (const [options, hasCommonName] of cases) {
    const taken = await acceptCsr(await made(folder, ...options, ...names));
    if ("refused" in taken) throw new Error(`${options}: ${taken.refused}`);
    assertEquals(taken.hasCommonName, hasCommonName);
    await folder.openssl("pkey", "-in", "k.pem", "-pubout", "-outform", "DER", "-out", "k.der");
    assertEquals(taken.publicKey, await Deno.readFile(`${folder.path}/k.der`), "the key as it is");
  }
});

Deno.test("acceptCsr() refuses other keys, other signatures, and every byte that is not DER's (CP-494)", async () => {
  await using folder = await Folder.create();
  const good = bytesOf(await made(folder, ...CURVE("P-256"), "-subj", "/CN=x"));
  const inner = good.subarray(good[1]! & 0x80 ? 2 + (good[1]! & 0x7f) : 2);
  const cases: [string, string][] = [
    ["1024 bits", await made(folder, "-newkey", "rsa:1024", "-subj", "/")],
    ["neither RSA nor ECDSA", await made(folder, ...CURVE("secp521r1"), "-subj", "/")],
    ["neither RSA nor ECDSA", await made(folder, "-newkey", "ed25519", "-subj", "/")],
    ["neither RSA nor ECDSA", await made(folder, ...CURVE("P-256"), "-pkeyopt", "ec_param_enc:explicit", "-subj", "/")],
    ["neither by SHA-256", await made(folder, ...CURVE("P-256"), "-sha1", "-subj", "/")],
    ["neither by SHA-256", await made(folder, "-newkey", "rsa:2048", "-sigopt", "rsa_padding_mode:pss", "-subj", "/")],
    ["not one DER request", wrap(Uint8Array.of(...good, 0))],
    ["not one DER request", wrap(element(TAG.SEQUENCE, inner, Uint8Array.of(5, 0)))],
    ["not one DER request", wrap(sequence())],
    ["not one DER request", "-----BEGIN CERTIFICATE REQUEST-----\nMAA\n-----END CERTIFICATE REQUEST-----\n"],
    ["not one PEM block", wrap(good).replaceAll("CERTIFICATE REQUEST", "CERTIFICATE")],
    ["longer than", wrap(good).padEnd(20_000)],
  ];
  for (const [reason, pem] of cases) {
    const taken = await acceptCsr(pem);
    assertStringIncludes("refused" in taken ? taken.refused : "taken", reason);
  }
});

Deno.test("acceptCsr() agrees with another reader about every request, whole or with any byte changed (CP-490)", async () => {
  await using folder = await Folder.create();
  for (const options of [[...CURVE("P-384"), "-subj", "/CN=x"], [...CURVE("P-256"), "-subj", "/O=a/OU=b"]]) {
    const good = bytesOf(await made(folder, ...options));
    assert(!("refused" in await acceptCsr(wrap(good))));
    for (let at = 0; at < good.length; at++) {
      const changed = good.slice();
      changed[at]! ^= 1 << (at % 8);
      const taken = await acceptCsr(wrap(changed));
      assert("refused" in taken, `changed at ${at}`);
    }
  }
  const keys = await crypto.subtle.generateKey({ name: "ECDSA", namedCurve: "P-256" }, true, ["sign", "verify"]);
  const signingAlgorithm = { name: "ECDSA", hash: "SHA-256" };
  for (let count = 0; count < 50; count++) { // Among these are signatures with short halves.
    const csr = await x509.Pkcs10CertificateRequestGenerator.create({ keys, signingAlgorithm });
    assert(!("refused" in await acceptCsr(csr.toString("pem"))));
  }
});
