/** Certificate signing requests (RFC 2986): of what a caller sends, only a proven public key is taken (CP-490, CP-494). */
import * as x509 from "@peculiar/x509";
import { pemBlocks } from "./pem.ts";

/** What is taken of a CSR. */
export interface AcceptedCsr {
  readonly publicKey: x509.PublicKey;
  readonly hasCommonName: boolean;
}

const CSR_BYTES_MAX = 16_384; // RSA 4096 with a dozen SANs stays under 4 KiB
const RSA_BITS_MIN = 2048;
const RSA_BITS_MAX = 8192; // verifying grows with the square of it
const CURVES = ["P-256", "P-384"];

/** Checks form, algorithm and self-signature. @returns What is taken, or why not as `{ refused }`. Never throws on bad input. */
export async function acceptCsr(pem: string): Promise<AcceptedCsr | { refused: string }> {
  if (pem.length > CSR_BYTES_MAX) return { refused: `the CSR is longer than ${CSR_BYTES_MAX} bytes` };
  const blocks = pemBlocks(pem);
  if (blocks.length !== 1 || !/^(NEW )?CERTIFICATE REQUEST$/.test(blocks[0]!.label)) {
    return { refused: "the CSR is not one PEM block of type CERTIFICATE REQUEST" };
  }
  try {
    const csr = new x509.Pkcs10CertificateRequest(blocks[0]!.text);
    if (!isWholeSequence(blocks[0]!.text)) return { refused: "the CSR is not one DER sequence" };
    const refused = refusalOfKey(csr.publicKey);
    if (refused !== undefined) return { refused };
    if (!(await csr.verify())) return { refused: "the CSR's signature does not verify" };
    return { publicKey: csr.publicKey, hasCommonName: csr.subjectName.getField("CN").length > 0 };
  } catch (error) {
    // Whatever the DER reader or WebCrypto says of hostile bytes, it is a bad CSR.
    return { refused: `the CSR cannot be read: ${error instanceof Error ? error.message : String(error)}` };
  }
}

function refusalOfKey(key: x509.PublicKey): string | undefined {
  const algorithm = key.algorithm as Algorithm & { namedCurve?: string; modulusLength?: number };
  if (algorithm.name === "ECDSA" && CURVES.includes(algorithm.namedCurve ?? "")) return undefined;
  if (algorithm.name !== "RSASSA-PKCS1-v1_5") return "the CSR's key is neither RSA nor ECDSA P-256 or P-384";
  const bits = algorithm.modulusLength ?? 0;
  if (bits < RSA_BITS_MIN) return `the CSR's RSA key has ${bits} bits, ${RSA_BITS_MIN} are the least`;
  return bits > RSA_BITS_MAX ? `the CSR's RSA key has ${bits} bits, ${RSA_BITS_MAX} are the most` : undefined;
}

/** Whether the bytes are one DER SEQUENCE to their end: the reader alone is lenient about lengths. */
function isWholeSequence(pem: string): boolean {
  const der = Uint8Array.from(atob(pem.replace(/-----[^-]+-----|\s/g, "")), (it) => it.charCodeAt(0));
  const first = der[1] ?? 0;
  if (der[0] !== 0x30) return false;
  if (first < 0x80) return der.length === 2 + first;
  let length = 0;
  const lengthBytes = first & 0x7f;
  for (const byte of der.subarray(2, 2 + lengthBytes)) length = length * 256 + byte;
  return lengthBytes > 0 && lengthBytes <= 3 && der.length === 2 + lengthBytes + length;
}
