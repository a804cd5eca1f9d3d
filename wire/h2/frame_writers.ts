/** Writes HTTP/2 frames into a buffer that the caller owns. Every writer returns the position after what it wrote. */
import { assert } from "../../base/assert.ts";
import { copyBytes, writeUint16, writeUint24, writeUint32 } from "../bytes.ts";
import { CLIENT_PREFACE, FRAME_HEADER_BYTES, FrameFlag, FrameType } from "./frame_rules.ts";

/** Writes a frame header (RFC 9113 §4.1). Bounds are asserted here, so for every writer below. */
export function writeFrameHeader(
  target: Uint8Array,
  at: number,
  payloadBytes: number,
  type: number,
  flags: number,
  streamId: number,
): number {
  assert(at + FRAME_HEADER_BYTES <= target.length, "the target has room for the frame's header");
  writeUint24(target, at, payloadBytes);
  target[at + 3] = type;
  target[at + 4] = flags;
  return writeUint32(target, at + 5, streamId);
}

function writeControlHeader(
  target: Uint8Array,
  at: number,
  payloadBytes: number,
  type: number,
  flags: number,
  streamId: number,
): number {
  assert(at + FRAME_HEADER_BYTES + payloadBytes <= target.length, "the target has room for the whole frame");
  return writeFrameHeader(target, at, payloadBytes, type, flags, streamId);
}

/** Writes what a client sends first (RFC 9113 §3.4). */
export function writeClientPreface(target: Uint8Array, at: number): number {
  assert(at + CLIENT_PREFACE.length <= target.length, "the target has room for the preface");
  return copyBytes(target, at, CLIENT_PREFACE, 0, CLIENT_PREFACE.length);
}

/** Writes the header of a DATA frame; the payload follows it in the same buffer, placed there by the caller. */
export function writeDataHeader(
  target: Uint8Array,
  at: number,
  streamId: number,
  payloadBytes: number,
  endStream: boolean,
): number {
  return writeFrameHeader(target, at, payloadBytes, FrameType.DATA, endStream ? FrameFlag.END_STREAM : 0, streamId);
}

/** Writes SETTINGS from pairs of identifier and value, one after the other (RFC 9113 §6.5.1). */
export function writeSettings(target: Uint8Array, at: number, pairs: readonly number[]): number {
  assert(pairs.length % 2 === 0, "settings come in pairs");
  at = writeControlHeader(target, at, pairs.length * 3, FrameType.SETTINGS, 0, 0);
  for (let index = 0; index < pairs.length; index += 2) {
    at = writeUint16(target, at, pairs[index]!);
    at = writeUint32(target, at, pairs[index + 1]!);
  }
  return at;
}

/** Writes the acknowledgement of the other side's SETTINGS (RFC 9113 §6.5.3). */
export function writeSettingsAck(target: Uint8Array, at: number): number {
  return writeControlHeader(target, at, 0, FrameType.SETTINGS, FrameFlag.ACK, 0);
}

/** Writes PING with its eight opaque octets given as two words (RFC 9113 §6.7). */
export function writePing(target: Uint8Array, at: number, word0: number, word1: number, ack: boolean): number {
  at = writeControlHeader(target, at, 8, FrameType.PING, ack ? FrameFlag.ACK : 0, 0);
  return writeUint32(target, writeUint32(target, at, word0), word1);
}

/** Writes WINDOW_UPDATE; stream 0 is the connection (RFC 9113 §6.9). */
export function writeWindowUpdate(target: Uint8Array, at: number, streamId: number, increment: number): number {
  assert(increment >= 1 && increment <= 0x7fffffff, "a window grows by 1 to 2^31-1");
  at = writeControlHeader(target, at, 4, FrameType.WINDOW_UPDATE, 0, streamId);
  return writeUint32(target, at, increment);
}

/** Writes RST_STREAM (RFC 9113 §6.4). */
export function writeRstStream(target: Uint8Array, at: number, streamId: number, error: number): number {
  assert(streamId !== 0, "the connection is not reset, it is told to go away");
  return writeUint32(target, writeControlHeader(target, at, 4, FrameType.RST_STREAM, 0, streamId), error);
}

const NO_BYTES = new Uint8Array(0);

/** Writes GOAWAY (RFC 9113 §6.8). @param debugData for people, and for clients that know its words. */
export function writeGoaway(
  target: Uint8Array,
  at: number,
  lastStreamId: number,
  error: number,
  debugData: Uint8Array = NO_BYTES,
): number {
  at = writeControlHeader(target, at, 8 + debugData.length, FrameType.GOAWAY, 0, 0);
  at = writeUint32(target, writeUint32(target, at, lastStreamId), error);
  return copyBytes(target, at, debugData, 0, debugData.length);
}

/**
 * Writes a header block as HEADERS and, where it exceeds `payloadBytesMax` (what the other side takes), CONTINUATION
 * frames (RFC 9113 §6.2, §6.10). `target` must not overlap the block.
 * @returns The position after the last frame, or -1 if `target` has not the room; nothing of it is valid then.
 */
export function writeHeaders(
  target: Uint8Array,
  at: number,
  streamId: number,
  block: Uint8Array,
  blockStart: number,
  blockEnd: number,
  endStream: boolean,
  payloadBytesMax: number,
): number {
  const frameCount = Math.max(1, Math.ceil((blockEnd - blockStart) / payloadBytesMax));
  if (at + frameCount * FRAME_HEADER_BYTES + blockEnd - blockStart > target.length) return -1;
  let type: number = FrameType.HEADERS, flags = endStream ? FrameFlag.END_STREAM : 0;
  do {
    const end = Math.min(blockEnd, blockStart + payloadBytesMax);
    if (end === blockEnd) flags |= FrameFlag.END_HEADERS;
    at = writeFrameHeader(target, at, end - blockStart, type, flags, streamId);
    at = copyBytes(target, at, block, blockStart, end);
    blockStart = end;
    type = FrameType.CONTINUATION;
    flags = 0;
  } while (blockStart < blockEnd);
  return at;
}
