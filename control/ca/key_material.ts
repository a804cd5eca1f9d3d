/** What the CA signs with: files plugged in by an operator, or a root of our own that is made once and kept (CP-500, CP-501). */
import * as x509 from "@peculiar/x509";
import { MeshError } from "../../base/errors.ts";
import { importSigningKey, pemBlocks, type SigningAlgorithm, toPem } from "./pem.ts";
import { createFolderOnce, readSecret } from "./state_files.ts";

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

export const PLUGGED_IN_FILES = ["ca-cert.pem", "ca-key.pem", "root-cert.pem", "cert-chain.pem"] as const;
const SELF_SIGNED_LIFE_MS = 10 * 365 * 86_400_000; // ten years, as CP-501 has it
export const BACKDATE_MS = 2 * 60_000; // notBefore lies this far back: clocks differ (CP-492)

/** Reads a folder of plugged-in files. @throws MeshError AMB0212 if the set is incomplete or its parts do not belong together. */
export async function loadPluggedIn(folder: string, nowMs: number): Promise<KeyMaterial> {
  const texts: string[] = [], missing: string[] = [];
  for (const name of PLUGGED_IN_FILES) {
    try {
      texts.push(await Deno.readTextFile(`${folder}/${name}`));
    } catch (cause) {
      if (!(cause instanceof Deno.errors.NotFound)) throw unusable(folder, `${name} cannot be read`, cause);
      missing.push(name);
    }
  }
  if (missing.length > 0) throw unusable(folder, `${missing.join(", ")} missing`);
  return await assemble(folder, texts as [string, string, string, string], { nowMs, selfSigned: false });
}

/** Reads our own root from `<stateFolder>/ca`, making it first if there is none: ECDSA P-256, ten years, organisation = trust domain. */
export async function loadSelfSigned(stateFolder: string, trustDomain: string, nowMs: number): Promise<KeyMaterial> {
  const folder = `${stateFolder}/ca`;
  await createFolderOnce(folder, () => makeRoot(trustDomain, nowMs));
  const texts: string[] = [];
  for (const name of PLUGGED_IN_FILES) {
    const content = await readSecret(`${folder}/${name}`);
    if (content === undefined) throw unusable(folder, `${name} missing`);
    texts.push(content);
  }
  return await assemble(folder, texts as [string, string, string, string], { nowMs, selfSigned: true });
}

/** A random positive serial number of 16 bytes (RFC 5280 §4.1.2.2), in hexadecimal. */
export function randomSerial(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[0] = (bytes[0]! & 0x7f) | 0x40; // positive, and never shortened by a leading zero
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

async function makeRoot(trustDomain: string, nowMs: number): Promise<Record<string, string>> {
  const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
  const keys = await crypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: randomSerial(),
    name: [{ O: [trustDomain] }],
    notBefore: new Date(nowMs - BACKDATE_MS),
    notAfter: new Date(nowMs + SELF_SIGNED_LIFE_MS),
    signingAlgorithm: algorithm,
    keys,
    extensions: [
      new x509.BasicConstraintsExtension(true, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  const pem = toPem("CERTIFICATE", certificate.rawData);
  const key = toPem("PRIVATE KEY", await crypto.subtle.exportKey("pkcs8", keys.privateKey));
  return { "ca-cert.pem": pem, "ca-key.pem": key, "root-cert.pem": pem, "cert-chain.pem": "" };
}

async function assemble(
  folder: string,
  [certText, keyText, rootsText, chainText]: [string, string, string, string],
  { nowMs, selfSigned }: { nowMs: number; selfSigned: boolean },
): Promise<KeyMaterial> {
  const signer = certificatesOf(folder, "ca-cert.pem", certText)[0];
  const roots = certificatesOf(folder, "root-cert.pem", rootsText);
  const chain = certificatesOf(folder, "cert-chain.pem", chainText);
  if (signer === undefined) throw unusable(folder, "ca-cert.pem holds no certificate");
  if (roots.length === 0) throw unusable(folder, "root-cert.pem holds no certificate");
  if (!signer.getExtension(x509.BasicConstraintsExtension)?.ca) {
    throw unusable(folder, "ca-cert.pem is not a CA certificate");
  }
  if (signer.notAfter.getTime() <= nowMs) {
    throw unusable(folder, `ca-cert.pem expired at ${signer.notAfter.toISOString()}`);
  }
  let imported;
  try {
    imported = await importSigningKey(keyText);
  } catch (cause) {
    throw unusable(folder, "ca-key.pem is no usable private key", cause);
  }
  if (!(await belongs(imported.key, imported.algorithm, signer))) {
    throw unusable(folder, "ca-key.pem is not the key of ca-cert.pem");
  }
  const isRoot = (it: x509.X509Certificate) => roots.some((root) => root.equal(it));
  const intermediates = chain.filter((it) => !isRoot(it) && !it.equal(signer));
  if (!isRoot(signer)) intermediates.unshift(signer);
  await checkPath([...intermediates], { folder, roots, signer });
  return {
    key: imported.key,
    algorithm: imported.algorithm,
    signer,
    intermediatesPem: intermediates.map((it) => toPem("CERTIFICATE", it.rawData)),
    rootsPem: rootsText,
    roots,
    selfSigned,
  };
}

/** Each intermediate must be signed by the next, the last by a root. */
async function checkPath(
  path: x509.X509Certificate[],
  { folder, roots, signer }: { folder: string; roots: x509.X509Certificate[]; signer: x509.X509Certificate },
): Promise<void> {
  for (const [at, certificate] of path.entries()) {
    const issuers = at + 1 < path.length ? [path[at + 1]!] : roots;
    let signed = false;
    for (const issuer of issuers) {
      signed ||= certificate.issuer === issuer.subject &&
        await certificate.verify({ publicKey: await issuer.publicKey.export(), signatureOnly: true });
    }
    if (!signed) {
      throw unusable(
        folder,
        `no path from ${signer.subject} to a root: nothing in the set signed ${certificate.subject}`,
      );
    }
  }
}

function certificatesOf(folder: string, name: string, text: string): x509.X509Certificate[] {
  try {
    return pemBlocks(text).filter((it) => it.label === "CERTIFICATE").map((it) => new x509.X509Certificate(it.text));
  } catch (cause) {
    throw unusable(folder, `${name} holds something that is no certificate`, cause);
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

function unusable(folder: string, what: string, cause?: unknown): MeshError {
  return new MeshError("AMB0212", `the CA files in ${folder} cannot be used: ${what}`, {
    remedy: `put ${PLUGGED_IN_FILES.join(", ")} of one CA there, or give no --ca-dir to have a root made`,
    cause,
  });
}
