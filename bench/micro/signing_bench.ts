/** What one certificate costs the CA: reading a CSR and proving its key, writing and signing a leaf. */
import * as x509 from "@peculiar/x509";
import { CertificateAuthority } from "../../control/ca/authority.ts";
import { acceptCsr } from "../../control/ca/csr.ts";
import { assembleMaterial, ISTIO_NAMES, makeRoot } from "../../control/ca/key_material.ts";

const CART = "spiffe://cluster.local/ns/shop/sa/cart";
const AT_ONCE = 16; // as a node with as many pods starts

const keys = await crypto.subtle.generateKey({ name: "ECDSA", namedCurve: "P-256" }, true, ["sign", "verify"]);
const signingAlgorithm = { name: "ECDSA", hash: "SHA-256" };
const names = new x509.SubjectAlternativeNameExtension([{ type: "url", value: CART }]);
const request = await x509.Pkcs10CertificateRequestGenerator.create({ keys, signingAlgorithm, extensions: [names] });
const pem = request.toString("pem");
const publicKey = new Uint8Array(await crypto.subtle.exportKey("spki", keys.publicKey));

async function authorityOf(key: "rsa" | "ecdsa"): Promise<CertificateAuthority> {
  const root = { organisation: "cluster.local", nowMs: Date.now(), lifeMs: 86_400_000, key, rsaBits: 2048 };
  const origin = { where: "the bench", remedy: "", names: ISTIO_NAMES };
  const times = { nowMs: Date.now(), selfSigned: true };
  return await CertificateAuthority.create(await assembleMaterial(origin, await makeRoot(root), times));
}

function atOnce(work: () => Promise<unknown>): Promise<unknown> {
  return Promise.all(Array.from({ length: AT_ONCE }, work));
}

Deno.bench(`${AT_ONCE} CSRs of P-256 keys`, () => atOnce(() => acceptCsr(pem)).then(() => {}));
for (const key of ["ecdsa", "rsa"] as const) {
  const authority = await authorityOf(key);
  const life = { identities: [CART], ttlMs: 3_600_000, withCommonName: false };
  Deno.bench(
    `${AT_ONCE} leaves, ${key} CA`,
    () => atOnce(() => authority.issueWorkload(publicKey, life)).then(() => {}),
  );
}
