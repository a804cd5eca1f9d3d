/** HTTP/2 numbers, and what RFC 9113 §6 asks of each frame's header, as data. */

/** Octets of a frame header (RFC 9113 §4.1). */
export const FRAME_HEADER_BYTES = 9;

/** The payload limit that every endpoint starts with (RFC 9113 §6.5.2). */
export const PAYLOAD_BYTES_MAX_DEFAULT = 16_384;

/** No endpoint may announce more than this (RFC 9113 §6.5.2). */
export const PAYLOAD_BYTES_MAX_LIMIT = 16_777_215;

/** What a client sends before its first frame (RFC 9113 §3.4): `PRI * HTTP/2.0`, `SM`. */
export const CLIENT_PREFACE: Uint8Array = Uint8Array.from(
  "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
  (letter) => letter.charCodeAt(0),
);

/** Error codes (RFC 9113 §7). Codecs return them negated. */
export const H2Error = {
  NO_ERROR: 0x0,
  PROTOCOL_ERROR: 0x1,
  INTERNAL_ERROR: 0x2,
  FLOW_CONTROL_ERROR: 0x3,
  SETTINGS_TIMEOUT: 0x4,
  STREAM_CLOSED: 0x5,
  FRAME_SIZE_ERROR: 0x6,
  REFUSED_STREAM: 0x7,
  CANCEL: 0x8,
  COMPRESSION_ERROR: 0x9,
  CONNECT_ERROR: 0xa,
  ENHANCE_YOUR_CALM: 0xb,
  INADEQUATE_SECURITY: 0xc,
  HTTP_1_1_REQUIRED: 0xd,
} as const;
export type H2Error = (typeof H2Error)[keyof typeof H2Error];

/** Frame types (RFC 9113 §6). A greater number is an extension's, and is ignored (RFC 9113 §4.1). */
export const FrameType = {
  DATA: 0x0,
  HEADERS: 0x1,
  PRIORITY: 0x2,
  RST_STREAM: 0x3,
  SETTINGS: 0x4,
  PUSH_PROMISE: 0x5,
  PING: 0x6,
  GOAWAY: 0x7,
  WINDOW_UPDATE: 0x8,
  CONTINUATION: 0x9,
} as const;
export type FrameType = (typeof FrameType)[keyof typeof FrameType];

/** Flags; END_STREAM and ACK share a bit, on different frame types (RFC 9113 §6). */
export const FrameFlag = { END_STREAM: 0x1, ACK: 0x1, END_HEADERS: 0x4, PADDED: 0x8, PRIORITY: 0x20 } as const;

/** Settings (RFC 9113 §6.5.2, RFC 8441 §3). */
export const Setting = {
  HEADER_TABLE_SIZE: 0x1,
  ENABLE_PUSH: 0x2,
  MAX_CONCURRENT_STREAMS: 0x3,
  INITIAL_WINDOW_SIZE: 0x4,
  MAX_FRAME_SIZE: 0x5,
  MAX_HEADER_LIST_SIZE: 0x6,
  ENABLE_CONNECT_PROTOCOL: 0x8,
} as const;
export type Setting = (typeof Setting)[keyof typeof Setting];

interface FrameRule {
  readonly name: string;
  /** Whether it belongs to a stream (true), to the connection (false), or to either. */
  readonly stream: boolean | "either";
  readonly bytesMin: number;
  readonly bytesMax: number;
}

const ANY = PAYLOAD_BYTES_MAX_LIMIT;

/** What RFC 9113 §6 asks of each frame type; the index is the type. Checked before any payload is awaited. */
export const FRAME_RULES: readonly FrameRule[] = [
  { name: "DATA", stream: true, bytesMin: 0, bytesMax: ANY }, // §6.1
  { name: "HEADERS", stream: true, bytesMin: 0, bytesMax: ANY }, // §6.2
  { name: "PRIORITY", stream: true, bytesMin: 5, bytesMax: 5 }, // §6.3
  { name: "RST_STREAM", stream: true, bytesMin: 4, bytesMax: 4 }, // §6.4
  { name: "SETTINGS", stream: false, bytesMin: 0, bytesMax: ANY }, // §6.5; multiples of six, see readSettings
  { name: "PUSH_PROMISE", stream: true, bytesMin: 4, bytesMax: ANY }, // §6.6
  { name: "PING", stream: false, bytesMin: 8, bytesMax: 8 }, // §6.7
  { name: "GOAWAY", stream: false, bytesMin: 8, bytesMax: ANY }, // §6.8
  { name: "WINDOW_UPDATE", stream: "either", bytesMin: 4, bytesMax: 4 }, // §6.9
  { name: "CONTINUATION", stream: true, bytesMin: 0, bytesMax: ANY }, // §6.10
];

const STREAM = 1, CONNECTION = 2;
// The same rules as three words a type, so that the check of a frame reads one small array and no objects.
const RULE_WORDS = Int32Array.from(
  FRAME_RULES.flatMap((rule) => [
    rule.stream === "either" ? STREAM | CONNECTION : rule.stream ? STREAM : CONNECTION,
    rule.bytesMin,
    rule.bytesMax,
  ]),
);

/**
 * Checks a frame header against {@link FRAME_RULES} and the limit that we announced. Types beyond the table pass: they
 * are to be ignored. @returns 0, or an H2Error that ends the connection; RFC 9113 §5.4.2 lets us be that strict where
 * the stream alone is at fault.
 */
export function checkFrameHeader(
  type: number,
  streamId: number,
  payloadBytes: number,
  payloadBytesMax: number,
): H2Error {
  if (payloadBytes > payloadBytesMax) return H2Error.FRAME_SIZE_ERROR;
  if (type >= FRAME_RULES.length) return H2Error.NO_ERROR;
  const at = type * 3;
  if ((RULE_WORDS[at]! & (streamId === 0 ? CONNECTION : STREAM)) === 0) return H2Error.PROTOCOL_ERROR;
  if (payloadBytes < RULE_WORDS[at + 1]! || payloadBytes > RULE_WORDS[at + 2]!) return H2Error.FRAME_SIZE_ERROR;
  return H2Error.NO_ERROR;
}

/** The name of an error code, for logs. */
export function errorName(code: number): string {
  for (const [name, value] of Object.entries(H2Error)) if (value === code) return name;
  return `0x${code.toString(16)}`;
}
