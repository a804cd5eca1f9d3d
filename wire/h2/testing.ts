/** What the tests of this folder share: hexadecimal, a header sink that keeps texts, frames of every kind, a seeded generator. */
import { readUint24, readUint31 } from "../bytes.ts";
import { FRAME_HEADER_BYTES, FrameFlag, FrameType } from "./frame_rules.ts";
import type { HeaderSink } from "./hpack_decoder.ts";

/** Bytes from hexadecimal; blanks are for the eye. */
export function hex(text: string): Uint8Array {
  return Uint8Array.from(text.replaceAll(/\s/g, "").match(/../g) ?? [], (pair) => parseInt(pair, 16));
}

/** The bytes of ASCII text. */
export function ascii(text: string): Uint8Array {
  return Uint8Array.from(text, (letter) => letter.charCodeAt(0));
}

/** `bytes[start..end)` as text, each byte one character (ISO 8859-1), so nothing is lost and nothing can fail. */
export function latin1Text(bytes: Uint8Array, start: number, end: number): string {
  let text = "";
  for (let at = start; at < end; at++) text += String.fromCharCode(bytes[at]!);
  return text;
}

/** Parts one after the other. */
export function joined(...parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(parts.flatMap((part) => [...part]));
}

/** A frame with any header, legal or not. */
export function frame(type: number, flags: number, streamId: number, payload: Uint8Array = new Uint8Array(0)) {
  const bytes = payload.length;
  const header = [
    bytes >> 16,
    bytes >> 8,
    bytes,
    type,
    flags,
    streamId >>> 24,
    streamId >> 16,
    streamId >> 8,
    streamId,
  ];
  return joined(Uint8Array.from(header), payload);
}

/** A stream of bytes with every kind of frame, whole and in parts, padded and not; SETTINGS first. */
export const EVERY_KIND_OF_FRAME: readonly Uint8Array[] = [
  frame(FrameType.SETTINGS, 0, 0),
  frame(FrameType.SETTINGS, 0, 0, hex("0004 00400000")),
  frame(FrameType.SETTINGS, FrameFlag.ACK, 0),
  frame(FrameType.WINDOW_UPDATE, 0, 0, hex("00ff0001")),
  frame(FrameType.HEADERS, FrameFlag.END_HEADERS, 1, ascii("whole")),
  frame(
    FrameType.HEADERS,
    FrameFlag.END_STREAM | FrameFlag.PADDED | FrameFlag.PRIORITY,
    3,
    joined(hex("02 80000001 10"), ascii("first-"), hex("0000")),
  ),
  frame(FrameType.CONTINUATION, 0, 3, ascii("second-")),
  frame(FrameType.CONTINUATION, 0, 3),
  frame(FrameType.CONTINUATION, FrameFlag.END_HEADERS, 3, ascii("third")),
  frame(FrameType.DATA, FrameFlag.END_STREAM, 1, ascii("hello")),
  frame(FrameType.DATA, FrameFlag.END_STREAM, 1),
  frame(FrameType.DATA, 0, 1, ascii("one ")),
  frame(FrameType.DATA, FrameFlag.PADDED, 1, joined(hex("03"), ascii("two "), hex("000000"))),
  frame(FrameType.DATA, FrameFlag.PADDED, 1, joined(hex("00"), ascii("three "))),
  frame(FrameType.DATA, FrameFlag.PADDED | FrameFlag.END_STREAM, 1, hex("02 0000")),
  frame(FrameType.DATA, FrameFlag.PADDED | FrameFlag.END_STREAM, 1, hex("00")),
  frame(0x1f, 0xff, 77, ascii("of an extension")),
  frame(0xff, 0, 0),
  frame(FrameType.PRIORITY, 0, 5, hex("00000000 ff")),
  frame(FrameType.RST_STREAM, 0, 3, hex("00000008")),
  frame(FrameType.PING, FrameFlag.ACK, 0, hex("0102030405060708")),
  frame(FrameType.GOAWAY, 0, 0, joined(hex("00000003 00000000"), ascii("debug"))),
];

/** Keeps headers as `name: value`, and the numbers of their names. */
export class HeaderTexts implements HeaderSink {
  readonly texts: string[] = [];
  readonly names: number[] = [];

  onHeader(
    name: number,
    nameBytes: Uint8Array,
    nameStart: number,
    nameEnd: number,
    valueBytes: Uint8Array,
    valueStart: number,
    valueEnd: number,
  ): void {
    this.names.push(name);
    this.texts.push(`${latin1Text(nameBytes, nameStart, nameEnd)}: ${latin1Text(valueBytes, valueStart, valueEnd)}`);
  }
}

/** One frame, its payload a copy. */
export interface WholeFrame {
  readonly type: number;
  readonly flags: number;
  readonly streamId: number;
  readonly payload: Uint8Array;
}

/** The whole frames in `bytes`, headers unchecked; a part of one at the end is left out. */
export function framesOf(bytes: Uint8Array): WholeFrame[] {
  const frames: WholeFrame[] = [];
  for (let at = 0; at + FRAME_HEADER_BYTES <= bytes.length;) {
    const end = at + FRAME_HEADER_BYTES + readUint24(bytes, at);
    if (end > bytes.length) break;
    const payload = bytes.slice(at + FRAME_HEADER_BYTES, end);
    frames.push({ type: bytes[at + 3]!, flags: bytes[at + 4]!, streamId: readUint31(bytes, at + 5), payload });
    at = end;
  }
  return frames;
}

/** A generator of 32-bit integers from a seed (xorshift), so that every run of a fuzz test is the same run. */
export class Seeded {
  #state: number;

  constructor(seed: number) {
    this.#state = seed | 1;
  }

  next(below: number): number {
    this.#state ^= this.#state << 13;
    this.#state ^= this.#state >>> 17;
    this.#state ^= this.#state << 5;
    return (this.#state >>> 0) % below;
  }
}

/** The seeds of a fuzz test: one, always the same, unless FUZZ_ROUNDS asks for more (`deno task fuzz`). */
export function seeds(first: number): number[] {
  const rounds = Number(Deno.env.get("FUZZ_ROUNDS") ?? "1");
  return Array.from({ length: rounds }, (_, round) => first + round * 1_000_003);
}
