import * as x509 from "@peculiar/x509";
import { assert, assertEquals } from "@std/assert";
import { readCertificate } from "./certificate_der.ts";

const EC = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
const RSA = {
  name: "RSASSA-PKCS1-v1_5",
  modulusLength: 2048,
  publicExponent: Uint8Array.of(1, 0, 1),
  hash: "SHA-256",
};
const URI = "spiffe://cluster.local/ns/shop/sa/cart";

const keysOf = async (algorithm: typeof EC | typeof RSA) =>
  await crypto.subtle.generateKey(algorithm, true, ["sign", "verify"]) as CryptoKeyPair;

async function certificate(keys: CryptoKeyPair, serialNumber: string, notAfter: Date, uris: string[]) {
  const names = [{ type: "dns" as const, value: "cart" }, ...uris.map((value) => ({ type: "url" as const, value }))];
  return await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber,
    name: "O=test",
    notBefore: new Date("2026-01-02T03:04:05Z"),
    notAfter,
    keys,
    signingAlgorithm: keys.privateKey.algorithm.name === EC.name ? EC : RSA,
    extensions: [
      new x509.BasicConstraintsExtension(true, 1, true),
      ...(uris.length > 0 ? [new x509.SubjectAlternativeNameExtension(names)] : []),
    ],
  });
}

Deno.test("readCertificate() reads what another reader does, with keys of both kinds and moments of both forms", async () => {
  for (const keys of [await keysOf(EC), await keysOf(RSA)]) {
    for (const serial of ["0abc", "ff01", "7f"]) {
      for (const until of ["2027-01-01T00:00:00Z", "2061-12-31T23:59:59Z"]) {
        for (const uris of [[], [URI], ["spiffe://other/ns/a/sa/b", URI]]) {
          const made = await certificate(keys, serial, new Date(until), uris);
          const facts = readCertificate(new Uint8Array(made.rawData))!;
          assertEquals({ ...facts, publicKey: facts.publicKey.toHex() }, {
            serial: made.serialNumber,
            notBeforeMs: made.notBefore.getTime(),
            notAfterMs: made.notAfter.getTime(),
            publicKey: new Uint8Array(made.publicKey.rawData).toHex(),
            uri: uris[0],
          });
        }
      }
    }
  }
});

Deno.test("readCertificate() takes nothing that is cut, and survives any byte that is another", async () => {
  const made = new Uint8Array(
    (await certificate(await keysOf(EC), "0abc", new Date("2027-01-01T00:00:00Z"), [URI])).rawData,
  );
  for (let length = 0; length < made.length; length++) assertEquals(readCertificate(made.slice(0, length)), undefined);
  assertEquals(readCertificate(Uint8Array.of(...made, 0)), undefined);
  for (let at = 0; at < made.length; at++) {
    for (const other of [0x00, 0x30, 0x80, 0xff, made[at]! ^ 1]) {
      const facts = readCertificate(made.with(at, other));
      assert(facts === undefined || Number.isFinite(facts.notAfterMs));
    }
  }
});
