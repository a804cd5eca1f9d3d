/**
 * Short ASCII texts of messages. A mesh says the same few names (namespaces, nodes, clusters, services) ten thousand
 * times: one that was read lately is found again by its bytes, so that it is made and kept once.
 */
import { assert } from "./assert.ts";

/** Names and addresses are short; above this the decoder of the platform is faster. */
export const SHORT_TEXT_BYTES = 64;
const SLOTS = 4096; // At most 256 KiB a thread; a slot belongs to the text that was read last.
const PRIME = 0x01000193, BASIS = 0x811c9dc5 | 0; // FNV-1a

const lately: string[] = new Array<string>(SLOTS).fill("");
const codes = Array.from({ length: SHORT_TEXT_BYTES + 1 }, (_, length) => new Array<number>(length).fill(0));

/** The text of bytes [start, end). @returns undefined if it is not ASCII. */
export function readShortText(bytes: Uint8Array, start: number, end: number): string | undefined {
  const length = end - start;
  assert(length <= SHORT_TEXT_BYTES, "a short text is short");
  let hash = BASIS;
  for (let at = start; at < end; at++) {
    const byte = bytes[at]!;
    if (byte >= 0x80) return undefined;
    hash = Math.imul(hash ^ byte, PRIME);
  }
  const slot = (hash ^ hash >>> 15) & SLOTS - 1, known = lately[slot]!;
  if (known.length === length && isText(known, bytes, start)) return known;
  const units = codes[length]!;
  for (let at = 0; at < length; at++) units[at] = bytes[start + at]!;
  return lately[slot] = String.fromCharCode.apply(null, units); // Flat; added up it would be a tree of its parts.
}

function isText(text: string, bytes: Uint8Array, start: number): boolean {
  for (let at = 0; at < text.length; at++) if (text.charCodeAt(at) !== bytes[start + at]) return false;
  return true;
}
