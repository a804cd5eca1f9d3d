/** What a workload's certificate request is written as, and what of a certificate its owner reads (RFC 2986 §4, RFC 5280 §4.1). */
import {
  bitString,
  type Element,
  element,
  objectIdentifier,
  octetString,
  readElement,
  readElements,
  sequence,
  TAG,
  text,
  unsigned,
} from "../../wire/der.ts";

const ECDSA_SHA256 = sequence(objectIdentifier("1.2.840.10045.4.3.2"));
const EXTENSION_REQUEST = objectIdentifier("1.2.840.113549.1.9.14");
const SUBJECT_ALTERNATIVE_NAME = objectIdentifier("2.5.29.17");
const CRITICAL = element(TAG.BOOLEAN, Uint8Array.of(0xff));
const VERSION_1 = element(TAG.INTEGER, Uint8Array.of(0));
/** GeneralName [6], a URI. */
const URI = 0x86;
const FIELDS_MAX = 12, EXTENSIONS_MAX = 64, NAMES_MAX = 256;

/** A CSR's part that is signed: an empty subject, and the identity as its one, critical, alternative name (ZT-151). */
export function requestInfo(publicKey: Uint8Array, identity: string): Uint8Array<ArrayBuffer> {
  const names = octetString(sequence(text(URI, identity)));
  const extensions = sequence(sequence(SUBJECT_ALTERNATIVE_NAME, CRITICAL, names));
  const attribute = sequence(EXTENSION_REQUEST, element(TAG.SET, extensions));
  return new Uint8Array(sequence(VERSION_1, sequence(), publicKey, element(TAG.CONTEXT_0, attribute)));
}

/** The whole CSR. @param signature of {@link requestInfo} by ECDSA with P-256 and SHA-256: r and s, 32 bytes each. */
export function signedRequest(info: Uint8Array, signature: Uint8Array): Uint8Array {
  const both = sequence(unsigned(signature.subarray(0, 32)), unsigned(signature.subarray(32)));
  return sequence(info, ECDSA_SHA256, bitString(both));
}

/** What its owner wants to know of a certificate. */
export interface CertificateFacts {
  /** Hexadecimal. */
  readonly serial: string;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  /** SubjectPublicKeyInfo in DER. */
  readonly publicKey: Uint8Array;
  /** The first alternative name that is a URI. */
  readonly uri: string | undefined;
}

/** Reads a certificate, whose signature is not looked at. @returns undefined for what is none. */
export function readCertificate(der: Uint8Array): CertificateFacts | undefined {
  const whole = readElement(der, 0, der.length);
  if (whole === undefined || whole.tag !== TAG.SEQUENCE || whole.end !== der.length) return undefined;
  const [signed, algorithm, signature, ...more] = childrenOf(der, whole, 3) ?? [];
  if (signed?.tag !== TAG.SEQUENCE || algorithm?.tag !== TAG.SEQUENCE || signature?.tag !== TAG.BIT_STRING) {
    return undefined;
  }
  const fields = childrenOf(der, signed, FIELDS_MAX);
  if (fields === undefined || more.length > 0) return undefined;
  if (fields[0]?.tag === TAG.CONTEXT_0) fields.shift(); // The version; a first one has none.
  const [serial, inner, issuer, validity, subject, publicKey, ...rest] = fields;
  if (serial?.tag !== TAG.INTEGER || serial.end === serial.contents) return undefined;
  if ([inner, issuer, validity, subject, publicKey].some((it) => it?.tag !== TAG.SEQUENCE)) return undefined;
  const [from, until] = childrenOf(der, validity!, 2) ?? [];
  const notBeforeMs = timeOf(der, from), notAfterMs = timeOf(der, until);
  if (notBeforeMs === undefined || notAfterMs === undefined) return undefined;
  const extensions = rest.find(({ tag }) => tag === TAG.CONTEXT_3);
  const uri = extensions === undefined ? undefined : uriOf(der, extensions);
  if (uri === "malformed") return undefined;
  const number = der.subarray(serial.contents, serial.end);
  return {
    serial: hexOf(number[0] === 0 && number.length > 1 ? number.subarray(1) : number),
    notBeforeMs,
    notAfterMs,
    publicKey: der.slice(publicKey!.start, publicKey!.end),
    uri: uri?.text,
  };
}

function uriOf(der: Uint8Array, extensions: Element): { readonly text: string | undefined } | "malformed" {
  const list = readElement(der, extensions.contents, extensions.end);
  const each = list?.tag === TAG.SEQUENCE ? childrenOf(der, list, EXTENSIONS_MAX) : undefined;
  if (each === undefined) return "malformed";
  for (const extension of each) {
    const parts = childrenOf(der, extension, 3), id = parts?.[0], value = parts?.at(-1);
    if (id === undefined || value?.tag !== TAG.OCTET_STRING) return "malformed";
    if (!sameBytes(der.subarray(id.start, id.end), SUBJECT_ALTERNATIVE_NAME)) continue;
    const names = readElement(der, value.contents, value.end);
    const all = names?.tag === TAG.SEQUENCE ? childrenOf(der, names, NAMES_MAX) : undefined;
    if (all === undefined || names!.end !== value.end) return "malformed";
    const first = all.find(({ tag }) => tag === URI);
    return { text: first && new TextDecoder().decode(der.subarray(first.contents, first.end)) };
  }
  return { text: undefined };
}

function childrenOf(der: Uint8Array, { contents, end }: Element, countMax: number): Element[] | undefined {
  return readElements(der, contents, end, countMax);
}

/** RFC 5280 §4.1.2.5: `YYMMDDhhmmssZ`, or with four digits of a year. */
function timeOf(der: Uint8Array, field: Element | undefined): number | undefined {
  if (field === undefined) return undefined;
  const digits = new TextDecoder().decode(der.subarray(field.contents, field.end));
  const short = field.tag === TAG.UTC_TIME;
  if (!short && field.tag !== TAG.GENERALIZED_TIME) return undefined;
  const full = short ? `${Number(digits.slice(0, 2)) < 50 ? "20" : "19"}${digits}` : digits;
  const parts = /^(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)Z$/.exec(full);
  if (parts === null) return undefined;
  const [, year, month, day, hour, minute, second] = parts;
  const ms = Date.parse(`${year}-${month}-${day}T${hour}:${minute}:${second}Z`);
  return Number.isNaN(ms) ? undefined : ms;
}

function hexOf(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export function sameBytes(left: Uint8Array, right: Uint8Array): boolean {
  return left.length === right.length && left.every((byte, at) => byte === right[at]);
}
