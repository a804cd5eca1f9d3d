/** One message on many connections: the same bytes where it may go whole, and each one's own windows and turns otherwise. */
import { assert, assertEquals, assertNotStrictEquals, assertStrictEquals } from "@std/assert";
import { FrameType, Setting } from "../../wire/h2/frame_rules.ts";
import { framesOf, joined } from "../../wire/h2/testing.ts";
import { seededRandom } from "../../mesh/proto/hostile_bytes_testing.ts";
import { messagePrefix } from "../../wire/grpc/message_reader.ts";
import type { GrpcCall } from "./call.ts";
import { FRAMED_BYTES_MAX, OutgoingMessage } from "./outgoing_message.ts";
import { GREETING, headers, PATH, ping, setting, settle, TestConnection, windowUpdate } from "./testing.ts";

const ROUNDS = 100;

function bytesOf(length: number): Uint8Array {
  return Uint8Array.from({ length }, (_, at) => at % 251);
}

function onWire(length: number): Uint8Array {
  return joined(messagePrefix(length), bytesOf(length));
}

/** A connection that has an open call with this number, and has answered it. */
async function answered(streamId = 1): Promise<{ it: TestConnection; call: GrpcCall }> {
  let call: GrpcCall | undefined;
  const it = new TestConnection({
    path: PATH,
    kind: "bidi_stream",
    messageBytesMax: 10,
    serve: (it) => void (call = it),
  });
  await it.receive(GREETING, headers(streamId));
  call!.send([], () => {});
  await settle();
  it.said();
  return { it, call: call! };
}

Deno.test("OutgoingMessage is cut into frames as large as a client takes, wherever its parts end", () => {
  for (const [length, payloadMax] of [[0, 100], [95, 100], [96, 100], [195, 100], [200, 100], [1_000, 64]] as const) {
    for (const cut of [0, 1, length >> 1, length]) {
      const body = bytesOf(length), message = new OutgoingMessage([body.subarray(0, cut), body.subarray(cut)]);
      const frames = framesOf(message.framed(7, payloadMax));
      assertEquals(joined(...frames.map(({ payload }) => payload)), onWire(length));
      assert(frames.every(({ type, flags, streamId }) => type === FrameType.DATA && flags === 0 && streamId === 7));
      assert(frames.slice(0, -1).every(({ payload }) => payload.length === payloadMax));
    }
  }
});

Deno.test("OutgoingMessage keeps frames of few stream numbers, and those of other sizes apart", () => {
  const message = new OutgoingMessage([bytesOf(300)]), first = message.framed(1, 100);
  assertStrictEquals(message.framed(1, 100), first);
  for (const streamId of [3, 5, 7, 9]) assertEquals(framesOf(message.framed(streamId, 100))[0]!.streamId, streamId);
  assertNotStrictEquals(message.framed(1, 100), first);
  assertEquals(framesOf(message.framed(1, 50)).length, 7);
});

Deno.test("Connections write the very same bytes of a message that all may send whole (CP-658)", async () => {
  const one = await answered(), other = await answered(), third = await answered(3);
  const message = new OutgoingMessage([bytesOf(20_000)]), taken: string[] = [];
  one.call.sendMessage(message, () => taken.push("one"));
  other.call.sendMessage(message, () => taken.push("other"));
  third.call.sendMessage(message, () => taken.push("third"));
  await settle();
  assertStrictEquals(one.it.carrier.given.at(-1), other.it.carrier.given.at(-1));
  assertEquals(taken, ["one", "other", "third"]);
  for (const [{ it }, streamId] of [[one, 1], [other, 1], [third, 3]] as const) {
    const frames = it.said();
    assertEquals(frames.map((frame) => [frame.streamId, frame.payload.length]), [[streamId, 16_384], [
      streamId,
      3_621,
    ]]);
    assertEquals(joined(...frames.map(({ payload }) => payload)), onWire(20_000));
  }
});

Deno.test("A connection that has more to say, or a client that takes less, gets a message in bytes of its own (RFC 9113 §6.9)", async () => {
  const plain = await answered(), small = await answered(), busy = await answered(), large = await answered();
  const message = new OutgoingMessage([bytesOf(1_000)]);
  plain.call.sendMessage(message, () => {});
  await small.it.receive(setting(Setting.INITIAL_WINDOW_SIZE, 400));
  small.it.said();
  small.call.sendMessage(message, () => {});
  busy.it.connection.receive(ping());
  busy.call.sendMessage(message, () => {});
  await settle();
  const shared = plain.it.carrier.given.at(-1)!;
  for (const { it } of [small, busy]) assertNotStrictEquals(it.carrier.given.at(-1), shared);
  assertEquals(small.it.saidTexts(), ["DATA 1 395"]); // Five bytes of the window were spent before.
  assertEquals(busy.it.saidTexts().map((text) => text.split(" ")[0]), ["PING", "DATA"]);
  await large.it.receive(windowUpdate(0, 1_000_000), windowUpdate(1, 1_000_000));
  const whole = new OutgoingMessage([bytesOf(FRAMED_BYTES_MAX)]);
  large.call.sendMessage(whole, () => {});
  await settle();
  assertNotStrictEquals(large.it.carrier.given.at(-1), whole.framed(1, 16_384));
});

Deno.test("A call that ends with a message says both, in one write", async () => {
  const { it, call } = await answered();
  call.sendMessage(new OutgoingMessage([bytesOf(10)]), () => {});
  call.finish("OK");
  await settle();
  assertEquals(it.carrier.given.length, 3); // The greeting, the answer's head, and this.
  assertEquals(it.saidTexts(), ["DATA 1 15", "HEADERS 1 grpc-status: 0 end", "RST_STREAM 1 0,0,0,0"]);
});

Deno.test("A client that is sent shared messages is charged for every byte, whatever its windows are, seeded (CP-443, RFC 9113 §6.9)", async () => {
  const random = seededRandom(51), upTo = (max: number) => Math.floor(random() * (max + 1));
  const clients = await Promise.all([1, 1, 3].map((streamId) => answered(streamId)));
  // Of each client: what it may be sent, on its stream and in all, and what it has been sent.
  const books = clients.map(() => ({
    stream: 65_535 - 5,
    connection: 65_535 - 5,
    expected: [] as number[],
    got: 0,
    busy: false,
  }));
  const collect = (at: number) => {
    const { it } = clients[at]!, book = books[at]!;
    for (const { type, payload } of it.said()) {
      if (type !== FrameType.DATA) continue;
      book.stream -= payload.length;
      book.connection -= payload.length;
      book.got += payload.length;
    }
    assert(book.stream >= 0 && book.connection >= 0, "no more than it allows");
  };
  for (let round = 0; round < ROUNDS; round++) {
    const length = upTo(10) === 0 ? upTo(100_000) : upTo(3_000), message = new OutgoingMessage([bytesOf(length)]);
    for (const [at, { call }] of clients.entries()) {
      const book = books[at]!;
      if (book.busy) continue; // The message before is still on its way: as for a stream that is behind.
      book.busy = true;
      book.expected.push(message.wireBytes);
      call.sendMessage(message, () => book.busy = false);
    }
    await settle();
    for (const [at, { it, call }] of clients.entries()) {
      collect(at);
      const book = books[at]!, streamId = at === 2 ? 3 : 1;
      const more = upTo(2) * upTo(5_000), moreInAll = upTo(2) * upTo(5_000);
      book.stream += more;
      book.connection += moreInAll;
      if (more > 0) await it.receive(windowUpdate(streamId, more));
      if (moreInAll > 0) await it.receive(windowUpdate(0, moreInAll));
      if (upTo(4) === 0) await it.receive(ping());
      collect(at);
      const owed = book.expected.reduce((sum, bytes) => sum + bytes, 0) - book.got;
      assertEquals(owed > 0, book.busy, "all of it has left when it is said to have");
      assert(owed === 0 || book.stream === 0 || book.connection === 0, "what is allowed is used");
      assert(!call.over);
    }
  }
  assert(books.every(({ expected }) => expected.length > 10));
});
