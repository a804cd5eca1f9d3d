/** Tests of frame_writers.ts: byte for byte, and read back. */
import { assertEquals, assertThrows } from "@std/assert";
import { AssertionError } from "../../base/assert.ts";
import { FrameFlag, FrameType, H2Error, Setting } from "./frame_rules.ts";
import {
  writeClientPreface,
  writeDataHeader,
  writeGoaway,
  writeHeaders,
  writePing,
  writeRstStream,
  writeSettings,
  writeSettingsAck,
  writeWindowUpdate,
} from "./frame_writers.ts";
import { ascii, framesOf, hex, joined } from "./testing.ts";

function check(write: (target: Uint8Array, at: number) => number, expected: string): void {
  const wanted = hex(expected), target = new Uint8Array(wanted.length + 3);
  assertEquals(write(target, 2), 2 + wanted.length);
  assertEquals(target.subarray(2, 2 + wanted.length), wanted);
  assertEquals([target[0], target[1], target[target.length - 1]], [0, 0, 0], "nothing is written beside the frame");
  // One octet less of room: refused loudly, never written in part.
  assertThrows(() => write(new Uint8Array(wanted.length + 1), 2), AssertionError);
}

Deno.test("writeX() writes each control frame as RFC 9113 §6 draws it", () => {
  check((target, at) => writeClientPreface(target, at), "505249202a20485454502f322e300d0a0d0a534d0d0a0d0a");
  check((target, at) => writeSettings(target, at, []), "000000 04 00 00000000");
  check(
    (target, at) => writeSettings(target, at, [Setting.ENABLE_PUSH, 0, Setting.INITIAL_WINDOW_SIZE, 0x7fffffff]),
    "00000c 04 00 00000000 0002 00000000 0004 7fffffff",
  );
  check((target, at) => writeSettingsAck(target, at), "000000 04 01 00000000");
  check((target, at) => writePing(target, at, 0x01020304, 0xfffefdfc, false), "000008 06 00 00000000 01020304fffefdfc");
  check((target, at) => writePing(target, at, 0, 1, true), "000008 06 01 00000000 0000000000000001");
  check((target, at) => writeWindowUpdate(target, at, 0, 16_711_681), "000004 08 00 00000000 00ff0001");
  check((target, at) => writeWindowUpdate(target, at, 0x7fffffff, 1), "000004 08 00 7fffffff 00000001");
  check((target, at) => writeRstStream(target, at, 3, H2Error.CANCEL), "000004 03 00 00000003 00000008");
  check((target, at) => writeGoaway(target, at, 5, H2Error.NO_ERROR), "000008 07 00 00000000 00000005 00000000");
});

Deno.test("writeDataHeader() leaves the payload to the caller (RFC 9113 §6.1)", () => {
  check((target, at) => writeDataHeader(target, at, 9, 0, true), "000000 00 01 00000009");
  check((target, at) => writeDataHeader(target, at, 9, 0x0f4240, false), "0f4240 00 00 00000009");
});

Deno.test("writeWindowUpdate() never writes an increment of 0 or past 2^31-1 (RFC 9113 §6.9)", () => {
  assertThrows(() => writeWindowUpdate(new Uint8Array(13), 0, 1, 0), AssertionError);
  assertThrows(() => writeWindowUpdate(new Uint8Array(13), 0, 1, 2 ** 31), AssertionError);
});

Deno.test("writeHeaders() splits at the limit of whoever reads, and reads back whole (RFC 9113 §6.10)", () => {
  for (const blockBytes of [0, 1, 15, 16, 17, 31, 32, 33, 100]) {
    for (const ended of [true, false]) {
      const text = "x".repeat(blockBytes), frameCount = Math.max(1, Math.ceil(blockBytes / 16));
      const target = new Uint8Array(200);
      const end = writeHeaders(target, 0, 3, ascii(`..${text}`), 2, 2 + blockBytes, ended, 16);
      assertEquals(end, blockBytes + frameCount * 9);
      const read = framesOf(target.subarray(0, end));
      assertEquals(read.map((it) => it.type), [
        FrameType.HEADERS,
        ...new Array(frameCount - 1).fill(FrameType.CONTINUATION),
      ]);
      const last = read.map((_, index) => index === frameCount - 1 ? FrameFlag.END_HEADERS : 0);
      assertEquals(read.map((it) => it.flags & FrameFlag.END_HEADERS), last);
      assertEquals(
        read.map((it) => it.flags & FrameFlag.END_STREAM),
        read.map((_, index) => ended && index === 0 ? 1 : 0),
      );
      assertEquals(read.every((it) => it.streamId === 3 && it.payload.length <= 16), true);
      assertEquals(joined(...read.map((it) => it.payload)), ascii(text));
      assertEquals(writeHeaders(new Uint8Array(end - 1), 0, 3, ascii(text), 0, blockBytes, ended, 16), -1);
    }
  }
});
