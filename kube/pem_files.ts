/** Certificates and keys as PEM: judged before a connection uses them, so that a wrong one is named and not met as a failed handshake. */
import { createPrivateKey, X509Certificate } from "node:crypto";
import type { KeyPair } from "./access.ts";

const BLOCK = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g;
const CERTIFICATES_MAX = 1_000;

/** What is wrong with PEM that should hold certificates, or undefined. Comments between them are no wrong. */
export function certificatesProblem(pem: string): string | undefined {
  const blocks = pem.match(BLOCK) ?? [];
  if (blocks.length === 0) return "holds no certificate";
  if (blocks.length > CERTIFICATES_MAX) return `holds more than ${CERTIFICATES_MAX} certificates`;
  for (const [row, block] of blocks.entries()) {
    if (parsed(() => new X509Certificate(block)) === undefined) return `certificate ${row + 1} cannot be read`;
  }
  return undefined;
}

/** What is wrong with a certificate and its key, or undefined. Says nothing of the key itself. */
export function keyPairProblem({ certificate, key }: KeyPair): string | undefined {
  const problem = certificatesProblem(certificate);
  if (problem !== undefined) return `the certificate ${problem}`;
  const secret = parsed(() => createPrivateKey(key));
  if (secret === undefined) return "the key cannot be read, or is encrypted";
  const leaf = new X509Certificate(certificate.match(BLOCK)![0]!);
  return parsed(() => leaf.checkPrivateKey(secret)) === true ? undefined : "the key is not the certificate's";
}

function parsed<T>(parse: () => T): T | undefined {
  try {
    return parse();
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    return undefined; // What it says of a key's bytes is for nobody's log.
  }
}
