/** Keys, requests and answers of the CA's protocol: what we ask, and what of an answer we believe (ZT-149 to ZT-152). */
import * as x509 from "@peculiar/x509";
import { MeshError } from "../../base/errors.ts";

/** A certificate in force for an identity. */
export interface WorkloadCertificate {
  /** The leaf and the intermediates, never the root: what we present (ZT-152). */
  readonly leafAndIntermediatesPem: string;
  /** PKCS#8; kept in memory only. */
  readonly privateKeyPem: string;
  /** What the other side's certificate must lead to. */
  readonly rootsPem: string;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  /** Hexadecimal. */
  readonly serial: string;
}

/** A fresh key with its request. */
export interface CertificateRequest {
  readonly csrPem: string;
  readonly privateKeyPem: string;
  /** SubjectPublicKeyInfo in DER. */
  readonly publicKey: Uint8Array;
}

const KEY = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" } as const;
const CERTIFICATES_MAX = 64; // in one answer: a chain of a few, and root bundles of a few domains
const CERTIFICATE = /-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+?-----END CERTIFICATE-----/g;

/** Makes a new ECDSA P-256 key and a CSR with an empty subject and the identity as its one, critical, SAN (ZT-151). */
export async function makeRequest(identity: string): Promise<CertificateRequest> {
  const keys = await crypto.subtle.generateKey(KEY, true, ["sign", "verify"]);
  const csr = await x509.Pkcs10CertificateRequestGenerator.create({
    keys,
    signingAlgorithm: KEY,
    extensions: [new x509.SubjectAlternativeNameExtension([{ type: "url", value: identity }], true)],
  });
  const pkcs8 = await crypto.subtle.exportKey("pkcs8", keys.privateKey);
  return {
    csrPem: x509.PemConverter.encode(csr.rawData, "CERTIFICATE REQUEST"),
    privateKeyPem: x509.PemConverter.encode(pkcs8, "PRIVATE KEY") + "\n",
    publicKey: new Uint8Array(await crypto.subtle.exportKey("spki", keys.publicKey)),
  };
}

/**
 * Checks an answer: a leaf for our key and this identity, still valid, a root, and nothing unreadable between.
 * @throws MeshError AMB0310 if it is not to be believed.
 */
export function checkAnswer(
  certChain: readonly string[],
  { identity, request, nowMs, onSkippedRoot }: {
    identity: string;
    request: CertificateRequest;
    nowMs: number;
    /** Called for each root that cannot be read; the others count. */
    onSkippedRoot: (reason: string) => void;
  },
): WorkloadCertificate {
  const [leafPem, ...rest] = certChain;
  const rootBundle = rest.pop();
  if (leafPem === undefined) throw disbelieved(`chain returned from CA is empty for: ${identity}`);
  if (rootBundle === undefined) throw disbelieved(`no root certificate came with the certificate of ${identity}`);
  const leaves = readAll(leafPem, identity), intermediates = rest.flatMap((pem) => readAll(pem, identity));
  const leaf = leaves[0];
  if (leaf === undefined) throw disbelieved(`the first element of the answer for ${identity} is no certificate`);
  const names = leaf.getExtension(x509.SubjectAlternativeNameExtension)?.names.items ?? [];
  if (names.find((name) => name.type === "url")?.value !== identity) {
    throw disbelieved(`did not find expected SAN: ${identity}`); // ZT-150
  }
  if (!sameBytes(new Uint8Array(leaf.publicKey.rawData), request.publicKey)) {
    throw disbelieved(`the certificate of ${identity} is for another key`);
  }
  if (leaf.notAfter.getTime() <= nowMs) throw disbelieved(`the certificate of ${identity} has expired already`);
  const roots = readRootBundle(rootBundle, onSkippedRoot);
  if (roots.length === 0) throw disbelieved(`no root that came for ${identity} can be read`);
  return {
    leafAndIntermediatesPem: toPem([...leaves, ...intermediates]),
    privateKeyPem: request.privateKeyPem,
    rootsPem: toPem(roots),
    notBeforeMs: leaf.notBefore.getTime(),
    notAfterMs: leaf.notAfter.getTime(),
    serial: leaf.serialNumber,
  };
}

function readAll(pem: string, identity: string): x509.X509Certificate[] {
  try {
    return blocksOf(pem).map((block) => new x509.X509Certificate(block));
  } catch (cause) {
    throw disbelieved(`a certificate in the answer for ${identity} cannot be read`, cause);
  }
}

function readRootBundle(pem: string, onSkippedRoot: (reason: string) => void): x509.X509Certificate[] {
  const roots: x509.X509Certificate[] = [];
  for (const block of blocksOf(pem)) {
    try {
      roots.push(new x509.X509Certificate(block));
    } catch (error) {
      onSkippedRoot(error instanceof Error ? error.message : String(error));
    }
  }
  return roots;
}

function blocksOf(pem: string): string[] {
  const blocks = pem.match(CERTIFICATE) ?? [];
  if (blocks.length > CERTIFICATES_MAX) {
    throw disbelieved(`the CA's answer holds more than ${CERTIFICATES_MAX} certificates`);
  }
  return blocks;
}

function toPem(certificates: readonly x509.X509Certificate[]): string {
  return certificates.map((it) => x509.PemConverter.encode(it.rawData, "CERTIFICATE") + "\n").join("");
}

function sameBytes(left: Uint8Array, right: Uint8Array): boolean {
  return left.length === right.length && left.every((byte, at) => byte === right[at]);
}

function disbelieved(what: string, cause?: unknown): MeshError {
  const remedy = "check which CA answers at CA_ADDRESS, and its clock";
  return new MeshError("AMB0310", `the CA's answer is not to be believed: ${what}`, { remedy, cause });
}
