/** Certificates that nobody may call with any more: those on the revocation lists that we hand on (CP-511, RFC 5280 §5.1). */
import { type Element, readElement, readElements, TAG } from "./der.ts";
import { derOf, pemBlocks } from "./pem.ts";

const FIELDS_MAX = 16;
const ENTRIES_MAX = 100_000; // more than a list of the longest text that is handed on can hold

export class RevokedCertificates {
  /** Numbers in hexadecimal, by the name of who issued them, in hexadecimal. */
  #numbers: ReadonlyMap<string, ReadonlySet<string>> = new Map();

  /**
   * Takes other lists in place of those there are. Who signed them is not asked: they are the operator's own files, and
   * an entry too many refuses more, not less. @returns Whether all can be read; nothing is taken otherwise.
   */
  take(pem: string): boolean {
    const numbers = new Map<string, Set<string>>();
    for (const block of pemBlocks(pem)) {
      const der = derOf(block), list = der && listIn(der);
      if (list === undefined) return false;
      const known = numbers.get(list.issuer) ?? new Set();
      for (const number of list.numbers) known.add(number);
      numbers.set(list.issuer, known);
    }
    this.#numbers = numbers;
    return true;
  }

  /** The number of the first of these certificates, in DER, that is revoked. */
  firstOf(chain: readonly Uint8Array[]): string | undefined {
    if (this.#numbers.size === 0) return undefined;
    for (const der of chain) {
      const { issuer, number } = namesIn(der);
      if (this.#numbers.get(issuer)?.has(number) === true) return number;
    }
    return undefined;
  }
}

/** What was read as a certificate has both. */
function namesIn(der: Uint8Array): { issuer: string; number: string } {
  const fields = signedFields(der) ?? [];
  const [number, , issuer] = fields[0]?.tag === TAG.CONTEXT_0 ? fields.slice(1) : fields;
  return { issuer: issuer === undefined ? "" : hex(der, issuer), number: number === undefined ? "" : hex(der, number) };
}

function listIn(der: Uint8Array): { issuer: string; numbers: string[] } | undefined {
  const fields = signedFields(der);
  if (fields === undefined) return undefined;
  const [, issuer, , ...rest] = fields[0]?.tag === TAG.INTEGER ? fields.slice(1) : fields; // Version; then the algorithm.
  if (issuer?.tag !== TAG.SEQUENCE || fields.length < 3) return undefined;
  const whole = rest.find(({ tag }) => tag === TAG.SEQUENCE); // After the times, which are none; what follows is [0].
  const entries = whole === undefined ? [] : readElements(der, whole.contents, whole.end, ENTRIES_MAX);
  const numbers: string[] = [];
  for (const entry of entries ?? []) {
    const number = readElement(der, entry.contents, entry.end);
    if (entry.tag !== TAG.SEQUENCE || number?.tag !== TAG.INTEGER) return undefined;
    numbers.push(hex(der, number));
  }
  return entries === undefined ? undefined : { issuer: hex(der, issuer), numbers };
}

/** The fields of what is signed: of a certificate as of a list the first of three parts. */
function signedFields(der: Uint8Array): Element[] | undefined {
  const whole = readElement(der, 0, der.length);
  if (whole?.tag !== TAG.SEQUENCE || whole.end !== der.length) return undefined;
  const [signed, algorithm, signature] = readElements(der, whole.contents, whole.end, 3) ?? [];
  if (signed?.tag !== TAG.SEQUENCE || algorithm?.tag !== TAG.SEQUENCE || signature?.tag !== TAG.BIT_STRING) {
    return undefined;
  }
  return readElements(der, signed.contents, signed.end, FIELDS_MAX);
}

function hex(bytes: Uint8Array, { contents, end }: Element): string {
  return bytes.subarray(contents, end).toHex();
}
