/** The `traceparent` header (W3C Trace Context): an id that ties the log lines of both ends together (ZT-058). */

const PATTERN = /^([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})$/;

export interface Traceparent {
  /** 32 hex digits. */
  readonly traceId: string;
  /** 16 hex digits. */
  readonly spanId: string;
}

/** Writes an id of six random words of 32 bits: four for the trace, two for the span. Not sampled: no spans are exported. */
export function formatTraceparent(
  word0: number,
  word1: number,
  word2: number,
  word3: number,
  word4: number,
  word5: number,
): string {
  return `00-${hex(word0)}${hex(word1)}${hex(word2)}${hex(word3)}-${hex(word4)}${hex(word5)}-00`;
}

/** Reads what {@link formatTraceparent} writes, of any version but ff. @returns undefined for anything else, and for ids of zero. */
export function parseTraceparent(text: string): Traceparent | undefined {
  const match = PATTERN.exec(text);
  if (match === null || match[1] === "ff") return undefined;
  const traceId = match[2]!, spanId = match[3]!;
  return /[1-9a-f]/.test(traceId) && /[1-9a-f]/.test(spanId) ? { traceId, spanId } : undefined;
}

// One is made for each connection: a look-up costs a fifth of what the platform's conversion does.
const HEX = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, "0"));

function hex(word: number): string {
  return HEX[word >>> 24]! + HEX[word >>> 16 & 0xff]! + HEX[word >>> 8 & 0xff]! + HEX[word & 0xff]!;
}
