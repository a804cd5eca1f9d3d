/** Texts of header fields, as bytes of Latin-1; nothing in the mesh is longer than the bound. */

const TEXT_BYTES_MAX = 4096;

/** The text that lies in `bytes[start..end)`, cut at 4 KiB. */
export function textOf(bytes: Uint8Array, start: number, end: number): string {
  if (start === end) return "";
  // Spread they would be walked one by one, which takes six times as long.
  return Reflect.apply(String.fromCharCode, null, bytes.subarray(start, Math.min(end, start + TEXT_BYTES_MAX)));
}
