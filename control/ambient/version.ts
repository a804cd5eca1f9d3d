/** Versions of resources: a hash of their bytes, equal on every replica (CP-200). */

/** FNV-1a with 64 bits, as 16 lower-case hex digits. */
export function versionOf(bytes: Uint8Array): string {
  let high = 0xcbf29ce4 | 0, low = 0x84222325 | 0;
  for (let at = 0; at < bytes.length; at++) {
    low ^= bytes[at]!;
    // Times the prime 2^40 + 0x1b3, in integers of 32 bits: the low half by its own halves, so that its carry is kept.
    const lower = (low & 0xffff) * 0x1b3, upper = (low >>> 16) * 0x1b3 + (lower >>> 16);
    high = (Math.imul(high, 0x1b3) + (upper >>> 16) + (low << 8)) | 0;
    low = (upper << 16) | (lower & 0xffff);
  }
  return (high >>> 0).toString(16).padStart(8, "0") + (low >>> 0).toString(16).padStart(8, "0");
}
