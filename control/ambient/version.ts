/** Versions of resources: a hash of their bytes, equal on every replica (CP-200). */

/** FNV-1a with 64 bits, as 16 lower-case hex digits. */
export function versionOf(bytes: Uint8Array): string {
  let high = 0xcbf29ce4, low = 0x84222325;
  for (let at = 0; at < bytes.length; at++) {
    low = (low ^ bytes[at]!) >>> 0;
    // Times the prime 2^40 + 0x1b3, by halves: each product stays below 2^42 and so is exact.
    const product = low * 0x1b3;
    high = (high * 0x1b3 + Math.floor(product / 0x1_0000_0000) + low * 0x100) % 0x1_0000_0000;
    low = product >>> 0;
  }
  return (high >>> 0).toString(16).padStart(8, "0") + low.toString(16).padStart(8, "0");
}
