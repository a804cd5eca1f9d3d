/** Tests of frame_rules.ts: every frame type with every wrong length and stream. */
import { assertEquals } from "@std/assert";
import { checkFrameHeader, errorName, FRAME_RULES, FrameType, H2Error } from "./frame_rules.ts";

const MAX = 16_384;

Deno.test("checkFrameHeader() takes each type on its stream alone (RFC 9113 §6)", () => {
  // The RFC's own words, apart from the table under test.
  const onConnection: ReadonlySet<number> = new Set([
    FrameType.SETTINGS,
    FrameType.PING,
    FrameType.GOAWAY,
    FrameType.WINDOW_UPDATE,
  ]);
  const onStream = (type: number) => !onConnection.has(type) || type === FrameType.WINDOW_UPDATE;
  for (const [type, rule] of FRAME_RULES.entries()) {
    const bytes = rule.bytesMin;
    const [connection, stream] = [checkFrameHeader(type, 0, bytes, MAX), checkFrameHeader(type, 1, bytes, MAX)];
    assertEquals(connection, onConnection.has(type) ? H2Error.NO_ERROR : H2Error.PROTOCOL_ERROR, rule.name);
    assertEquals(stream, onStream(type) ? H2Error.NO_ERROR : H2Error.PROTOCOL_ERROR, rule.name);
  }
});

Deno.test("checkFrameHeader() takes no wrong length (RFC 9113 §6.3, §6.4, §6.6 to §6.9)", () => {
  const legal: Readonly<Record<string, (bytes: number) => boolean>> = {
    DATA: () => true,
    HEADERS: () => true,
    PRIORITY: (bytes) => bytes === 5,
    RST_STREAM: (bytes) => bytes === 4,
    SETTINGS: () => true,
    PUSH_PROMISE: (bytes) => bytes >= 4,
    PING: (bytes) => bytes === 8,
    GOAWAY: (bytes) => bytes >= 8,
    WINDOW_UPDATE: (bytes) => bytes === 4,
    CONTINUATION: () => true,
  };
  for (const [type, rule] of FRAME_RULES.entries()) {
    const streamId = rule.stream === false ? 0 : 7;
    for (let bytes = 0; bytes <= 64; bytes++) {
      const expected = legal[rule.name]!(bytes) ? H2Error.NO_ERROR : H2Error.FRAME_SIZE_ERROR;
      assertEquals(checkFrameHeader(type, streamId, bytes, MAX), expected, `${rule.name} of ${bytes}`);
    }
    assertEquals(checkFrameHeader(type, streamId, MAX + 1, MAX), H2Error.FRAME_SIZE_ERROR, rule.name);
  }
});

Deno.test("checkFrameHeader() lets unknown types pass on any stream, within the size limit (RFC 9113 §4.1, §5.5)", () => {
  for (let type = FRAME_RULES.length; type < 256; type++) {
    assertEquals(checkFrameHeader(type, 0, 0, MAX), H2Error.NO_ERROR);
    assertEquals(checkFrameHeader(type, 5, MAX, MAX), H2Error.NO_ERROR);
    assertEquals(checkFrameHeader(type, 5, MAX + 1, MAX), H2Error.FRAME_SIZE_ERROR);
  }
});

Deno.test("FRAME_RULES has a row for each type, in order", () => {
  assertEquals(FRAME_RULES.map((rule) => rule.name), Object.keys(FrameType));
});

Deno.test("errorName() names the known codes and prints the others", () => {
  assertEquals(errorName(H2Error.ENHANCE_YOUR_CALM), "ENHANCE_YOUR_CALM");
  assertEquals(errorName(0x99), "0x99");
});
