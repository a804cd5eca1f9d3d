/** DER (X.690): what certificates and certificate requests are written in. Reads strictly, and writes what it is told. */

export const TAG = Object.freeze({
  BOOLEAN: 0x01,
  INTEGER: 0x02,
  BIT_STRING: 0x03,
  OCTET_STRING: 0x04,
  OBJECT_IDENTIFIER: 0x06,
  UTF8_STRING: 0x0c,
  UTC_TIME: 0x17,
  GENERALIZED_TIME: 0x18,
  SEQUENCE: 0x30,
  SET: 0x31,
  /** `[0]`, `[3]`, constructed. */
  CONTEXT_0: 0xa0,
  CONTEXT_3: 0xa3,
});

/** An element that was read: where it begins, where its contents begin, where it ends. */
export interface Element {
  readonly tag: number;
  readonly start: number;
  readonly contents: number;
  readonly end: number;
}

const LENGTH_BYTES_MAX = 3; // 16 MiB, more than anybody sends

/** Reads the element at `at`, which must end by `end`. @returns undefined if it is not DER: cut off, of no fixed length, or padded. */
export function readElement(bytes: Uint8Array, at: number, end: number): Element | undefined {
  if (at + 2 > end) return undefined;
  const tag = bytes[at]!, first = bytes[at + 1]!;
  if ((tag & 0x1f) === 0x1f) return undefined; // A tag of several bytes: nothing here has one.
  if (first < 0x80) return within({ tag, start: at, contents: at + 2, end: at + 2 + first }, end);
  const lengthBytes = first & 0x7f;
  if (lengthBytes === 0 || lengthBytes > LENGTH_BYTES_MAX || at + 2 + lengthBytes > end) return undefined;
  let length = 0;
  for (let byte = 0; byte < lengthBytes; byte++) length = length * 256 + bytes[at + 2 + byte]!;
  if (length < 0x80 || length < 256 ** (lengthBytes - 1)) return undefined; // X.690 §10.1: the shortest form.
  const contents = at + 2 + lengthBytes;
  return within({ tag, start: at, contents, end: contents + length }, end);
}

function within(element: Element, end: number): Element | undefined {
  return element.end <= end ? element : undefined;
}

/** Reads elements that fill `start` to `end`. @returns undefined if they do not, or are more than `countMax`. */
export function readElements(bytes: Uint8Array, start: number, end: number, countMax: number): Element[] | undefined {
  const elements: Element[] = [];
  for (let at = start; at < end;) {
    const element = readElement(bytes, at, end);
    if (element === undefined || elements.length === countMax) return undefined;
    elements.push(element);
    at = element.end;
  }
  return elements;
}

/** Writes an element around these contents. */
export function element(tag: number, ...parts: readonly Uint8Array[]): Uint8Array {
  let length = 0;
  for (const part of parts) length += part.length;
  const lengthBytes = length < 0x80 ? 0 : length < 0x100 ? 1 : length < 0x10000 ? 2 : 3;
  const out = new Uint8Array(2 + lengthBytes + length);
  out[0] = tag;
  out[1] = lengthBytes === 0 ? length : 0x80 | lengthBytes;
  for (let byte = 0; byte < lengthBytes; byte++) out[2 + byte] = length >>> (8 * (lengthBytes - 1 - byte));
  let at = 2 + lengthBytes;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

export function sequence(...parts: readonly Uint8Array[]): Uint8Array {
  return element(TAG.SEQUENCE, ...parts);
}

/** A number of any size that is not negative, from its big-endian bytes. */
export function unsigned(bytes: Uint8Array): Uint8Array {
  let at = 0;
  while (at < bytes.length - 1 && bytes[at] === 0) at++;
  const rest = bytes.subarray(at);
  return (rest[0] ?? 0) & 0x80 ? element(TAG.INTEGER, ZERO, rest) : element(TAG.INTEGER, rest);
}

const ZERO = Uint8Array.of(0);

/** A bit string of whole bytes. */
export function bitString(bytes: Uint8Array): Uint8Array {
  return element(TAG.BIT_STRING, ZERO, bytes);
}

export function octetString(...parts: readonly Uint8Array[]): Uint8Array {
  return element(TAG.OCTET_STRING, ...parts);
}

/** An object identifier from its dotted form. */
export function objectIdentifier(dotted: string): Uint8Array {
  const [first = 0, second = 0, ...rest] = dotted.split(".").map(Number);
  const bytes: number[] = [];
  for (const arc of [first * 40 + second, ...rest]) {
    const septets = [arc & 0x7f];
    for (let left = Math.floor(arc / 128); left > 0; left = Math.floor(left / 128)) septets.unshift(left & 0x7f | 0x80);
    bytes.push(...septets);
  }
  return element(TAG.OBJECT_IDENTIFIER, Uint8Array.from(bytes));
}

const encoder = new TextEncoder();

/** Text in an element of that tag, as UTF-8. */
export function text(tag: number, value: string): Uint8Array {
  return element(tag, encoder.encode(value));
}

/** A moment as certificates have it (RFC 5280 §4.1.2.5): two digits of a year until 2049, four from then on; whole seconds. */
export function time(ms: number): Uint8Array {
  const digits = new Date(ms).toISOString().replace(/[-:T]|\.\d+/g, "");
  return digits < "2050" ? text(TAG.UTC_TIME, digits.slice(2)) : text(TAG.GENERALIZED_TIME, digits);
}
