/** Keys, requests and answers of the CA's protocol: what we ask, and what of an answer we believe (ZT-149 to ZT-152). */
import { ignore, MeshError } from "../../base/errors.ts";
import { type CertificateFacts, readCertificate, requestInfo, sameBytes, signedRequest } from "./certificate_der.ts";

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
  const { privateKey, publicKey } = await crypto.subtle.generateKey(KEY, true, ["sign", "verify"]);
  const spki = new Uint8Array(await crypto.subtle.exportKey("spki", publicKey)), info = requestInfo(spki, identity);
  const signature = new Uint8Array(await crypto.subtle.sign(KEY, privateKey, info));
  const pkcs8 = new Uint8Array(await crypto.subtle.exportKey("pkcs8", privateKey));
  return {
    csrPem: toPem("CERTIFICATE REQUEST", signedRequest(info, signature)),
    privateKeyPem: toPem("PRIVATE KEY", pkcs8),
    publicKey: spki,
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
  const { facts } = leaf;
  if (facts.uri !== identity) throw disbelieved(`did not find expected SAN: ${identity}`); // ZT-150
  if (!sameBytes(facts.publicKey, request.publicKey)) {
    throw disbelieved(`the certificate of ${identity} is for another key`);
  }
  if (facts.notAfterMs <= nowMs) throw disbelieved(`the certificate of ${identity} has expired already`);
  const roots = readRootBundle(rootBundle, onSkippedRoot);
  if (roots.length === 0) throw disbelieved(`no root that came for ${identity} can be read`);
  return {
    leafAndIntermediatesPem: allAsPem([...leaves, ...intermediates]),
    privateKeyPem: request.privateKeyPem,
    rootsPem: allAsPem(roots),
    notBeforeMs: facts.notBeforeMs,
    notAfterMs: facts.notAfterMs,
    serial: facts.serial,
  };
}

interface Certificate {
  readonly der: Uint8Array;
  readonly facts: CertificateFacts;
}

function readAll(pem: string, identity: string): Certificate[] {
  return blocksOf(pem).map((block) => {
    const certificate = readBlock(block);
    if (certificate === undefined) throw disbelieved(`a certificate in the answer for ${identity} cannot be read`);
    return certificate;
  });
}

function readRootBundle(pem: string, onSkippedRoot: (reason: string) => void): Certificate[] {
  const roots: Certificate[] = [];
  for (const block of blocksOf(pem)) {
    const root = readBlock(block);
    if (root === undefined) onSkippedRoot("it is no certificate");
    else roots.push(root);
  }
  return roots;
}

/** @returns undefined for what is no certificate. */
function readBlock(block: string): Certificate | undefined {
  let der: Uint8Array;
  try {
    const text = atob(block.replace(/-----[A-Z ]+-----|\s/g, ""));
    der = Uint8Array.from(text, (character) => character.charCodeAt(0));
  } catch (error) {
    ignore(error, "no Base64");
    return undefined;
  }
  const facts = readCertificate(der);
  return facts && { der, facts };
}

function blocksOf(pem: string): string[] {
  const blocks = pem.match(CERTIFICATE) ?? [];
  if (blocks.length > CERTIFICATES_MAX) {
    throw disbelieved(`the CA's answer holds more than ${CERTIFICATES_MAX} certificates`);
  }
  return blocks;
}

function allAsPem(certificates: readonly Certificate[]): string {
  return certificates.map(({ der }) => toPem("CERTIFICATE", der)).join("");
}

/** RFC 7468 §2. */
function toPem(label: string, der: Uint8Array): string {
  const lines = btoa(String.fromCharCode(...der)).match(/.{1,64}/g)!.join("\n");
  return `-----BEGIN ${label}-----\n${lines}\n-----END ${label}-----\n`;
}

function disbelieved(what: string, cause?: unknown): MeshError {
  const remedy = "check which CA answers at CA_ADDRESS, and its clock";
  return new MeshError("AMB0310", `the CA's answer is not to be believed: ${what}`, { remedy, cause });
}
