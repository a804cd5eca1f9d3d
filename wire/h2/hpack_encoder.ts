/** Writes the header blocks of HBONE (RFC 7541 §6): literals without indexing, so that no state is shared and none can be lost. */
import { assert } from "../../base/assert.ts";

/** The block does not fit the target. Nothing of it is valid. */
export const DOES_NOT_FIT = -1;
/** A value holds what a field may not (RFC 9113 §8.2.1, and anything beyond ASCII). Nothing of the block is valid. */
export const BAD_VALUE = -2;

// Names in the static table (RFC 7541 Appendix A).
const INDEX_AUTHORITY = 1, INDEX_METHOD = 2, INDEX_STATUS_200 = 8, INDEX_STATUS_400 = 12, INDEX_STATUS_404 = 13;
const INDEX_STATUS_500 = 14;

/** An integer below a prefix that the caller gives set or clear (RFC 7541 §5.1). @returns The position after it, or negative. */
function writeInteger(target: Uint8Array, at: number, pattern: number, prefixBits: number, value: number): number {
  if (at < 0) return at;
  const mask = (1 << prefixBits) - 1;
  if (at + 5 > target.length) return DOES_NOT_FIT;
  if (value < mask) {
    target[at] = pattern | value;
    return at + 1;
  }
  target[at++] = pattern | mask;
  for (value -= mask; value >= 0x80; value >>>= 7) target[at++] = 0x80 | (value & 0x7f);
  target[at] = value;
  return at + 1;
}

/** Octets of {@link writeNoTable}. */
export const NO_TABLE_BYTES = 1;

/** Says that the encoder's table is empty and stays so (RFC 7541 §6.3): at the beginning of a block. @returns The position after it. */
export function writeNoTable(target: Uint8Array, at: number): number {
  assert(at + NO_TABLE_BYTES <= target.length, "the target has room for it");
  target[at] = 0x20;
  return at + NO_TABLE_BYTES;
}

function writeString(target: Uint8Array, at: number, text: string): number {
  assert(text.length < 1 << 20, "no field of ours is near a mebibyte");
  at = writeInteger(target, at, 0, 7, text.length);
  if (at < 0) return at;
  if (at + text.length > target.length) return DOES_NOT_FIT;
  for (let index = 0; index < text.length; index++) {
    const unit = text.charCodeAt(index);
    if ((unit < 0x20 && unit !== 0x09) || unit > 0x7e) return BAD_VALUE;
    target[at + index] = unit;
  }
  return at + text.length;
}

/**
 * Writes one field as a literal without indexing (RFC 7541 §6.2.2), its name in full and in lower case.
 * @returns The position after it; DOES_NOT_FIT or BAD_VALUE; or `at` itself if that is already one of them.
 */
export function writeField(target: Uint8Array, at: number, name: string, value: string): number {
  return writeString(target, writeString(target, writeInteger(target, at, 0, 4, 0), name), value);
}

function writeIndexedName(target: Uint8Array, at: number, nameIndex: number, value: string): number {
  return writeString(target, writeInteger(target, at, 0, 4, nameIndex), value);
}

/**
 * Writes the request that opens a tunnel: `:method: CONNECT`, `:authority`, and the three fields that go with it
 * (ZT-052, ZT-054). @param forwardedNetwork `x-forwarded-network`, said on the inner level of double HBONE alone; may be empty.
 * @returns The position after it, DOES_NOT_FIT, or BAD_VALUE.
 */
export function writeConnectBlock(
  target: Uint8Array,
  at: number,
  authority: string,
  baggage: string,
  forwarded: string,
  traceparent: string,
  forwardedNetwork?: string,
): number {
  at = writeIndexedName(target, at, INDEX_METHOD, "CONNECT");
  at = writeIndexedName(target, at, INDEX_AUTHORITY, authority);
  at = writeField(target, at, "baggage", baggage);
  at = writeField(target, at, "forwarded", forwarded);
  at = writeField(target, at, "traceparent", traceparent);
  return forwardedNetwork === undefined ? at : writeField(target, at, "x-forwarded-network", forwardedNetwork);
}

/**
 * Writes a response: `:status` and, unless empty, `baggage` (ZT-059, ZT-060).
 * @returns The position after it, DOES_NOT_FIT, or BAD_VALUE.
 */
export function writeResponseBlock(target: Uint8Array, at: number, status: number, baggage: string): number {
  assert(status >= 200 && status <= 599, "a final status of three digits");
  if (status === 200) at = writeInteger(target, at, 0x80, 7, INDEX_STATUS_200);
  else if (status === 400) at = writeInteger(target, at, 0x80, 7, INDEX_STATUS_400);
  else if (status === 404) at = writeInteger(target, at, 0x80, 7, INDEX_STATUS_404);
  else if (status === 500) at = writeInteger(target, at, 0x80, 7, INDEX_STATUS_500);
  else at = writeIndexedName(target, at, INDEX_STATUS_200, String(status));
  return baggage === "" ? at : writeField(target, at, "baggage", baggage);
}
