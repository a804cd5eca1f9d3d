/** What RFC 9113 §8.2 asks of every field, before anyone looks at what it means. */
import { equalsAscii } from "../bytes.ts";
import { HeaderName } from "./header_names.ts";

const COLON = 0x3a;

/** By octet: 1 where a field name may not hold it (RFC 9113 §8.2.1: controls, space, upper case, colon, not ASCII). */
const BAD_IN_NAME = new Uint8Array(256);
for (let octet = 0; octet < 256; octet++) {
  const bad = octet <= 0x20 || (octet >= 0x41 && octet <= 0x5a) || octet >= 0x7f || octet === COLON;
  BAD_IN_NAME[octet] = bad ? 1 : 0;
}

function nameIsWell(bytes: Uint8Array, start: number, end: number): boolean {
  if (start === end) return false;
  for (let at = start; at < end; at++) if (BAD_IN_NAME[bytes[at]!] === 1) return false;
  return true;
}

/** RFC 9113 §8.2.1: no NUL, LF, CR anywhere; no space or tab at either end. */
function valueIsWell(bytes: Uint8Array, start: number, end: number): boolean {
  if (start === end) return true;
  const first = bytes[start]!, last = bytes[end - 1]!;
  if (first === 0x20 || first === 0x09 || last === 0x20 || last === 0x09) return false;
  for (let at = start; at < end; at++) {
    const octet = bytes[at]!;
    if (octet === 0x00 || octet === 0x0a || octet === 0x0d) return false;
  }
  return true;
}

/** Whether a HeaderName is a pseudo-header's (RFC 9113 §8.3). */
export function isPseudo(name: number): boolean {
  return name >= HeaderName.METHOD && name <= HeaderName.OTHER_PSEUDO;
}

/** Whether the field may be part of a message at all: legal octets, and not specific to a connection (RFC 9113 §8.2.2). */
export function fieldIsWell(
  name: number,
  nameBytes: Uint8Array,
  nameStart: number,
  nameEnd: number,
  valueBytes: Uint8Array,
  valueStart: number,
  valueEnd: number,
): boolean {
  if (!valueIsWell(valueBytes, valueStart, valueEnd)) return false;
  if (isPseudo(name)) return true; // Unknown ones are refused by whoever knows which are known.
  if (name >= HeaderName.CONNECTION && name <= HeaderName.UPGRADE) return false;
  if (name === HeaderName.TE) return equalsAscii(valueBytes, valueStart, valueEnd, "trailers");
  return name !== HeaderName.OTHER || nameIsWell(nameBytes, nameStart, nameEnd);
}
