/** What a leaf certificate says, in DER (RFC 5280 §4.1): the parts that are the same for all are written once per signer. */
import { createHash } from "node:crypto";
import * as x509 from "@peculiar/x509";
import { assert } from "../../base/assert.ts";
import { parseIp } from "../../base/address.ts";
import {
  bitString,
  element,
  objectIdentifier,
  octetString,
  readElement,
  readElements,
  sequence,
  TAG,
  text,
  time,
  unsigned,
} from "./der.ts";
import type { KeyMaterial } from "./key_material.ts";
import type { SigningAlgorithm } from "./pem.ts";

export interface LeafFacts {
  readonly serial: Uint8Array;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  /** Empty: the subject is empty, and the names are critical (RFC 5280 §4.2.1.6). */
  readonly commonName: string;
  /** URIs, or DNS names and addresses. */
  readonly names: readonly LeafName[];
  /** Whether it may stand for a TLS client, too. */
  readonly forClients: boolean;
  /** SubjectPublicKeyInfo. */
  readonly publicKey: Uint8Array;
}

export interface LeafName {
  readonly kind: "uri" | "host";
  readonly value: string;
}

const TRUE = Uint8Array.of(0x01, 0x01, 0xff);
const NOTHING = sequence();
const COMMON_NAME = objectIdentifier("2.5.4.3");
const SUBJECT_KEY_ID = objectIdentifier("2.5.29.14");
const NAMES = objectIdentifier("2.5.29.17");
const VERSION_3 = Uint8Array.of(0xa0, 0x03, 0x02, 0x01, 0x02);
const extension = (id: Uint8Array, value: Uint8Array, critical = false) =>
  critical ? sequence(id, TRUE, octetString(value)) : sequence(id, octetString(value));
/** digitalSignature and keyEncipherment (CP-491). */
const KEY_USAGE = extension(objectIdentifier("2.5.29.15"), Uint8Array.of(TAG.BIT_STRING, 2, 5, 0xa0), true);
const NO_CA = extension(objectIdentifier("2.5.29.19"), NOTHING, true);
const SERVER = objectIdentifier("1.3.6.1.5.5.7.3.1"), CLIENT = objectIdentifier("1.3.6.1.5.5.7.3.2");
const SERVER_USAGE = extension(objectIdentifier("2.5.29.37"), sequence(SERVER));
const BOTH_USAGES = extension(objectIdentifier("2.5.29.37"), sequence(SERVER, CLIENT));

/** Writes leaves of one signer. */
export class LeafWriter {
  readonly #algorithm: Uint8Array;
  readonly #issuer: Uint8Array;
  readonly #authorityKeyId: Uint8Array;

  private constructor(algorithm: Uint8Array, issuer: Uint8Array, authorityKeyId: Uint8Array) {
    this.#algorithm = algorithm;
    this.#issuer = issuer;
    this.#authorityKeyId = authorityKeyId;
  }

  static async of({ signer, algorithm }: KeyMaterial): Promise<LeafWriter> {
    const ownId = signer.getExtension(x509.SubjectKeyIdentifierExtension)?.keyId;
    const authorityKeyId = ownId !== undefined
      ? new x509.AuthorityKeyIdentifierExtension(ownId)
      : await x509.AuthorityKeyIdentifierExtension.create(signer.publicKey);
    const certificate = new Uint8Array(signer.rawData);
    return new LeafWriter(algorithmOf(algorithm), subjectOf(certificate), new Uint8Array(authorityKeyId.rawData));
  }

  /** What is to be signed. */
  toBeSigned(facts: LeafFacts): Uint8Array<ArrayBuffer> {
    const { serial, notBeforeMs, notAfterMs, commonName, names, forClients, publicKey } = facts;
    const named = commonName !== "";
    const subject = named
      ? sequence(element(TAG.SET, sequence(COMMON_NAME, text(TAG.UTF8_STRING, commonName))))
      : NOTHING;
    const extensions = sequence(
      KEY_USAGE,
      forClients ? BOTH_USAGES : SERVER_USAGE,
      NO_CA,
      extension(SUBJECT_KEY_ID, octetString(keyIdOf(publicKey))),
      this.#authorityKeyId,
      extension(NAMES, sequence(...names.map(nameOf)), !named),
    );
    return sequence(
      VERSION_3,
      unsigned(serial),
      this.#algorithm,
      this.#issuer,
      sequence(time(notBeforeMs), time(notAfterMs)),
      subject,
      publicKey,
      element(TAG.CONTEXT_3, extensions),
    ) as Uint8Array<ArrayBuffer>;
  }

  /** The certificate, of what was signed and the signature as Web Crypto gives it. */
  certificate(toBeSigned: Uint8Array, signature: Uint8Array, { name }: SigningAlgorithm): Uint8Array {
    const half = signature.length / 2;
    const written = name === "ECDSA"
      ? sequence(unsigned(signature.subarray(0, half)), unsigned(signature.subarray(half)))
      : signature;
    return sequence(toBeSigned, this.#algorithm, bitString(written));
  }
}

/** RFC 5758 §3.2, RFC 4055 §5. */
function algorithmOf(algorithm: SigningAlgorithm): Uint8Array {
  if (algorithm.name !== "ECDSA") return sequence(objectIdentifier("1.2.840.113549.1.1.11"), Uint8Array.of(0x05, 0x00));
  return sequence(objectIdentifier(`1.2.840.10045.4.3.${algorithm.hash === "SHA-384" ? 3 : 2}`));
}

/** The subject's own bytes: verifiers compare them with the leaf's issuer. */
function subjectOf(certificate: Uint8Array): Uint8Array {
  const whole = readElement(certificate, 0, certificate.length);
  const signed = whole && readElement(certificate, whole.contents, whole.end);
  const parts = signed && readElements(certificate, signed.contents, signed.end, 16);
  // Version, serial, algorithm, issuer, validity, subject; the version is left out in the first one.
  const subject = parts?.[parts[0]?.tag === TAG.CONTEXT_0 ? 5 : 4];
  assert(subject?.tag === TAG.SEQUENCE, "what was read as a certificate has a subject");
  return certificate.slice(subject!.start, subject!.end);
}

/** SHA-1 of the key's bits (RFC 5280 §4.2.1.2): a name to find it by, not a proof. */
function keyIdOf(publicKey: Uint8Array): Uint8Array {
  const whole = readElement(publicKey, 0, publicKey.length);
  const bits = whole && readElements(publicKey, whole.contents, whole.end, 2)?.[1];
  assert(bits?.tag === TAG.BIT_STRING, "a public key has bits");
  return createHash("sha1").update(publicKey.subarray(bits!.contents + 1, bits!.end)).digest();
}

/** A GeneralName (RFC 5280 §4.2.1.6): [6] a URI, [2] a DNS name, [7] an address. */
function nameOf({ kind, value }: LeafName): Uint8Array {
  if (kind === "uri") return text(0x86, value);
  const words = parseIp(value);
  if (words === undefined) return text(0x82, value);
  const address = new Uint8Array(16), view = new DataView(address.buffer);
  for (const [at, word] of words.entries()) view.setUint32(at * 4, word);
  return element(0x87, value.includes(":") ? address : address.subarray(12));
}
