import { assertEquals } from "@std/assert";
import { FrameFlag, FrameType, H2Error } from "./frame_rules.ts";
import { HeaderBlock, type HeaderBlockSink } from "./header_block.ts";
import { ascii, hex } from "./testing.ts";

const { END_STREAM, END_HEADERS, PADDED, PRIORITY } = FrameFlag;

/** What comes out: `stream end? text`. */
class Heard implements HeaderBlockSink {
  readonly texts: string[] = [];
  refusal = 0;

  onHeaderBlock(streamId: number, endStream: boolean, bytes: Uint8Array, start: number, end: number): number {
    const text = new TextDecoder().decode(bytes.subarray(start, end));
    this.texts.push(`${streamId}${endStream ? " end" : ""} ${text}`);
    return this.refusal;
  }
}

function rig(bytesMax = 100) {
  const heard = new Heard(), block = new HeaderBlock(heard, bytesMax);
  const headers = (flags: number, payload: Uint8Array) => block.onHeaders(flags, 7, payload, 0, payload.length);
  const more = (payload: Uint8Array, flags = 0) => block.onContinuation(flags, payload, 0, payload.length);
  return { heard, block, headers, more };
}

Deno.test("HeaderBlock hands on a block of one frame where it lies, without padding and priority (RFC 9113 §6.2)", () => {
  const { heard, block } = rig(), bytes = ascii("xxabcxx");
  assertEquals(block.onHeaders(END_HEADERS, 1, bytes, 2, 5), 0);
  const padded = hex("02 616263 0000"), prior = hex("00000000ff 616263"), both = hex("01 8000000000 616263 00");
  assertEquals(block.onHeaders(END_HEADERS | PADDED | END_STREAM, 3, padded, 0, padded.length), 0);
  assertEquals(block.onHeaders(END_HEADERS | PRIORITY, 5, prior, 0, prior.length), 0);
  assertEquals(block.onHeaders(END_HEADERS | PADDED | PRIORITY, 7, both, 0, both.length), 0);
  assertEquals(heard.texts, ["1 abc", "3 end abc", "5 abc", "7 abc"]);
  assertEquals(block.open, false);
});

Deno.test("HeaderBlock refuses padding and priority that are longer than their frame (RFC 9113 §6.2)", () => {
  const { headers, heard } = rig(), { FRAME_SIZE_ERROR, PROTOCOL_ERROR } = H2Error;
  for (
    const [flags, payload, error] of [
      [PADDED, "", FRAME_SIZE_ERROR],
      [PADDED, "01", PROTOCOL_ERROR],
      [PADDED, "01 00", 0],
      [PRIORITY, "00000000", FRAME_SIZE_ERROR],
      [PRIORITY, "0000000000", 0],
      [PADDED | PRIORITY, "01 00000000 00", FRAME_SIZE_ERROR],
    ] as const
  ) assertEquals(headers(flags | END_HEADERS, hex(payload)), error, `${flags} ${payload}`);
  assertEquals(heard.texts, ["7 ", "7 "]);
});

Deno.test("HeaderBlock puts parts together, wherever they are cut, and lets nothing come between them (RFC 9113 §6.10)", () => {
  const whole = ascii("abcdefgh");
  for (let cut = 0; cut <= whole.length; cut++) {
    for (let second = cut; second <= whole.length; second++) {
      const { heard, block, headers, more } = rig();
      assertEquals([block.allows(FrameType.CONTINUATION, 7), block.allows(FrameType.PING, 0)], [false, true]);
      assertEquals(headers(END_STREAM, whole.subarray(0, cut)), 0);
      assertEquals([block.open, heard.texts.length], [true, 0]);
      for (const [type, streamId] of [[FrameType.PING, 0], [FrameType.HEADERS, 7], [FrameType.CONTINUATION, 9]]) {
        assertEquals(block.allows(type!, streamId!), false);
      }
      assertEquals(block.allows(FrameType.CONTINUATION, 7), true);
      assertEquals([more(whole.subarray(cut, second)), more(whole.subarray(second), END_HEADERS)], [0, 0]);
      assertEquals([heard.texts, block.open], [["7 end abcdefgh"], false]);
    }
  }
});

Deno.test("HeaderBlock bounds what it collects, and grows with what has come", () => {
  const { headers, more, heard } = rig(100_000), part = new Uint8Array(10_000).fill(0x61);
  assertEquals(headers(0, part), 0);
  for (let count = 2; count <= 10; count++) assertEquals(more(part), 0);
  assertEquals(more(Uint8Array.of(0x61)), H2Error.ENHANCE_YOUR_CALM);
  const again = rig(100_000);
  again.headers(0, part);
  for (let count = 2; count <= 10; count++) again.more(part, count === 10 ? END_HEADERS : 0);
  assertEquals([heard.texts.length, again.heard.texts[0]!.length], [0, 100_002]);
});

Deno.test("HeaderBlock tells of what its sink refuses, and is ready for the next", () => {
  const { heard, headers, more, block } = rig();
  heard.refusal = H2Error.COMPRESSION_ERROR;
  assertEquals(headers(END_HEADERS, ascii("a")), H2Error.COMPRESSION_ERROR);
  headers(0, ascii("b"));
  assertEquals([more(ascii("c"), END_HEADERS), block.open], [H2Error.COMPRESSION_ERROR, false]);
});

Deno.test("HeaderBlock goes on in another process where it stopped", () => {
  const { headers, more, block } = rig(), other = rig(), small = rig(3);
  assertEquals(block.exportState(), undefined);
  headers(END_STREAM, ascii("ab"));
  more(ascii("cd"));
  const state = block.exportState()!;
  assertEquals([other.block.importState(state), other.more(ascii("ef"), END_HEADERS)], [true, 0]);
  assertEquals(other.heard.texts, ["7 end abcdef"]);
  assertEquals(small.block.importState(state), false);
  assertEquals(other.block.importState({ ...state, streamId: 0 }), false);
});
