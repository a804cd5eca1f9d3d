/** Big-endian integers in bytes, as the protocols write them. Callers have checked that the bytes are there. */

/** Reads 16 bits. */
export function readUint16(bytes: Uint8Array, at: number): number {
  return (bytes[at]! << 8) | bytes[at + 1]!;
}

/** Reads 24 bits. */
export function readUint24(bytes: Uint8Array, at: number): number {
  return (bytes[at]! << 16) | (bytes[at + 1]! << 8) | bytes[at + 2]!;
}

/** Reads 32 bits and drops the first, which RFC 9113 §4.1 reserves in stream ids and window increments. */
export function readUint31(bytes: Uint8Array, at: number): number {
  return ((bytes[at]! & 0x7f) << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!;
}

/** Reads 32 bits, unsigned. */
export function readUint32(bytes: Uint8Array, at: number): number {
  return ((bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!) >>> 0;
}

/** Writes the low 16 bits of `value`. @returns The position after them. */
export function writeUint16(target: Uint8Array, at: number, value: number): number {
  target[at] = value >>> 8;
  target[at + 1] = value;
  return at + 2;
}

/** Writes the low 24 bits of `value`. @returns The position after them. */
export function writeUint24(target: Uint8Array, at: number, value: number): number {
  target[at] = value >>> 16;
  target[at + 1] = value >>> 8;
  target[at + 2] = value;
  return at + 3;
}

/** Writes the low 32 bits of `value`. @returns The position after them. */
export function writeUint32(target: Uint8Array, at: number, value: number): number {
  target[at] = value >>> 24;
  target[at + 1] = value >>> 16;
  target[at + 2] = value >>> 8;
  target[at + 3] = value;
  return at + 4;
}

/** Copies `source[start..end)`. A loop where the bytes are few, since a native copy costs more than it saves. @returns The position after them. */
export function copyBytes(target: Uint8Array, at: number, source: Uint8Array, start: number, end: number): number {
  if (end - start > 64) {
    target.set(source.subarray(start, end), at);
    return at + end - start;
  }
  while (start < end) target[at++] = source[start++]!;
  return at;
}

/** Whether `bytes[start..end)` is exactly `text`, byte for byte. `text` must be ASCII. */
export function equalsAscii(bytes: Uint8Array, start: number, end: number, text: string): boolean {
  if (end - start !== text.length) return false;
  for (let at = 0; at < text.length; at++) if (bytes[start + at] !== text.charCodeAt(at)) return false;
  return true;
}
