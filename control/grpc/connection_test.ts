import { assert, assertEquals } from "@std/assert";
import { FrameFlag, FrameType, H2Error, Setting } from "../../wire/h2/frame_rules.ts";
import { frame, hex, joined } from "../../wire/h2/testing.ts";
import type { GrpcCall } from "./call.ts";
import type { Method } from "./methods.ts";
import {
  GREETING,
  headers,
  message,
  PATH,
  ping,
  REQUEST,
  reset,
  setting,
  settle,
  TestConnection,
  windowUpdate,
} from "./testing.ts";

const { END_STREAM, END_HEADERS, ACK } = FrameFlag;
const HEAD = ":status: 200; content-type: application/grpc; grpc-accept-encoding: identity";
const GOAWAY_CALM = "GOAWAY 0 0,0,0,";

/** Sends every message back, and ends when the client has said all. */
const ECHO: Method = {
  path: PATH,
  kind: "bidi_stream",
  messageBytesMax: 1_000,
  serve(call) {
    call.start({ onMessage: (bytes) => call.send([bytes], () => {}), onHalfClosed: () => call.finish("OK") });
  },
};

/** Leaves calls to the test. */
function held(): { method: Method; calls: GrpcCall[] } {
  const calls: GrpcCall[] = [];
  const serve = (call: GrpcCall) => void calls.push(call);
  return { method: { path: PATH, kind: "bidi_stream", messageBytesMax: 1_000_000, serve }, calls };
}

async function greeted(method: Method = ECHO, limits = {}): Promise<TestConnection> {
  const it = new TestConnection(method, limits);
  await it.receive(GREETING);
  it.said();
  return it;
}

/** One call whose response the test sends. */
async function called(limits = {}): Promise<{ it: TestConnection; call: GrpcCall }> {
  const { method, calls } = held(), it = await greeted(method, limits);
  await it.receive(headers(1));
  return { it, call: calls[0]! };
}

Deno.test("Connection serves a call the same wherever its bytes are cut (RFC 9113 §4.1)", async () => {
  const whole = joined(GREETING, headers(1), message(1, hex("616263"), END_STREAM));
  for (let cut = 0; cut <= whole.length; cut++) {
    const it = new TestConnection(ECHO);
    await it.receive(whole.subarray(0, cut), whole.subarray(cut));
    assertEquals(it.saidTexts(), [
      "SETTINGS 0 0,3,0,0,0,64,0,4,0,4,0,0,0,6,0,1,0,0",
      "WINDOW_UPDATE 0 0,f,0,1",
      "SETTINGS 1 0 ",
      `HEADERS 1 ${HEAD}`,
      "DATA 1 8",
      "HEADERS 1 grpc-status: 0 end",
    ]);
    assertEquals([it.connection.streams.size, it.closedBecause], [0, undefined]);
  }
});

Deno.test("Connection says what is said in one turn in one write", async () => {
  const { it, call } = await called();
  call.send([new Uint8Array(100)], () => {});
  call.finish("OK");
  await settle();
  assertEquals(it.carrier.writes.length, 1);
});

Deno.test("Connection hands its carrier one write at a time, and tells who sent when the last byte was taken (CP-443)", async () => {
  const { it, call } = await called();
  await it.receive(windowUpdate(0, 1_000_000), windowUpdate(1, 1_000_000));
  it.carrier.takes = false;
  let taken = 0;
  const part = new Uint8Array(100_000).fill(7);
  call.send([part, part, part], () => taken++);
  for (const writes of [1, 2, 3]) {
    await settle();
    assertEquals([it.carrier.writes.length, taken], [writes, 0]);
    assert(it.carrier.writes.at(-1)!.length <= 128 * 1024);
    it.carrier.waiting.shift()!();
  }
  assertEquals([it.carrier.waiting.length, taken], [0, 1]);
  const data = it.said().filter(({ type }) => type === FrameType.DATA).map(({ payload }) => payload);
  assertEquals(joined(...data), joined(Uint8Array.of(0, 0, 4, 0x93, 0xe0), part, part, part));
  assert(data.every((payload) => payload.length <= 16_384));
});

Deno.test("Connection sends no more than the client's windows let it, and goes on when they open (RFC 9113 §6.9)", async () => {
  const { it, call } = await called();
  await it.receive(setting(Setting.INITIAL_WINDOW_SIZE, 10));
  it.said();
  let taken = false;
  call.send([new Uint8Array(100)], () => taken = true);
  await settle();
  assertEquals([it.saidTexts().at(-1), taken], ["DATA 1 10", false]);
  await it.receive(windowUpdate(1, 20));
  assertEquals([it.saidTexts(), taken], [["DATA 1 20"], false]);
  await it.receive(setting(Setting.INITIAL_WINDOW_SIZE, 40));
  assertEquals([it.saidTexts(), taken], [["SETTINGS 1 0 ", "DATA 1 30"], false]);
  await it.receive(setting(Setting.INITIAL_WINDOW_SIZE, 0)); // The window is 40 below zero now.
  await it.receive(windowUpdate(1, 40));
  assertEquals(it.saidTexts(), ["SETTINGS 1 0 "]);
  await it.receive(windowUpdate(1, 45));
  assertEquals([it.saidTexts(), taken], [["DATA 1 45"], true]);
});

Deno.test("Connection shares its window among streams, a frame each in turn", async () => {
  const { method, calls } = held(), it = await greeted(method);
  await it.receive(headers(1), headers(3), windowUpdate(1, 1_000_000), windowUpdate(3, 1_000_000));
  for (const call of calls) call.send([new Uint8Array(40_000)], () => {});
  await settle();
  const data = it.said().filter(({ type }) => type === FrameType.DATA);
  assertEquals(data.map(({ streamId, payload }) => [streamId, payload.length]), [
    [1, 16_384],
    [3, 16_384],
    [1, 16_384],
    [3, 16_383], // The connection's first window is 65,535.
  ]);
  await it.receive(windowUpdate(0, 1_000_000));
  assertEquals(it.saidTexts(), ["DATA 1 7237", "DATA 3 7238"]);
});

Deno.test("Connection gives up a stream that makes no progress, and one that does not read at all (CP-443)", async () => {
  const { it, call } = await called({ stallMsMax: 5_000, keepaliveIntervalMs: 1e9 });
  let over = false;
  call.whenOver(() => over = true);
  await it.receive(setting(Setting.INITIAL_WINDOW_SIZE, 10));
  call.send([new Uint8Array(100)], () => {});
  await it.pass(4_000);
  await it.receive(windowUpdate(1, 10));
  await it.pass(4_000);
  assertEquals([over, it.closedBecause], [false, undefined], "progress counts");
  it.said();
  await it.pass(1_500);
  assertEquals([over, it.saidTexts(), it.closedBecause], [true, ["RST_STREAM 1 0,0,0,8"], undefined]);
  assertEquals(it.stalled, 1);
  it.carrier.takes = false;
  await it.receive(ping());
  await it.pass(5_500);
  assertEquals([it.closedBecause, it.carrier.destroyed], ["it does not read", true]);
});

Deno.test("Connection lets a client send what is read, and no more than its window of what is not (RFC 9113 §6.9)", async () => {
  const { it, call } = await called();
  const piece = message(1, new Uint8Array(16_379)); // A frame of 16,384.
  for (let count = 0; count < 16; count++) await it.receive(piece);
  assertEquals([it.saidTexts(), it.closedBecause], [[], undefined], "the window of 256 KiB is full");
  let messages = 0;
  call.start({ onMessage: () => messages++, onHalfClosed: () => {} });
  await settle();
  assertEquals([messages, it.saidTexts()], [16, ["WINDOW_UPDATE 1 0,4,0,0"]]);
  for (let count = 0; count < 64; count++) await it.receive(piece);
  assertEquals([messages, it.connection.streams.size], [80, 1]);
  const other = (await called()).it;
  for (let count = 0; count < 16; count++) await other.receive(piece);
  await other.receive(frame(FrameType.DATA, 0, 1, new Uint8Array(1)));
  assertEquals(other.closedBecause ?? other.saidTexts().at(-1), "GOAWAY 0 0,0,0,1,0,0,0,3");
});

Deno.test("Connection pings a silent client, and ends with one that does not answer (CP-009)", async () => {
  const it = await greeted();
  await it.pass(29_000);
  assertEquals(it.saidTexts(), []);
  await it.pass(1_500);
  assertEquals(it.saidTexts(), ["PING 0 0,0,0,0,0,0,0,1"]);
  await it.receive(ping(ACK, hex("0000000000000001")));
  await it.pass(20_000);
  assertEquals([it.saidTexts(), it.closedBecause], [[], undefined]);
  await it.pass(10_500);
  assertEquals(it.saidTexts().length, 1);
  await it.pass(10_500);
  assertEquals(it.closedBecause, "it answers no ping");
});

Deno.test("Connection hears the answer to a ping also before its clock has moved on (CP-009)", async () => {
  const it = await greeted();
  while (it.carrier.writes.length === 0) await it.pass(250);
  await it.receive(ping(ACK, hex("0000000000000001")));
  await it.pass(29_000);
  assertEquals([it.saidTexts(), it.closedBecause], [["PING 0 0,0,0,0,0,0,0,1"], undefined]);
});

Deno.test("Connection bears pings at half its own interval, and ends with who pings more often (CP-009)", async () => {
  const it = await greeted();
  for (let count = 0; count < 20; count++) {
    await it.receive(ping());
    await it.pass(15_000, 5_000);
  }
  assertEquals([it.closedBecause, it.said().every(({ type }) => type === FrameType.PING)], [undefined, true]);
  for (let count = 0; count < 4; count++) await it.receive(ping());
  const words = [..."too_many_pings"].map((letter) => letter.charCodeAt(0).toString(16)).join();
  assertEquals(it.saidTexts().at(-1), `GOAWAY 0 0,0,0,0,0,0,0,b,${words}`);
  assertEquals(it.carrier.ended, true);
});

Deno.test("Connection bears a ping for each message that it has sent: so do clients measure their bandwidth", async () => {
  const { it, call } = await called();
  for (let count = 0; count < 20; count++) {
    call.send([new Uint8Array(10)], () => {});
    await settle();
    await it.receive(ping());
  }
  assertEquals(it.said().filter(({ type }) => type === FrameType.GOAWAY), []);
});

Deno.test("Connection asks its client to leave at its age, serves what was on its way, and waits for calls (CP-009)", async () => {
  const { method, calls } = held(), it = await greeted(method, { ageMsMax: 25_000, ageGraceMs: 10_000 });
  await it.receive(headers(1));
  await it.pass(25_000);
  assertEquals(it.saidTexts().slice(-2), ["GOAWAY 0 7f,ff,ff,ff,0,0,0,0", "PING 0 0,0,0,0,0,0,0,2"]);
  await it.receive(headers(3)); // Sent before the GOAWAY arrived.
  await it.receive(ping(ACK, hex("0000000000000002")));
  assertEquals([it.saidTexts(), calls.length], [["GOAWAY 0 0,0,0,3,0,0,0,0"], 2]);
  await it.receive(headers(5));
  assertEquals([calls.length, it.carrier.ended], [2, false]);
  for (const call of calls) call.finish("OK");
  await settle();
  assertEquals([it.saidTexts().length > 0, it.carrier.ended], [true, true]);
});

Deno.test("Connection cuts calls that go on past the grace of a farewell (CP-009)", async () => {
  const { it, call } = await called({ ageMsMax: 10_000, ageGraceMs: 2_000 });
  await it.pass(11_000);
  assertEquals(call.over, false);
  await it.pass(1_500);
  assertEquals([call.over, it.carrier.ended], [true, true]);
});

Deno.test("Connection ends with who does not speak HTTP/2, or says nothing", async () => {
  const http1 = new TestConnection(ECHO);
  await http1.receive(new TextEncoder().encode("GET / HTTP/1.1\r\n\r\n"));
  assertEquals(http1.closedBecause, "it does not speak HTTP/2");
  const silent = new TestConnection(ECHO);
  await silent.pass(10_500);
  assertEquals(silent.closedBecause, "it says nothing");
});

/** What a hostile client repeats, and how often before it is told to calm down at the latest. */
const FLOODS: readonly (readonly [string, (streamId: number) => Uint8Array, number])[] = [
  ["streams opened and reset", (id) => joined(headers(id), reset(id)), 2_002],
  ["DATA of nothing", (id) => id === 1 ? headers(1) : frame(FrameType.DATA, 0, 1), 2_002],
  [
    "DATA of nothing but padding",
    (id) => id === 1 ? headers(1) : frame(FrameType.DATA, FrameFlag.PADDED, 1, hex("00")),
    2_002,
  ],
  ["CONTINUATION of nothing", (id) => id === 1 ? headers(1, REQUEST, 0) : frame(FrameType.CONTINUATION, 0, 1), 2_002],
  ["DATA for streams that are over", (id) => id === 1 ? joined(headers(1), reset(1)) : message(1, hex("00")), 2_002],
  ["SETTINGS", () => setting(Setting.INITIAL_WINDOW_SIZE, 1_000), 2_002],
  ["empty SETTINGS acknowledgements", () => frame(FrameType.SETTINGS, ACK, 0), 2_002],
  ["PING", () => ping(), 10],
  ["PING answers", () => ping(ACK), 2_002],
  ["PRIORITY", () => frame(FrameType.PRIORITY, 0, 1, hex("0000000000")), 2_002],
  ["frames of an extension", () => frame(0x77, 0, 1), 2_002],
  ["windows overflown", (id) => joined(headers(id), windowUpdate(id, 0x7fffffff)), 2_002],
  ["windows grown by nothing", (id) => joined(headers(id), windowUpdate(id, 0)), 2_002],
  ["malformed requests", (id) => headers(id, [["no-pseudo", "header"]]), 2_002],
  ["heads too large", (id) => headers(id, [...REQUEST, ...Array(2_100).fill(["a", "b"])]), 2_002],
];

Deno.test("Connection calms whoever repeats what only makes work", async () => {
  for (const [what, bytes, countMax] of FLOODS) {
    const it = await greeted(held().method, { streamsMax: 1_000_000 });
    let count = 0;
    while (!it.carrier.ended && !it.carrier.destroyed && count <= countMax) {
      it.connection.receive(bytes(2 * count++ + 1));
      if (count % 50 === 0) await settle();
    }
    await settle();
    const ended = it.saidTexts().at(-1) ?? "";
    const calmed = ended.startsWith("GOAWAY 0 ") && ended.includes(",0,0,0,b");
    assert(calmed && it.carrier.ended, `${what}: ${ended} after ${count}, ${it.closedBecause}`);
  }
});

Deno.test("Connection says first that it uses no table to a client that wants a smaller one (RFC 9113 §4.3.1)", async () => {
  const it = await greeted();
  await it.receive(setting(Setting.HEADER_TABLE_SIZE, 0), headers(1), message(1, hex("61"), END_STREAM));
  await it.receive(headers(3), frame(FrameType.DATA, END_STREAM, 3));
  const blocks = it.said().filter(({ type }) => type === FrameType.HEADERS).map(({ payload }) => payload[0]);
  assertEquals(blocks.map((first) => first === 0x20), [true, false, false, false]);
});

Deno.test("Connection bounds a header block, and answers that nobody reads", async () => {
  const it = await greeted();
  const part = frame(FrameType.CONTINUATION, 0, 1, new Uint8Array(16_000));
  await it.receive(headers(1, REQUEST, 0), part, part, part, part, part);
  assertEquals(it.saidTexts(), [`${GOAWAY_CALM}0,0,0,0,b`]);
  const deaf = await greeted(ECHO, { keepaliveIntervalMs: 0 });
  deaf.carrier.takes = false;
  for (let count = 0; count < 1_999; count++) deaf.connection.receive(ping());
  for (let count = 0; count < 5_000 && !deaf.carrier.destroyed; count++) {
    deaf.nowMs += 5; // So slow that the pings alone are none too many.
    deaf.connection.receive(ping());
  }
  assertEquals(deaf.closedBecause, "it does not read what it asks for");
});

Deno.test("Connection refuses a stream beyond its limit, and takes one when another has ended (CP-008)", async () => {
  const { method, calls } = held(), it = await greeted(method, { streamsMax: 2 });
  await it.receive(headers(1), headers(3), headers(5));
  assertEquals([calls.length, it.saidTexts()], [2, ["RST_STREAM 5 0,0,0,7"]]);
  calls[0]!.finish("OK");
  await settle();
  await it.receive(headers(7));
  assertEquals(calls.length, 3);
});

/** Frames that break a rule, and the error they end the connection with. */
const BROKEN: readonly (readonly [string, Uint8Array, number])[] = [
  ["DATA of a stream never opened", frame(FrameType.DATA, 0, 9, hex("00")), H2Error.PROTOCOL_ERROR],
  ["HEADERS of an even stream", headers(2), H2Error.PROTOCOL_ERROR],
  ["a window of a stream never opened", windowUpdate(9, 1), H2Error.PROTOCOL_ERROR],
  ["RST_STREAM of a stream never opened", reset(9), H2Error.PROTOCOL_ERROR],
  ["a window of the connection beyond 2^31-1", windowUpdate(0, 0x7fffffff), H2Error.FLOW_CONTROL_ERROR],
  ["CONTINUATION of nothing", frame(FrameType.CONTINUATION, 0, 1), H2Error.PROTOCOL_ERROR],
  ["a frame within a header block", joined(headers(1, REQUEST, 0), ping()), H2Error.PROTOCOL_ERROR],
  ["PUSH_PROMISE", frame(FrameType.PUSH_PROMISE, 0, 1, hex("00000002")), H2Error.PROTOCOL_ERROR],
  ["a frame too large", frame(FrameType.PING, 0, 0, new Uint8Array(9)), H2Error.FRAME_SIZE_ERROR],
  ["a header block that is none", frame(FrameType.HEADERS, END_HEADERS, 1, hex("80")), H2Error.COMPRESSION_ERROR],
  [
    "DATA after the end",
    joined(headers(1), message(1, hex("00"), END_STREAM), message(1, hex("00"))),
    H2Error.STREAM_CLOSED,
  ],
];

Deno.test("Connection ends with who breaks a rule, and says which (RFC 9113 §5.4.1)", async () => {
  for (const [what, bytes, error] of BROKEN) {
    const { method, calls } = held(), it = await greeted(method);
    await it.receive(bytes, headers(101));
    const goaway = it.saidTexts().find((text) => text.startsWith("GOAWAY"));
    assertEquals([what, goaway?.split(",").at(-1), it.carrier.ended], [what, error.toString(16), true]);
    assert(calls.every((call) => call.over), what);
  }
  const early = new TestConnection(ECHO);
  await early.receive(joined(GREETING.subarray(0, 24), ping()));
  assertEquals(early.carrier.ended, true, "SETTINGS come first (RFC 9113 §3.4)");
});

Deno.test("Connection tells its calls when it ends, whoever ends it", async () => {
  for (const end of ["by the carrier", "by reset", "by goaway"]) {
    const { it, call } = await called();
    let over = 0;
    call.whenOver(() => over++);
    if (end === "by the carrier") it.connection.carrierClosed("closed");
    if (end === "by reset") await it.receive(reset(1));
    if (end === "by goaway") {
      await it.receive(frame(FrameType.GOAWAY, 0, 0, new Uint8Array(8)));
      assertEquals(over, 0, "calls go on");
      call.finish("OK");
      await settle();
      assertEquals(it.carrier.ended, true);
    }
    call.send([new Uint8Array(1)], () => over = 99);
    await settle();
    assertEquals([end, over, it.connection.streams.size], [end, 1, 0]);
  }
});

Deno.test("Connection is cut a second after its last words, should its client not close it", async () => {
  const it = await greeted();
  await it.receive(frame(FrameType.DATA, 0, 9, hex("00")));
  assertEquals([it.carrier.ended, it.carrier.destroyed], [true, false]);
  await it.pass(1_500);
  assertEquals([it.carrier.destroyed, it.closedBecause], [true, "it broke HTTP/2: PROTOCOL_ERROR"]);
});

Deno.test("Connection bears what is late for a stream that it has ended, and answers what is not (RFC 9113 §5.1)", async () => {
  const { method, calls } = held(), it = await greeted(method);
  await it.receive(headers(1), headers(3));
  calls[0]!.finish("ABORTED");
  await settle();
  it.said();
  const trailers = headers(1, [["a", "b"]], END_HEADERS | END_STREAM);
  await it.receive(message(1, hex("00")), trailers, reset(3), windowUpdate(3, 1));
  assertEquals([it.saidTexts(), it.carrier.ended], [[], false]);
  await it.receive(message(3, hex("00")));
  assertEquals([it.saidTexts(), it.carrier.ended], [["RST_STREAM 3 0,0,0,5"], false]);
  await it.receive(headers(3));
  assertEquals([it.saidTexts(), it.carrier.ended], [["GOAWAY 0 0,0,0,3,0,0,0,5"], true]);
});

Deno.test("Connection resets a stream whose body is not as long as its head says (RFC 9113 §8.1.1)", async () => {
  const told = (bytes: string) => headers(1, [...REQUEST, ["content-length", bytes]]);
  const cases: readonly (readonly [string, readonly Uint8Array[], boolean])[] = [
    ["8", [message(1, hex("010203"), END_STREAM)], true],
    ["8", [message(1, hex("01")), frame(FrameType.DATA, END_STREAM, 1, hex("0102"))], true],
    ["7", [message(1, hex("010203"), END_STREAM)], false],
    ["9", [message(1, hex("010203"), END_STREAM)], false],
    ["many", [message(1, hex("010203"), END_STREAM)], false],
    ["8", [headers(1, [["a", "b"]], END_HEADERS | END_STREAM)], false],
  ];
  for (const [bytes, parts, well] of cases) {
    const it = await greeted();
    await it.receive(told(bytes), ...parts);
    assertEquals(it.saidTexts().at(-1)!.startsWith("RST_STREAM 1 0,0,0,1"), !well, bytes);
  }
});
