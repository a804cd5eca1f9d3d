/** Header names as numbers, and the static table of HPACK as flat bytes (RFC 7541 Appendix A). */
import { equalsAscii } from "../bytes.ts";

/** The names that HBONE or RFC 9113 §8 give a meaning. Every other name is OTHER, or OTHER_PSEUDO if it starts with a colon. */
export const HeaderName = {
  OTHER: 0,
  METHOD: 1,
  AUTHORITY: 2,
  SCHEME: 3,
  PATH: 4,
  STATUS: 5,
  PROTOCOL: 6,
  OTHER_PSEUDO: 7,
  BAGGAGE: 8,
  FORWARDED: 9,
  TRACEPARENT: 10,
  X_FORWARDED_NETWORK: 11,
  CONNECTION: 12,
  KEEP_ALIVE: 13,
  PROXY_CONNECTION: 14,
  TRANSFER_ENCODING: 15,
  UPGRADE: 16,
  TE: 17,
} as const;
export type HeaderName = (typeof HeaderName)[keyof typeof HeaderName];

const KNOWN: readonly (readonly [string, HeaderName])[] = [
  [":method", HeaderName.METHOD],
  [":authority", HeaderName.AUTHORITY],
  [":scheme", HeaderName.SCHEME],
  [":path", HeaderName.PATH],
  [":status", HeaderName.STATUS],
  [":protocol", HeaderName.PROTOCOL],
  ["baggage", HeaderName.BAGGAGE],
  ["forwarded", HeaderName.FORWARDED],
  ["traceparent", HeaderName.TRACEPARENT],
  ["x-forwarded-network", HeaderName.X_FORWARDED_NETWORK],
  ["connection", HeaderName.CONNECTION],
  ["keep-alive", HeaderName.KEEP_ALIVE],
  ["proxy-connection", HeaderName.PROXY_CONNECTION],
  ["transfer-encoding", HeaderName.TRANSFER_ENCODING],
  ["upgrade", HeaderName.UPGRADE],
  ["te", HeaderName.TE],
];

const COLON = 0x3a;

/** The number of the name `bytes[start..end)`. Exact: an upper-case spelling is OTHER, and malformed besides. */
export function headerNameOf(bytes: Uint8Array, start: number, end: number): HeaderName {
  for (let at = 0; at < KNOWN.length; at++) if (equalsAscii(bytes, start, end, KNOWN[at]![0])) return KNOWN[at]![1];
  return start < end && bytes[start] === COLON ? HeaderName.OTHER_PSEUDO : HeaderName.OTHER;
}

/** RFC 7541 Appendix A; the first row is index 1. */
export const STATIC_TABLE: readonly (readonly [name: string, value: string])[] = [
  [":authority", ""],
  [":method", "GET"],
  [":method", "POST"],
  [":path", "/"],
  [":path", "/index.html"],
  [":scheme", "http"],
  [":scheme", "https"],
  [":status", "200"],
  [":status", "204"],
  [":status", "206"],
  [":status", "304"],
  [":status", "400"],
  [":status", "404"],
  [":status", "500"],
  ["accept-charset", ""],
  ["accept-encoding", "gzip, deflate"],
  ["accept-language", ""],
  ["accept-ranges", ""],
  ["accept", ""],
  ["access-control-allow-origin", ""],
  ["age", ""],
  ["allow", ""],
  ["authorization", ""],
  ["cache-control", ""],
  ["content-disposition", ""],
  ["content-encoding", ""],
  ["content-language", ""],
  ["content-length", ""],
  ["content-location", ""],
  ["content-range", ""],
  ["content-type", ""],
  ["cookie", ""],
  ["date", ""],
  ["etag", ""],
  ["expect", ""],
  ["expires", ""],
  ["from", ""],
  ["host", ""],
  ["if-match", ""],
  ["if-modified-since", ""],
  ["if-none-match", ""],
  ["if-range", ""],
  ["if-unmodified-since", ""],
  ["last-modified", ""],
  ["link", ""],
  ["location", ""],
  ["max-forwards", ""],
  ["proxy-authenticate", ""],
  ["proxy-authorization", ""],
  ["range", ""],
  ["referer", ""],
  ["refresh", ""],
  ["retry-after", ""],
  ["server", ""],
  ["set-cookie", ""],
  ["strict-transport-security", ""],
  ["transfer-encoding", ""],
  ["user-agent", ""],
  ["vary", ""],
  ["via", ""],
  ["www-authenticate", ""],
];

/** Names and values of the static table, one after the other. */
export const STATIC_BYTES: Uint8Array = Uint8Array.from(
  STATIC_TABLE.flat().join(""),
  (letter) => letter.charCodeAt(0),
);

/** By index (0 unused): where the name starts in STATIC_BYTES; its end is where the value starts. */
export const STATIC_NAME_START: Uint16Array = new Uint16Array(STATIC_TABLE.length + 1);
/** By index: where the value starts. */
export const STATIC_VALUE_START: Uint16Array = new Uint16Array(STATIC_TABLE.length + 1);
/** By index: where the value ends. */
export const STATIC_VALUE_END: Uint16Array = new Uint16Array(STATIC_TABLE.length + 1);
/** By index: the HeaderName. */
export const STATIC_NAME: Uint8Array = new Uint8Array(STATIC_TABLE.length + 1);

let position = 0;
for (const [row, [name, value]] of STATIC_TABLE.entries()) {
  STATIC_NAME_START[row + 1] = position;
  STATIC_VALUE_START[row + 1] = position += name.length;
  STATIC_VALUE_END[row + 1] = position += value.length;
  STATIC_NAME[row + 1] = headerNameOf(STATIC_BYTES, STATIC_NAME_START[row + 1]!, STATIC_VALUE_START[row + 1]!);
}
