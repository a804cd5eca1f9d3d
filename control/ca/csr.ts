/** Certificate signing requests (RFC 2986): of what a caller sends, only a proven public key is taken (CP-490, CP-494). */
import { type Element, objectIdentifier, readElement, readElements, TAG } from "./der.ts";
import { derOf, pemBlocks } from "./pem.ts";

/** What is taken of a CSR. */
export interface AcceptedCsr {
  /** The SubjectPublicKeyInfo, in DER. */
  readonly publicKey: Uint8Array;
  readonly hasCommonName: boolean;
}

/** The parts of a request, as they lie in its bytes. */
interface Parts {
  /** What is signed. */
  readonly signed: Element;
  readonly subject: Element;
  readonly publicKey: Element;
  readonly signatureAlgorithm: Element;
  readonly signature: Element;
}

/** A key, as Web Crypto wants it. */
interface Key {
  readonly algorithm: { readonly name: string; readonly namedCurve?: string };
  /** Of each half of an ECDSA signature; 0 for RSA. */
  readonly halfBytes: number;
}

const CSR_BYTES_MAX = 16_384; // RSA 4096 with a dozen SANs stays under 4 KiB
const RSA_BITS_MIN = 2048;
const RSA_BITS_MAX = 8192; // verifying grows with the square of it
const NAME_PARTS_MAX = 32;
const RSA = "RSASSA-PKCS1-v1_5";
const NULL = Uint8Array.of(0x05, 0x00);

const joined = (...parts: readonly Uint8Array[]) => parts.map((part) => part.toHex()).join("");
const oid = (dotted: string) => objectIdentifier(dotted).toHex();

/** Contents of a key's AlgorithmIdentifier (RFC 3279 §2.3, RFC 5480 §2.1.1). */
const KEYS: ReadonlyMap<string, Key> = new Map([
  [
    oid("1.2.840.10045.2.1") + oid("1.2.840.10045.3.1.7"),
    { algorithm: { name: "ECDSA", namedCurve: "P-256" }, halfBytes: 32 },
  ],
  [oid("1.2.840.10045.2.1") + oid("1.3.132.0.34"), {
    algorithm: { name: "ECDSA", namedCurve: "P-384" },
    halfBytes: 48,
  }],
  [joined(objectIdentifier("1.2.840.113549.1.1.1"), NULL), { algorithm: { name: RSA }, halfBytes: 0 }],
]);

/** Contents of a signature's AlgorithmIdentifier, by the name of the key's algorithm (RFC 5758 §3.2, RFC 4055 §5). */
const HASHES: Readonly<Record<string, ReadonlyMap<string, string>>> = {
  ECDSA: new Map([2, 3, 4].map((arc, at) => [oid(`1.2.840.10045.4.3.${arc}`), ["SHA-256", "SHA-384", "SHA-512"][at]!])),
  [RSA]: new Map(
    [11, 12, 13].map((arc, at) => [
      joined(objectIdentifier(`1.2.840.113549.1.1.${arc}`), NULL),
      ["SHA-256", "SHA-384", "SHA-512"][at]!,
    ]),
  ),
};

const COMMON_NAME = oid("2.5.4.3");

/** Checks form, algorithm and self-signature. @returns What is taken, or why not as `{ refused }`. Never throws on bad input. */
export async function acceptCsr(pem: string): Promise<AcceptedCsr | { refused: string }> {
  if (pem.length > CSR_BYTES_MAX) return { refused: `the CSR is longer than ${CSR_BYTES_MAX} bytes` };
  const blocks = pemBlocks(pem);
  if (blocks.length !== 1 || !/^(NEW )?CERTIFICATE REQUEST$/.test(blocks[0]!.label)) {
    return { refused: "the CSR is not one PEM block of type CERTIFICATE REQUEST" };
  }
  const bytes = derOf(blocks[0]!), parts = bytes && partsOf(bytes);
  if (parts === undefined) return { refused: "the CSR cannot be read: it is not one DER request" };
  const hasCommonName = hasName(bytes!, parts.subject, COMMON_NAME);
  if (hasCommonName === undefined) return { refused: "the CSR cannot be read: its subject is no name" };
  const key = keyOf(bytes!, parts.publicKey);
  if ("refused" in key) return key;
  const publicKey = bytes!.slice(parts.publicKey.start, parts.publicKey.end);
  const refused = await refusalOfSignature(bytes!, parts, { ...key, publicKey });
  return refused === undefined ? { publicKey, hasCommonName } : { refused };
}

function partsOf(bytes: Uint8Array): Parts | undefined {
  const whole = readElement(bytes, 0, bytes.length);
  if (whole?.tag !== TAG.SEQUENCE || whole.end !== bytes.length) return undefined;
  const [signed, signatureAlgorithm, signature, ...rest] = readElements(bytes, whole.contents, whole.end, 3) ?? [];
  if (signed?.tag !== TAG.SEQUENCE || signatureAlgorithm?.tag !== TAG.SEQUENCE) return undefined;
  if (signature?.tag !== TAG.BIT_STRING || rest.length > 0) return undefined;
  const [version, subject, publicKey, attributes] = readElements(bytes, signed.contents, signed.end, 4) ?? [];
  if (version?.tag !== TAG.INTEGER || hex(bytes, version) !== "00") return undefined;
  if (subject?.tag !== TAG.SEQUENCE || publicKey?.tag !== TAG.SEQUENCE) return undefined;
  if (attributes !== undefined && attributes.tag !== TAG.CONTEXT_0) return undefined;
  return { signed, subject, publicKey, signatureAlgorithm, signature };
}

/** Whether a Name has an attribute of that type; undefined if it is no Name. */
function hasName(bytes: Uint8Array, name: Element, type: string): boolean | undefined {
  let found = false;
  for (const set of readElements(bytes, name.contents, name.end, NAME_PARTS_MAX) ?? [undefined]) {
    if (set?.tag !== TAG.SET) return undefined;
    for (const pair of readElements(bytes, set.contents, set.end, NAME_PARTS_MAX) ?? [undefined]) {
      if (pair?.tag !== TAG.SEQUENCE) return undefined;
      const [attribute, value] = readElements(bytes, pair.contents, pair.end, 2) ?? [];
      if (attribute?.tag !== TAG.OBJECT_IDENTIFIER || value === undefined) return undefined;
      found ||= bytes.subarray(attribute.start, attribute.end).toHex() === type;
    }
  }
  return found;
}

function keyOf(bytes: Uint8Array, { contents, end }: Element): Key | { refused: string } {
  const [algorithm, bits, ...rest] = readElements(bytes, contents, end, 2) ?? [];
  if (algorithm?.tag !== TAG.SEQUENCE || bits?.tag !== TAG.BIT_STRING || rest.length > 0) {
    return { refused: "the CSR cannot be read: its key is none" };
  }
  const key = KEYS.get(hex(bytes, algorithm));
  if (key === undefined) return { refused: "the CSR's key is neither RSA nor ECDSA P-256 or P-384" };
  if (key.algorithm.name !== RSA) {
    // An uncompressed point (RFC 5480 §2.2): the one form that every peer reads.
    const wellFormed = bits.end - bits.contents === 2 + 2 * key.halfBytes && bytes[bits.contents] === 0 &&
      bytes[bits.contents + 1] === 4;
    return wellFormed ? key : { refused: "the CSR's key is not an uncompressed point" };
  }
  const modulusBits = rsaBitsOf(bytes, bits);
  if (modulusBits === undefined) return { refused: "the CSR cannot be read: its RSA key is none" };
  if (modulusBits < RSA_BITS_MIN) {
    return { refused: `the CSR's RSA key has ${modulusBits} bits, ${RSA_BITS_MIN} are the least` };
  }
  if (modulusBits <= RSA_BITS_MAX) return key;
  return { refused: `the CSR's RSA key has ${modulusBits} bits, ${RSA_BITS_MAX} are the most` };
}

function rsaBitsOf(bytes: Uint8Array, bits: Element): number | undefined {
  if (bytes[bits.contents] !== 0) return undefined;
  const pair = readElement(bytes, bits.contents + 1, bits.end);
  if (pair?.tag !== TAG.SEQUENCE || pair.end !== bits.end) return undefined;
  const [modulus, exponent, ...rest] = readElements(bytes, pair.contents, pair.end, 2) ?? [];
  if (modulus?.tag !== TAG.INTEGER || exponent?.tag !== TAG.INTEGER || rest.length > 0) return undefined;
  const number = unsignedIn(bytes, modulus);
  if (number === undefined || unsignedIn(bytes, exponent) === undefined) return undefined;
  return number.length * 8 - Math.clz32(number[0]!) + 24;
}

/** The bytes of a positive number in its shortest form, without a sign; undefined if it is none. */
function unsignedIn(bytes: Uint8Array, { contents, end }: Element): Uint8Array | undefined {
  const number = bytes.subarray(contents, end);
  if (number.length === 0 || number[0]! & 0x80) return undefined;
  if (number[0] !== 0) return number;
  return number.length > 1 && number[1]! & 0x80 ? number.subarray(1) : undefined;
}

async function refusalOfSignature(
  bytes: Uint8Array<ArrayBuffer>,
  { signed, signatureAlgorithm, signature }: Parts,
  { algorithm, halfBytes, publicKey }: Key & { publicKey: Uint8Array<ArrayBuffer> },
): Promise<string | undefined> {
  const hash = HASHES[algorithm.name]!.get(hex(bytes, signatureAlgorithm));
  if (hash === undefined) return "the CSR's signature is neither by SHA-256, SHA-384 nor SHA-512";
  const raw = bytes[signature.contents] !== 0
    ? undefined
    : halfBytes === 0
    ? bytes.slice(signature.contents + 1, signature.end)
    : halvesOf(bytes, { from: signature.contents + 1, end: signature.end, halfBytes });
  if (raw === undefined) return "the CSR cannot be read: its signature is none";
  try {
    const key = await crypto.subtle.importKey("spki", publicKey, { ...algorithm, hash }, false, ["verify"]);
    const good = await crypto.subtle.verify(
      { name: algorithm.name, hash },
      key,
      raw,
      bytes.slice(signed.start, signed.end),
    );
    return good ? undefined : "the CSR's signature does not verify";
  } catch (error) {
    // Whatever Web Crypto says of hostile bytes, it is a bad CSR.
    return `the CSR's key cannot be used: ${error instanceof Error ? error.message : String(error)}`;
  }
}

/** Both numbers of an ECDSA signature (RFC 3279 §2.2.3), one behind the other, as Web Crypto wants them. */
function halvesOf(
  bytes: Uint8Array,
  { from, end, halfBytes }: { from: number; end: number; halfBytes: number },
): Uint8Array<ArrayBuffer> | undefined {
  const pair = readElement(bytes, from, end);
  if (pair?.tag !== TAG.SEQUENCE || pair.end !== end) return undefined;
  const numbers = readElements(bytes, pair.contents, pair.end, 2) ?? [];
  if (numbers.length !== 2) return undefined;
  const out = new Uint8Array(2 * halfBytes);
  for (const [at, it] of numbers.entries()) {
    const number = it.tag === TAG.INTEGER ? unsignedIn(bytes, it) : undefined;
    if (number === undefined || number.length > halfBytes) return undefined;
    out.set(number, (at + 1) * halfBytes - number.length);
  }
  return out;
}

function hex(bytes: Uint8Array, { contents, end }: Element): string {
  return bytes.subarray(contents, end).toHex();
}
