/** Both directions of our codecs against nghttp2, by node:http2, over loopback. */
import { assertEquals } from "@std/assert";
import { connect, createServer, type IncomingHttpHeaders, type ServerHttp2Stream } from "node:http2";
import { CLIENT_PREFACE, FrameFlag, FrameType } from "./frame_rules.ts";
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
import { ascii, framesOf, HeaderTexts, joined, latin1Text, Seeded } from "./testing.ts";

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
  const decoder = new HpackDecoder(4_096, 1 << 20);
  const session = connect(`http://127.0.0.1:${(listener.addr as Deno.NetAddr).port}`);
  const closed = new Promise((resolve) => session.once("close", resolve));
  session.on("error", () => session.destroy()); // The listener goes away beneath it, on purpose.
  const accepted = await listener.accept();
  for (const fields of sent) session.request(fields).on("error", () => session.destroy());
  const settings = new Uint8Array(9), chunk = new Uint8Array(16_384);
  await accepted.write(settings.subarray(0, writeSettings(settings, 0, [])));
  const heads = (bytes: Uint8Array) => framesOf(bytes).filter((it) => it.type === FrameType.HEADERS);
  let received = new Uint8Array(0);
  while (heads(received.subarray(CLIENT_PREFACE.length)).length < sent.length) {
    const count = await accepted.read(chunk);
    if (count === null) break;
    received = joined(received, chunk.subarray(0, count));
  }
  for (const { flags, payload } of heads(received.subarray(CLIENT_PREFACE.length))) {
    const texts = new HeaderTexts(), start = (flags & FrameFlag.PRIORITY) === 0 ? 0 : 5;
    assertEquals(flags & (FrameFlag.PADDED | FrameFlag.END_HEADERS), FrameFlag.END_HEADERS);
    assertEquals(decoder.decode(payload, start, payload.length, texts), 0);
    got.push(texts.texts);
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
  server.on("stream", (stream: ServerHttp2Stream, headers: IncomingHttpHeaders) => {
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
  const ended = () =>
    framesOf(received).some((it) => it.type === FrameType.DATA && (it.flags & FrameFlag.END_STREAM) !== 0);
  const chunk = new Uint8Array(512);
  let received = new Uint8Array(0);
  while (!ended()) {
    const count = await socket.read(chunk);
    if (count === null) break;
    received = joined(received, chunk.subarray(0, count));
  }
  await socket.write(bytes.subarray(0, writeSettingsAck(bytes, 0)));
  socket.close();
  await new Promise((resolve) => server.close(resolve));

  const frames = framesOf(received), echoed = frames.filter((it) => it.type === FrameType.DATA).map((it) => it.payload);
  const answer = frames.find((it) => it.type === FrameType.HEADERS)!.payload;
  head.begin();
  assertEquals(decoder.decode(answer, 0, answer.length, head), 0);
  assertEquals([frames[0]!.type, head.verdict(), joined(...echoed)], [FrameType.SETTINGS, 200, ascii("hello")]);
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
