/** What the CA signs with: a key, its certificate, and the certificates around it, checked to belong together. */
import { Buffer } from "node:buffer";
import { createPrivateKey } from "node:crypto";
import * as x509 from "@peculiar/x509";
import { MeshError } from "../../base/errors.ts";
import { importSigningKey, pemBlocks, type SigningAlgorithm, toPem } from "./pem.ts";

/** The signing key and the certificates around it. */
export interface KeyMaterial {
  readonly key: CryptoKey;
  readonly algorithm: SigningAlgorithm;
  /** The certificate of `key`: a root, or an intermediate. */
  readonly signer: x509.X509Certificate;
  /** From the signer up to, and without, the root; each a PEM text ending in one newline. Empty if the signer is a root. */
  readonly intermediatesPem: readonly string[];
  /** The whole root bundle as stored (CP-471). */
  readonly rootsPem: string;
  readonly roots: readonly x509.X509Certificate[];
  readonly selfSigned: boolean;
}

/** PEM texts as they are stored. */
export interface MaterialTexts {
  readonly cert: string;
  readonly key: string;
  readonly roots: string;
  readonly chain: string;
}

/** Where texts come from, for errors, and what to do about them. */
export interface MaterialOrigin {
  /** As `the CA files in /etc/cacerts`. */
  readonly where: string;
  readonly remedy: string;
  /** What each text is called there. */
  readonly names: MaterialTexts;
}

/** The names that Istio gives them. */
export const ISTIO_NAMES: MaterialTexts = Object.freeze({
  cert: "ca-cert.pem",
  key: "ca-key.pem",
  roots: "root-cert.pem",
  chain: "cert-chain.pem",
});

export type RootKey = "rsa" | "ecdsa";

export interface RootOptions {
  readonly organisation: string;
  readonly nowMs: number;
  readonly lifeMs: number;
  readonly key: RootKey;
  readonly rsaBits: number;
}

export const BACKDATE_MS = 2 * 60_000; // notBefore lies this far back: clocks differ (CP-492)

/** A random positive serial number of 16 bytes (RFC 5280 §4.1.2.2), in hexadecimal. */
export function randomSerial(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[0] = (bytes[0]! & 0x7f) | 0x40; // positive, and never shortened by a leading zero
  return bytes.toHex();
}

/** Makes a key and a root certificate of it (CP-501). */
export async function makeRoot(options: RootOptions): Promise<MaterialTexts> {
  const { organisation, key, rsaBits } = options;
  const algorithm = key === "ecdsa" ? { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" } : {
    name: "RSASSA-PKCS1-v1_5",
    hash: "SHA-256",
    modulusLength: rsaBits,
    publicExponent: Uint8Array.of(1, 0, 1),
  };
  const keys = await crypto.subtle.generateKey(algorithm, true, ["sign", "verify"]) as CryptoKeyPair;
  const pem = await signRoot(keys, { subject: [{ O: [organisation] }], algorithm, ...options });
  return { cert: pem, key: await keyText(keys.privateKey, key), roots: pem, chain: "" };
}

/** A certificate for the same root and the same key, with a new life: what the old one signed leads to the new one, too (CP-503). */
export async function renewRoot(material: KeyMaterial, life: { nowMs: number; lifeMs: number }): Promise<string> {
  const { key, algorithm, signer } = material;
  const publicKey = await signer.publicKey.export();
  return await signRoot({ privateKey: key, publicKey }, { subject: signer.subjectName, algorithm, ...life });
}

async function signRoot(
  keys: CryptoKeyPair,
  { subject, algorithm, nowMs, lifeMs }: {
    subject: x509.JsonName | x509.Name;
    algorithm: Algorithm;
    nowMs: number;
    lifeMs: number;
  },
): Promise<string> {
  const certificate = await x509.X509CertificateGenerator.create({
    serialNumber: randomSerial(),
    subject,
    issuer: subject,
    notBefore: new Date(nowMs - BACKDATE_MS),
    notAfter: new Date(nowMs + lifeMs),
    signingAlgorithm: algorithm,
    signingKey: keys.privateKey,
    publicKey: keys.publicKey,
    extensions: [
      new x509.BasicConstraintsExtension(true, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  return toPem("CERTIFICATE", certificate.rawData);
}

/** A key as Istio's own CA writes it, so that either can take over from the other. */
async function keyText(key: CryptoKey, kind: RootKey): Promise<string> {
  const pkcs8 = Buffer.from(await crypto.subtle.exportKey("pkcs8", key));
  if (kind === "ecdsa") return toPem("PRIVATE KEY", pkcs8);
  const parsed = createPrivateKey({ key: pkcs8, format: "der", type: "pkcs8" });
  return toPem("RSA PRIVATE KEY", parsed.export({ type: "pkcs1", format: "der" }));
}

/** Reads texts and checks that they are one CA's. @throws MeshError AMB0212 */
export async function assembleMaterial(
  origin: MaterialOrigin,
  texts: MaterialTexts,
  { nowMs, selfSigned }: { nowMs: number; selfSigned: boolean },
): Promise<KeyMaterial> {
  const { names } = origin;
  const [signer, ...above] = certificatesOf(origin, "cert", texts);
  const roots = certificatesOf(origin, "roots", texts);
  if (signer === undefined) throw unusable(origin, `${names.cert} holds no certificate`);
  if (roots.length === 0) throw unusable(origin, `${names.roots} holds no certificate`);
  if (!signer.getExtension(x509.BasicConstraintsExtension)?.ca) {
    throw unusable(origin, `${names.cert} is not a CA certificate`);
  }
  // A root of our own that has expired is renewed, with its key, by whoever loads it.
  if (signer.notAfter.getTime() <= nowMs && !selfSigned) {
    throw unusable(origin, `${names.cert} expired at ${signer.notAfter.toISOString()}`);
  }
  let imported;
  try {
    imported = await importSigningKey(texts.key);
  } catch (cause) {
    throw unusable(origin, `${names.key} is no usable private key`, cause);
  }
  if (!(await belongs(imported.key, imported.algorithm, signer))) {
    throw unusable(origin, `${names.key} is not the key of ${names.cert}`);
  }
  const isRoot = (it: x509.X509Certificate) => roots.some((root) => root.equal(it));
  const intermediates: x509.X509Certificate[] = isRoot(signer) ? [] : [signer];
  for (const it of [...above, ...certificatesOf(origin, "chain", texts)]) {
    if (!isRoot(it) && !it.equal(signer) && !intermediates.some((known) => known.equal(it))) intermediates.push(it);
  }
  await checkPath(intermediates, { origin, roots, signer });
  return {
    key: imported.key,
    algorithm: imported.algorithm,
    signer,
    intermediatesPem: intermediates.map((it) => toPem("CERTIFICATE", it.rawData)),
    rootsPem: texts.roots,
    roots,
    selfSigned,
  };
}

/** Each intermediate must be signed by the next, the last by a root. */
async function checkPath(
  path: readonly x509.X509Certificate[],
  { origin, roots, signer }: { origin: MaterialOrigin; roots: x509.X509Certificate[]; signer: x509.X509Certificate },
): Promise<void> {
  for (const [at, certificate] of path.entries()) {
    const issuers = at + 1 < path.length ? [path[at + 1]!] : roots;
    let signed = false;
    for (const issuer of issuers) {
      signed ||= certificate.issuer === issuer.subject &&
        await certificate.verify({ publicKey: await issuer.publicKey.export(), signatureOnly: true });
    }
    if (!signed) {
      const what = `no path from ${signer.subject} to a root: nothing in the set signed ${certificate.subject}`;
      throw unusable(origin, what);
    }
  }
}

function certificatesOf(
  origin: MaterialOrigin,
  part: keyof MaterialTexts,
  texts: MaterialTexts,
): x509.X509Certificate[] {
  try {
    const blocks = pemBlocks(texts[part]).filter((it) => it.label === "CERTIFICATE");
    return blocks.map((it) => new x509.X509Certificate(it.text));
  } catch (cause) {
    throw unusable(origin, `${origin.names[part]} holds something that is no certificate`, cause);
  }
}

async function belongs(
  key: CryptoKey,
  algorithm: SigningAlgorithm,
  certificate: x509.X509Certificate,
): Promise<boolean> {
  const probe = crypto.getRandomValues(new Uint8Array(32));
  const signature = await crypto.subtle.sign(algorithm, key, probe);
  try {
    const publicKey = await crypto.subtle.importKey("spki", certificate.publicKey.rawData, algorithm, false, [
      "verify",
    ]);
    return await crypto.subtle.verify(algorithm, publicKey, signature, probe);
  } catch (error) {
    if (error instanceof DOMException || error instanceof TypeError) return false; // Another algorithm altogether.
    throw error;
  }
}

function unusable({ where, remedy }: MaterialOrigin, what: string, cause?: unknown): MeshError {
  return new MeshError("AMB0212", `${where} cannot be used: ${what}`, { remedy, cause });
}
