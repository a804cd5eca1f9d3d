/** Tests of settings.ts. */
import { assertEquals } from "@std/assert";
import { FrameFlag, H2Error, Setting } from "./frame_rules.ts";
import { writeSettings } from "./frame_writers.ts";
import {
  AnnouncedSettings,
  HBONE_CLIENT_SETTINGS,
  HBONE_CONNECTION_WINDOW_BYTES,
  HBONE_CONNECTION_WINDOW_GROWTH,
  HBONE_SERVER_SETTINGS,
  HBONE_STREAM_WINDOW_BYTES,
  readSettings,
} from "./settings.ts";
import { hex } from "./testing.ts";

function check(pairs: readonly number[], error: number, kept: number = pairs.length / 2): void {
  const bytes = new Uint8Array(9 + pairs.length * 3), seen: number[] = [];
  const end = writeSettings(bytes, 0, pairs);
  const sink = { onSetting: (identifier: number, value: number) => void seen.push(identifier, value) };
  assertEquals(readSettings(0, bytes, 9, end, sink), error === 0 ? 0 : -error);
  assertEquals(seen, pairs.slice(0, kept * 2));
}

Deno.test("readSettings() checks each value at both ends of its range (RFC 9113 §6.5.2)", () => {
  check([], 0);
  check([Setting.ENABLE_PUSH, 0, Setting.ENABLE_PUSH, 1], 0);
  check([Setting.ENABLE_PUSH, 2], H2Error.PROTOCOL_ERROR, 0);
  check([Setting.ENABLE_CONNECT_PROTOCOL, 2], H2Error.PROTOCOL_ERROR, 0);
  check([Setting.INITIAL_WINDOW_SIZE, 0, Setting.INITIAL_WINDOW_SIZE, 0x7fffffff], 0);
  check([Setting.INITIAL_WINDOW_SIZE, 0x80000000], H2Error.FLOW_CONTROL_ERROR, 0);
  check([Setting.MAX_FRAME_SIZE, 16_384, Setting.MAX_FRAME_SIZE, 16_777_215], 0);
  check([Setting.MAX_FRAME_SIZE, 16_383], H2Error.PROTOCOL_ERROR, 0);
  check([Setting.MAX_FRAME_SIZE, 16_777_216], H2Error.PROTOCOL_ERROR, 0);
  check([Setting.MAX_CONCURRENT_STREAMS, 0xffffffff, Setting.HEADER_TABLE_SIZE, 0, 0xabcd, 0xffffffff], 0);
  check([Setting.MAX_CONCURRENT_STREAMS, 1, Setting.ENABLE_PUSH, 9], H2Error.PROTOCOL_ERROR, 1);
});

Deno.test("readSettings() refuses every length that is not a multiple of six (RFC 9113 §6.5)", () => {
  const bytes = hex("0003 00000001 0003 00000001 0003 00000001");
  for (let end = 0; end <= bytes.length; end++) {
    const result = readSettings(0, bytes, 0, end, new AnnouncedSettings());
    assertEquals(result, end % 6 === 0 ? 0 : -H2Error.FRAME_SIZE_ERROR);
    const ack = readSettings(FrameFlag.ACK, bytes, 0, end, new AnnouncedSettings());
    assertEquals(ack, end === 0 ? 0 : -H2Error.FRAME_SIZE_ERROR);
  }
});

Deno.test("AnnouncedSettings keeps the last value of each, and ignores the unknown", () => {
  const announced = new AnnouncedSettings();
  const before = { ...announced };
  announced.onSetting(0x77, 5);
  assertEquals({ ...announced }, before);
  for (const identifier of Object.values(Setting)) announced.onSetting(identifier, 0);
  for (const identifier of Object.values(Setting)) announced.onSetting(identifier, 1);
  assertEquals({ ...announced }, {
    headerTableBytes: 1,
    pushAllowed: true,
    concurrentStreamsMax: 1,
    initialWindowBytes: 1,
    payloadBytesMax: 1,
    headerListBytesMax: 1,
    connectProtocol: true,
  });
});

Deno.test("AnnouncedSettings asks for a table update once a table smaller than the usual was announced, and until it is said (RFC 9113 §4.3.1)", () => {
  const announced = new AnnouncedSettings(), { HEADER_TABLE_SIZE } = Setting;
  announced.blockBegan();
  assertEquals(announced.tableUpdateDue, false);
  for (const size of [4_096, 65_536]) announced.onSetting(HEADER_TABLE_SIZE, size);
  assertEquals(announced.tableUpdateDue, false);
  for (const size of [4_095, 4_096]) announced.onSetting(HEADER_TABLE_SIZE, size); // The smallest counts (RFC 7541 §4.2).
  assertEquals(announced.tableUpdateDue, true);
  announced.blockBegan();
  announced.onSetting(HEADER_TABLE_SIZE, 0);
  assertEquals(announced.tableUpdateDue, false);
});

Deno.test("HBONE settings are announced value by value, in order (ZT-061)", () => {
  assertEquals(HBONE_CLIENT_SETTINGS, [2, 0, 4, 4_194_304, 5, 1_048_576, 6, 16_384]);
  assertEquals(HBONE_SERVER_SETTINGS, [3, 200, 4, 4_194_304, 5, 1_048_576, 6, 65_536]);
  assertEquals(HBONE_CONNECTION_WINDOW_GROWTH, 16_711_681);
  assertEquals(HBONE_CONNECTION_WINDOW_BYTES % HBONE_STREAM_WINDOW_BYTES, 0);
});
