/**
 * Many resources of a DeltaDiscoveryResponse at once, in one piece: a first state is 100,000 of them. Written by hand, since
 * a writer and an array of its own for each would take longer than all the rest of the answer.
 */

/** What a resource says, its message encoded already. */
export interface EncodedMessage {
  readonly name: string;
  readonly version: string;
  readonly aliases: readonly string[];
  readonly bytes: Uint8Array;
}

// Tags: the field's number, length-delimited.
const RESOURCES = 0x12, VERSION = 0x0a, ANY = 0x12, NAME = 0x1a, ALIAS = 0x22, TYPE_URL = 0x0a, VALUE = 0x12;

function varintBytes(value: number): number {
  return value < 0x80 ? 1 : value < 0x4000 ? 2 : value < 0x20_0000 ? 3 : value < 0x1000_0000 ? 4 : 5;
}

/** The length of a length-delimited field with its tag. */
const fieldBytes = (length: number) => 1 + varintBytes(length) + length;

/** As UTF-8; a half of a pair that stands alone becomes U+FFFD, which is as long as itself would be. */
function utf8Bytes(text: string): number {
  let bytes = text.length;
  for (let at = 0; at < text.length; at++) {
    const unit = text.charCodeAt(at);
    if (unit < 0x80) continue;
    bytes += unit < 0x800 ? 1 : 2;
    const next = text.charCodeAt(at + 1);
    if (unit >= 0xd800 && unit < 0xdc00 && next >= 0xdc00 && next < 0xe000) at++; // Two units, four bytes.
  }
  return bytes;
}

const textBytes = (text: string) => text === "" ? 0 : fieldBytes(utf8Bytes(text));

/** Writes fields one after the other into a buffer that is just large enough. */
class FieldWriter {
  readonly bytes: Uint8Array;
  at = 0;
  readonly #encoder = new TextEncoder();

  constructor(size: number) {
    this.bytes = new Uint8Array(size);
  }

  head(tag: number, length: number): void {
    this.bytes[this.at++] = tag;
    let rest = length;
    for (; rest >= 0x80; rest = rest >>> 7) this.bytes[this.at++] = rest & 0x7f | 0x80;
    this.bytes[this.at++] = rest;
  }

  raw(tag: number, value: Uint8Array): void {
    if (value.length === 0) return;
    this.head(tag, value.length);
    this.bytes.set(value, this.at);
    this.at += value.length;
  }

  text(tag: number, text: string): void {
    if (text === "") return;
    const length = utf8Bytes(text);
    this.head(tag, length);
    if (length === text.length) {
      for (let at = 0; at < length; at++) this.bytes[this.at + at] = text.charCodeAt(at);
    } else this.#encoder.encodeInto(text, this.bytes.subarray(this.at));
    this.at += length;
  }
}

/** The `resources` fields of a DeltaDiscoveryResponse, all of one type. */
export function encodeResourceFields(resources: readonly EncodedMessage[], typeUrl: string): Uint8Array {
  const typeBytes = textBytes(typeUrl),
    anySizes = new Uint32Array(resources.length),
    sizes = new Uint32Array(resources.length);
  let total = 0;
  for (const [row, { name, version, aliases, bytes }] of resources.entries()) {
    const any = typeBytes + (bytes.length === 0 ? 0 : fieldBytes(bytes.length));
    let size = textBytes(version) + fieldBytes(any) + textBytes(name);
    for (const alias of aliases) size += fieldBytes(utf8Bytes(alias));
    anySizes[row] = any;
    sizes[row] = size;
    total += fieldBytes(size);
  }
  const writer = new FieldWriter(total);
  for (const [row, { name, version, aliases, bytes }] of resources.entries()) {
    writer.head(RESOURCES, sizes[row]!);
    writer.text(VERSION, version);
    writer.head(ANY, anySizes[row]!);
    writer.text(TYPE_URL, typeUrl);
    writer.raw(VALUE, bytes);
    writer.text(NAME, name);
    for (const alias of aliases) {
      if (alias === "") writer.head(ALIAS, 0); // Of a repeated field each counts.
      else writer.text(ALIAS, alias);
    }
  }
  return writer.bytes;
}
