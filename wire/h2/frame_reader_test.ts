/** Tests of frame_reader.ts: order, padding, bounds, and that cuts leave no trace. */
import { assertEquals } from "@std/assert";
import { FrameReader } from "./frame_reader.ts";
import { CLIENT_PREFACE, FrameFlag, FrameType, H2Error } from "./frame_rules.ts";
import { ascii, EVERY_KIND_OF_FRAME as EVERY_KIND, frame, hex, joined, Seeded, Transcript } from "./testing.ts";

const SETTINGS = frame(FrameType.SETTINGS, 0, 0);
const { END_HEADERS, PADDED, PRIORITY } = FrameFlag;
const HELLO = ascii("hello");

function read(...chunks: readonly Uint8Array[]): { lines: string[]; result: number } {
  const reader = new FrameReader(16_384, 1_024, false), transcript = new Transcript();
  for (const chunk of chunks) {
    const result = reader.read(chunk, 0, chunk.length, transcript);
    if (result !== 0) return { lines: transcript.lines, result };
  }
  return { lines: transcript.lines, result: 0 };
}

/** What the reader says to frames that follow the first SETTINGS. */
function check(frames: readonly Uint8Array[], lines: readonly string[], error: number = H2Error.NO_ERROR): void {
  const got = read(SETTINGS, ...frames);
  assertEquals(got.lines, ["SETTINGS 0 0 ", ...lines]);
  assertEquals(got.result, error === H2Error.NO_ERROR ? 0 : -error);
}

const EVERY_LINE = [
  "SETTINGS 0 0 ",
  "SETTINGS 0 0 0 4 0 40 0 0",
  "SETTINGS 1 0 ",
  "WINDOW_UPDATE 0 0 0 ff 0 1",
  "HEADERS 1 whole",
  "HEADERS 3 first-second-third ended",
  "DATA 1 hello flow=5 ended",
  "DATA 1  flow=0 ended",
  "DATA 1 one two three  flow=22 ended",
  "DATA 1  flow=1 ended",
  "RST_STREAM 0 3 0 0 0 8",
  "PING 1 0 1 2 3 4 5 6 7 8",
  "GOAWAY 0 0 0 0 0 3 0 0 0 0 64 65 62 75 67",
];

Deno.test("FrameReader gives every kind of frame, and ignores what extensions and PRIORITY say (RFC 9113 §5.5)", () => {
  assertEquals(read(joined(...EVERY_KIND)), { lines: EVERY_LINE, result: 0 });
});

Deno.test("FrameReader says the same wherever the bytes are cut in two (RFC 9113 §4.1)", () => {
  const all = joined(...EVERY_KIND);
  for (let cut = 0; cut <= all.length; cut++) {
    assertEquals(read(all.subarray(0, cut), all.subarray(cut)), { lines: EVERY_LINE, result: 0 }, `cut at ${cut}`);
  }
});

Deno.test("FrameReader says the same octet by octet, and for any random cuts", () => {
  const all = joined(...EVERY_KIND), random = new Seeded(11);
  assertEquals(read(...Array.from(all, (octet) => Uint8Array.of(octet))).lines, EVERY_LINE);
  for (let run = 0; run < 500; run++) {
    const chunks: Uint8Array[] = [];
    for (let at = 0; at < all.length;) chunks.push(all.subarray(at, at += 1 + random.next(40)));
    assertEquals(read(...chunks).lines, EVERY_LINE, `run ${run}`);
  }
});

Deno.test("FrameReader says nothing early: each truncation gives a prefix", () => {
  const all = joined(...EVERY_KIND);
  for (let end = 0; end < all.length; end++) {
    const { lines, result } = read(all.subarray(0, end));
    assertEquals(result, 0);
    assertEquals(lines, EVERY_LINE.slice(0, lines.length));
  }
});

Deno.test("FrameReader wants the preface from whoever opened, and SETTINGS first (RFC 9113 §3.4)", () => {
  for (let wrong = 0; wrong < CLIENT_PREFACE.length; wrong++) {
    const preface = CLIENT_PREFACE.slice();
    preface[wrong]! ^= 1;
    const reader = new FrameReader(16_384, 1_024, true);
    assertEquals(reader.read(preface, 0, preface.length, new Transcript()), -H2Error.PROTOCOL_ERROR);
  }
  const whole = joined(CLIENT_PREFACE, SETTINGS), transcript = new Transcript();
  const reader = new FrameReader(16_384, 1_024, true);
  for (let at = 0; at < whole.length; at++) assertEquals(reader.read(whole, at, at + 1, transcript), 0);
  assertEquals(transcript.lines, ["SETTINGS 0 0 "]);

  for (let type = 0; type < 16; type++) {
    if (type === FrameType.SETTINGS) continue;
    const bytes = [0, 0, 5, 4, 0, 4, 8, 8, 4, 0][type] ?? 3;
    const streamId = type === FrameType.PING || type === FrameType.GOAWAY ? 0 : 1;
    const { result, lines } = read(frame(type, 0, streamId, new Uint8Array(bytes)));
    assertEquals({ result, lines }, { result: -H2Error.PROTOCOL_ERROR, lines: [] }, `type ${type}`);
  }
  assertEquals(read(frame(FrameType.SETTINGS, FrameFlag.ACK, 0)).result, -H2Error.PROTOCOL_ERROR);
});

Deno.test("FrameReader lets nothing between the frames of a header block (RFC 9113 §6.10)", () => {
  const open = frame(FrameType.HEADERS, 0, 1, HELLO);
  for (
    const [type, streamId, payload] of [
      [FrameType.DATA, 1, HELLO],
      [FrameType.HEADERS, 1, HELLO],
      [FrameType.PRIORITY, 1, hex("0000000000")],
      [FrameType.RST_STREAM, 1, hex("00000008")],
      [FrameType.SETTINGS, 0, hex("")],
      [FrameType.PING, 0, new Uint8Array(8)],
      [FrameType.GOAWAY, 0, new Uint8Array(8)],
      [FrameType.WINDOW_UPDATE, 0, hex("00000001")],
      [FrameType.CONTINUATION, 3, HELLO],
      [0x2a, 0, HELLO],
    ] as const
  ) {
    check([open, frame(type, 0, streamId, payload)], [], H2Error.PROTOCOL_ERROR);
  }
  check([frame(FrameType.CONTINUATION, END_HEADERS, 1, HELLO)], [], H2Error.PROTOCOL_ERROR);
  const done = frame(FrameType.CONTINUATION, END_HEADERS, 1);
  check([open, done, done], ["HEADERS 1 hello"], H2Error.PROTOCOL_ERROR);
});

Deno.test("FrameReader takes no push (RFC 9113 §8.4)", () => {
  check([frame(FrameType.PUSH_PROMISE, END_HEADERS, 1, hex("00000002 82"))], [], H2Error.PROTOCOL_ERROR);
});

Deno.test("FrameReader refuses padding that leaves the frame (RFC 9113 §6.1, §6.2)", () => {
  const data = (payload: string) => frame(FrameType.DATA, PADDED, 1, hex(payload));
  const headers = (flags: number, payload: string) => frame(FrameType.HEADERS, flags | END_HEADERS, 1, hex(payload));
  check([data("")], [], H2Error.FRAME_SIZE_ERROR);
  check([data("01")], [], H2Error.PROTOCOL_ERROR);
  check([data("03 0000")], [], H2Error.PROTOCOL_ERROR);
  check([headers(PADDED, "")], [], H2Error.FRAME_SIZE_ERROR);
  check([headers(PADDED, "01")], [], H2Error.PROTOCOL_ERROR);
  check([headers(PADDED, "02 00 00")], ["HEADERS 1 "]);
  check([headers(PRIORITY, "00000000")], [], H2Error.FRAME_SIZE_ERROR);
  check([headers(PRIORITY, "00000000 01")], ["HEADERS 1 "]);
  check([headers(PRIORITY | PADDED, "01 00000000 01")], [], H2Error.FRAME_SIZE_ERROR);
});

Deno.test("FrameReader bounds a header block in octets and in frames", () => {
  const part = (type: number, flags: number, bytes: number) => frame(type, flags, 1, new Uint8Array(bytes).fill(0x61));
  const text = "a".repeat(1_024);
  check([part(FrameType.HEADERS, END_HEADERS, 1_024)], [`HEADERS 1 ${text}`]);
  check([part(FrameType.HEADERS, END_HEADERS, 1_025)], [], H2Error.ENHANCE_YOUR_CALM);
  check([part(FrameType.HEADERS, END_HEADERS, 16_384)], [], H2Error.ENHANCE_YOUR_CALM);
  check([part(1, 0, 512), part(9, END_HEADERS, 512)], [`HEADERS 1 ${text}`]);
  check([part(1, 0, 512), part(9, END_HEADERS, 513)], [], H2Error.ENHANCE_YOUR_CALM);
  const empty = part(FrameType.CONTINUATION, 0, 0);
  check([part(1, 0, 1), ...new Array(15).fill(empty), part(9, END_HEADERS, 1)], ["HEADERS 1 aa"]);
  check([part(1, 0, 1), ...new Array(17).fill(empty)], [], H2Error.ENHANCE_YOUR_CALM);
});

Deno.test("FrameReader stops at the sink's error and hands it on", () => {
  for (const bytes of EVERY_KIND.slice(3, 12)) {
    const reader = new FrameReader(16_384, 1_024, false), transcript = new Transcript();
    assertEquals(reader.read(SETTINGS, 0, SETTINGS.length, transcript), 0);
    transcript.answer = -H2Error.INTERNAL_ERROR;
    const twice = joined(bytes, frame(FrameType.PING, 0, 0, new Uint8Array(8)));
    const expected = bytes[3] === FrameType.CONTINUATION || (bytes[3] === FrameType.HEADERS && bytes[4] !== END_HEADERS)
      ? -H2Error.PROTOCOL_ERROR // No sink was called: the block is not whole, and what follows breaks it.
      : -H2Error.INTERNAL_ERROR;
    assertEquals(reader.read(twice, 0, twice.length, transcript), expected);
    assertEquals(transcript.lines.includes("PING 0 0 0 0 0 0 0 0 0 0"), false);
  }
});
