/** Client certificates that lead to our root by no honest way. */
import tls from "node:tls";
import { assertEquals } from "@std/assert";
import * as x509 from "@peculiar/x509";
import { CertificateAuthority } from "../ca/authority.ts";
import { toPem } from "../ca/pem.ts";
import { Rig } from "./server_testing.ts";

const DAY_MS = 86_400_000;
const URI = "spiffe://cluster.local/ns/shop/sa/cart";
const KEY = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };

interface Shown {
  readonly cert: string;
  readonly key: string;
}

const newKeys = () => crypto.subtle.generateKey(KEY, true, ["sign", "verify"]) as Promise<CryptoKeyPair>;

async function keyPem({ privateKey }: CryptoKeyPair): Promise<string> {
  return toPem("PRIVATE KEY", await crypto.subtle.exportKey("pkcs8", privateKey));
}

/** A leaf as the CA gave it, at a time, for a key. */
async function leaf(authority: CertificateAuthority, keys: CryptoKeyPair, atMs = Date.now()): Promise<string> {
  const then = await CertificateAuthority.create(authority.material, () => atMs);
  const spki = new Uint8Array(await crypto.subtle.exportKey("spki", keys.publicKey));
  return (await then.issueWorkload(spki, { identities: [URI], ttlMs: DAY_MS, withCommonName: true })).pem;
}

/** A certificate of anybody's making. */
async function forged(
  keys: CryptoKeyPair,
  { issuer, signer, names }: { issuer: string; signer: CryptoKeyPair; names: readonly string[] },
): Promise<string> {
  const certificate = await x509.X509CertificateGenerator.create({
    serialNumber: "01",
    subject: "",
    issuer,
    notBefore: new Date(Date.now() - DAY_MS),
    notAfter: new Date(Date.now() + DAY_MS),
    signingAlgorithm: KEY,
    signingKey: signer.privateKey,
    publicKey: keys.publicKey,
    extensions: [
      new x509.SubjectAlternativeNameExtension(names.map((value) => ({ type: "url" as const, value })), true),
    ],
  });
  return toPem("CERTIFICATE", certificate.rawData);
}

/** What becomes of a connection that shows this: `greeted` if the server says its SETTINGS, `closed` if it says nothing. */
function outcome(rig: Rig, { cert, key }: Shown, maxVersion: "TLSv1.2" | "TLSv1.3"): Promise<string> {
  return new Promise((resolve) => {
    const ca = rig.authority.material.rootsPem, ALPNProtocols = ["h2"];
    const socket = tls.connect({ port: rig.port, ca, servername: "localhost", cert, key, maxVersion, ALPNProtocols });
    socket.on("data", () => {
      resolve("greeted");
      socket.destroy();
    });
    socket.on("error", () => resolve("closed")).on("close", () => resolve("closed"));
  });
}

Deno.test("GrpcServer believes no client certificate that is out of date, signed by a leaf, or by a namesake of the root (CP-003)", async () => {
  await using rig = await Rig.start();
  const { authority } = rig, own = await newKeys(), other = await newKeys();
  const key = await keyPem(own), otherKey = await keyPem(other), cert = await leaf(authority, own);
  const subject = new x509.X509Certificate(cert).subject, root = authority.material.signer.subject;
  const shown: [string, Shown, string][] = [
    ["an honest one", { cert, key }, "greeted"],
    ["one of the day before yesterday", { cert: await leaf(authority, own, Date.now() - 2 * DAY_MS), key }, "closed"],
    ["one of tomorrow", { cert: await leaf(authority, own, Date.now() + DAY_MS), key }, "closed"],
    ["one that a leaf has signed", {
      cert: await forged(other, { issuer: subject, signer: own, names: [URI] }) + cert,
      key: otherKey,
    }, "closed"],
    ["one of a root of the same name", {
      cert: await forged(other, { issuer: root, signer: other, names: [URI] }),
      key: otherKey,
    }, "closed"],
  ];
  for (const version of ["TLSv1.2", "TLSv1.3"] as const) {
    for (const [what, pair, expected] of shown) {
      assertEquals(await outcome(rig, pair, version), expected, `${what}, ${version}`);
    }
  }
});
