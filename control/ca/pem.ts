/** PEM texts (RFC 7468) and private keys as WebCrypto wants them. */
import { Buffer } from "node:buffer";
import { createPrivateKey } from "node:crypto";

/** No part can match the same text as the one beside it: whoever sends a megabyte of spaces must not be read for minutes. */
const BLOCK = /-----BEGIN ([A-Z0-9 ]{1,64})-----(?=\s+[A-Za-z0-9+/=])[A-Za-z0-9+/=\s]+-----END \1-----/g;

/** One block of a PEM text. */
export interface PemBlock {
  readonly label: string;
  /** The block's own text, ending in one newline. */
  readonly text: string;
}

/** The blocks of a text, in order; what stands between them is left out. */
export function pemBlocks(text: string): PemBlock[] {
  return [...text.matchAll(BLOCK)].map((match) => ({ label: match[1]!, text: `${match[0]}\n` }));
}

/** What a block holds; undefined if it is not base64. */
export function derOf({ text }: PemBlock): Uint8Array<ArrayBuffer> | undefined {
  try {
    return Uint8Array.fromBase64(text.replace(/-----[^-]+-----/g, ""));
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}

/** Writes DER as a PEM block of 64-column lines. */
export function toPem(label: string, der: ArrayBuffer | Uint8Array): string {
  const bytes = der instanceof Uint8Array ? der : new Uint8Array(der);
  const lines = Buffer.from(bytes).toString("base64").match(/.{1,64}/g) ?? [];
  return `-----BEGIN ${label}-----\n${lines.join("\n")}\n-----END ${label}-----\n`;
}

export type SigningAlgorithm =
  | { readonly name: "ECDSA"; readonly namedCurve: string; readonly hash: string }
  | { readonly name: "RSASSA-PKCS1-v1_5"; readonly hash: string };

const CURVES: Readonly<Record<string, { namedCurve: string; hash: string }>> = {
  prime256v1: { namedCurve: "P-256", hash: "SHA-256" },
  secp384r1: { namedCurve: "P-384", hash: "SHA-384" },
};

/** Imports a private key in PKCS#8, PKCS#1 or SEC 1 form. @throws Error if it is none, encrypted, or of another algorithm. */
export async function importSigningKey(pem: string): Promise<{ key: CryptoKey; algorithm: SigningAlgorithm }> {
  const parsed = createPrivateKey(pem);
  const der = new Uint8Array(parsed.export({ type: "pkcs8", format: "der" }));
  const curve = CURVES[parsed.asymmetricKeyDetails?.namedCurve ?? ""];
  let algorithm: SigningAlgorithm;
  if (parsed.asymmetricKeyType === "rsa") algorithm = { name: "RSASSA-PKCS1-v1_5", hash: "SHA-256" };
  else if (curve !== undefined) algorithm = { name: "ECDSA", ...curve };
  else throw new Error(`keys of type ${parsed.asymmetricKeyType} cannot sign here; ECDSA P-256, P-384 and RSA can`);
  return { key: await crypto.subtle.importKey("pkcs8", der, algorithm, false, ["sign"]), algorithm };
}
