/** How a gRPC call ends: the codes, and the trailers that say them (gRPC over HTTP/2, "Responses"). */
import { writeField } from "../h2/hpack_encoder.ts";

/** Status codes by name. */
export const Status = {
  OK: 0,
  CANCELLED: 1,
  UNKNOWN: 2,
  INVALID_ARGUMENT: 3,
  DEADLINE_EXCEEDED: 4,
  NOT_FOUND: 5,
  ALREADY_EXISTS: 6,
  PERMISSION_DENIED: 7,
  RESOURCE_EXHAUSTED: 8,
  FAILED_PRECONDITION: 9,
  ABORTED: 10,
  OUT_OF_RANGE: 11,
  UNIMPLEMENTED: 12,
  INTERNAL: 13,
  UNAVAILABLE: 14,
  DATA_LOSS: 15,
  UNAUTHENTICATED: 16,
} as const;
export type StatusName = keyof typeof Status;

/** Characters of a status message that are told; the rest is cut off. */
const MESSAGE_LENGTH_MAX = 1_024;
/** A field of ten octets, and a message whose every character is three octets of three each. */
const TRAILER_BYTES_MAX = 64 + 9 * MESSAGE_LENGTH_MAX;
const PERCENT = 0x25, SPACE = 0x20;

/** The header block of trailers: `grpc-status`, and `grpc-message` unless it is empty. */
export function trailerBlock(status: StatusName, message: string): Uint8Array {
  const target = new Uint8Array(TRAILER_BYTES_MAX);
  let end = writeField(target, 0, "grpc-status", String(Status[status]));
  if (message !== "") {
    end = writeField(target, end, "grpc-message", percentEncoded(message.slice(0, MESSAGE_LENGTH_MAX)));
  }
  return target.slice(0, end);
}

/** What a field can carry of a text: UTF-8, with `%XX` for what is not printable ASCII. Fields cannot begin or end with a space. */
export function percentEncoded(text: string): string {
  const bytes = new TextEncoder().encode(text);
  let encoded = "";
  for (const [at, byte] of bytes.entries()) {
    const edge = at === 0 || at === bytes.length - 1;
    const plain = byte > SPACE && byte < 0x7f ? byte !== PERCENT : byte === SPACE && !edge;
    encoded += plain ? String.fromCharCode(byte) : `%${byte.toString(16).toUpperCase().padStart(2, "0")}`;
  }
  return encoded;
}
