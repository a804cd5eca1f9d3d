/** Domain names: on the wire as labels (RFC 1035 §3.1, §4.1.4), in the program as lower-case text without closing dot. */

/** A label's most bytes. */
export const LABEL_BYTES_MAX = 63;
/** A name's most bytes on the wire, its length bytes and the closing zero included. */
export const NAME_BYTES_MAX = 255;

const POINTER = 0xc0;
/** Longer text would not fit: each label costs its length byte where text has a dot, and the ends cost two. */
const TEXT_LENGTH_MAX = NAME_BYTES_MAX - 2;

/**
 * Skips a name, which may end in a pointer to an earlier place. Pointers are not followed, so that no name can make us
 * work more than its own bytes. @returns Where what follows begins, or -1 if it is malformed or ends too late.
 */
export function skipName(bytes: Uint8Array, at: number): number {
  const start = at;
  while (at < bytes.length) {
    const length = bytes[at]!;
    if (length === 0) return at + 1 - start > NAME_BYTES_MAX ? -1 : at + 1;
    if ((length & POINTER) === POINTER) {
      if (at + 2 > bytes.length || (((length & ~POINTER) << 8) | bytes[at + 1]!) >= start) return -1;
      return at + 2;
    }
    if (length > LABEL_BYTES_MAX) return -1;
    at += length + 1;
    if (at - start >= NAME_BYTES_MAX) return -1;
  }
  return -1;
}

/**
 * The text of an uncompressed name. @returns undefined when a label has a byte that text could not hold without doubt:
 * a dot, or what is no visible ASCII. Such a name is nobody's hostname.
 */
export function nameText(bytes: Uint8Array, at: number): string | undefined {
  let text = "";
  for (let length = bytes[at]!; length !== 0; length = bytes[at]!) {
    if (length > LABEL_BYTES_MAX || at + length + 1 >= bytes.length) return undefined;
    if (text !== "") text += ".";
    const end = at + length;
    while (at < end) {
      const byte = lowerCase(bytes[++at]!);
      if (byte <= 0x20 || byte >= 0x7f || byte === 0x2e) return undefined;
      text += String.fromCharCode(byte);
    }
    at++;
  }
  return text;
}

/** Lower-case text without closing dot. @returns undefined if no name on the wire can say it. */
export function parseName(text: string): string | undefined {
  const name = text.toLowerCase().replace(/\.$/, "");
  if (name.length > TEXT_LENGTH_MAX || !/^[\x21-\x7e]*$/.test(name)) return undefined;
  if (name === "") return name;
  return name.split(".").every((label) => label !== "" && label.length <= LABEL_BYTES_MAX) ? name : undefined;
}

/** Whether two stretches of equal length are the same but for the case of ASCII letters (RFC 4343 §3). */
export function equalsWithoutCase(one: Uint8Array, other: Uint8Array): boolean {
  if (one.length !== other.length) return false;
  for (let at = 0; at < one.length; at++) if (lowerCase(one[at]!) !== lowerCase(other[at]!)) return false;
  return true;
}

/** A byte, in lower case if it is an ASCII letter. */
export function lowerCase(byte: number): number {
  return byte >= 0x41 && byte <= 0x5a ? byte + 0x20 : byte;
}
