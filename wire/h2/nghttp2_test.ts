/** Both directions of our codecs against nghttp2, by node:http2, over loopback. */
import { assertEquals } from "@std/assert";
import { connect, createServer } from "node:http2";
import { FrameReader } from "./frame_reader.ts";
import type { FrameSink } from "./frame_reader.ts";
import { FrameType } from "./frame_rules.ts";
import {
  writeClientPreface,
  writeDataHeader,
  writeHeaders,
  writeSettings,
  writeSettingsAck,
  writeWindowUpdate,
} from "./frame_writers.ts";
import { HpackDecoder } from "./hpack_decoder.ts";
import { writeConnectBlock } from "./hpack_encoder.ts";
import { ResponseHead } from "./request_check.ts";
import { HBONE_CLIENT_SETTINGS, HBONE_CONNECTION_WINDOW_GROWTH } from "./settings.ts";
import { latin1Text } from "../bytes.ts";
import { ascii, HeaderTexts, Seeded } from "./testing.ts";

Deno.test("HpackDecoder decodes what nghttp2 encodes, over the life of a connection (node:http2)", async () => {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const random = new Seeded(21), sent: Record<string, string>[] = [], got: string[][] = [];
  for (let index = 0; index < 60; index++) {
    const fields: Record<string, string> = { ":path": `/${index % 7}`, "x-count": String(index) };
    for (let more = random.next(8); more > 0; more--) {
      const length = random.next(90);
      fields[`x-${random.next(20)}`] = Array.from({ length }, () => String.fromCharCode(33 + random.next(94))).join("");
    }
    sent.push(fields);
  }
  const decoder = new HpackDecoder(4_096, 1 << 20), reader = new FrameReader(16_384, 1 << 16, true);
  const sink: FrameSink = {
    onData: () => 0,
    onFrame: () => 0,
    onHeaders(_streamId, bytes, start, end) {
      const texts = new HeaderTexts();
      const result = decoder.decode(bytes, start, end, texts);
      got.push(texts.texts);
      return result;
    },
  };
  const session = connect(`http://127.0.0.1:${(listener.addr as Deno.NetAddr).port}`);
  const closed = new Promise((resolve) => session.once("close", resolve));
  session.on("error", () => session.destroy()); // The listener goes away beneath it, on purpose.
  const accepted = await listener.accept();
  for (const fields of sent) session.request(fields).on("error", () => session.destroy());
  const settings = new Uint8Array(9), chunk = new Uint8Array(1_000); // A size that cuts blocks anywhere.
  await accepted.write(settings.subarray(0, writeSettings(settings, 0, [])));
  while (got.length < sent.length) {
    const count = await accepted.read(chunk);
    if (count === null) break;
    assertEquals(reader.read(chunk, 0, count, sink), 0);
  }
  session.destroy();
  accepted.close();
  await closed;
  assertEquals(got.length, sent.length);
  for (const [index, fields] of sent.entries()) {
    const expected = Object.entries(fields).map(([name, value]) => `${name}: ${value}`);
    assertEquals(
      got[index]!.filter((text) => text.startsWith("x-") || text.startsWith(":path")).sort(),
      expected.sort(),
    );
  }
});

Deno.test("what we write opens a tunnel of nghttp2, and what it answers we read (ZT-052, ZT-061)", async () => {
  const seen: Record<string, unknown>[] = [];
  const server = createServer();
  server.on("stream", (stream, headers) => {
    seen.push(Object.fromEntries(Object.entries(headers)));
    stream.respond({ ":status": 200, baggage: "k8s.namespace.name=shop" });
    stream.on("data", (data: Uint8Array) => stream.write(data)); // An echo, ended when we end.
    stream.on("end", () => stream.end());
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as { port: number };
  const socket = await Deno.connect({ hostname: "127.0.0.1", port });

  const bytes = new Uint8Array(4_096), block = new Uint8Array(1_024);
  const baggage = `x=${"y".repeat(200)}`;
  const blockEnd = writeConnectBlock(block, 0, "10.0.0.2:80", baggage, 'for="10.0.0.1:4"', "00-1-2-00");
  let at = writeClientPreface(bytes, 0);
  at = writeSettings(bytes, at, HBONE_CLIENT_SETTINGS);
  at = writeWindowUpdate(bytes, at, 0, HBONE_CONNECTION_WINDOW_GROWTH);
  at = writeHeaders(bytes, at, 1, block, 0, blockEnd, false, 100); // Cut small, so that CONTINUATION is among it.
  at = writeDataHeader(bytes, at, 1, 5, false);
  bytes.set(ascii("hello"), at);
  at = writeDataHeader(bytes, at + 5, 1, 0, true);
  await socket.write(bytes.subarray(0, at));

  const decoder = new HpackDecoder(4_096, 16_384), head = new ResponseHead(16_384);
  let echoed = "", ended = false, settingsSeen = false;
  const sink: FrameSink = {
    onData(_streamId, data, start, end, _flowBytes, last) {
      echoed += latin1Text(data, start, end);
      ended ||= last;
      return 0;
    },
    onHeaders(_streamId, data, start, end) {
      head.begin();
      return decoder.decode(data, start, end, head);
    },
    onFrame(type) {
      settingsSeen ||= type === FrameType.SETTINGS;
      return 0;
    },
  };
  const reader = new FrameReader(1 << 20, 65_536, false), chunk = new Uint8Array(512);
  while (!ended) {
    const count = await socket.read(chunk);
    if (count === null) break;
    assertEquals(reader.read(chunk, 0, count, sink), 0);
  }
  await socket.write(bytes.subarray(0, writeSettingsAck(bytes, 0)));
  socket.close();
  await new Promise((resolve) => server.close(resolve));

  assertEquals([settingsSeen, head.verdict(), echoed, ended], [true, 200, "hello", true]);
  assertEquals(latin1Text(head.baggageBytes, 0, head.baggageEnd), "k8s.namespace.name=shop");
  assertEquals(seen.length, 1);
  assertEquals(seen[0], {
    ":method": "CONNECT",
    ":authority": "10.0.0.2:80",
    baggage,
    forwarded: 'for="10.0.0.1:4"',
    traceparent: "00-1-2-00",
  });
});
