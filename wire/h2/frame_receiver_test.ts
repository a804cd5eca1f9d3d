/** Tests of frame_receiver.ts: every kind of frame, cut anywhere, truncated, malformed, mutated. */
import { assertEquals } from "@std/assert";
import { FRAME_RULES, FrameFlag, FrameType, H2Error } from "./frame_rules.ts";
import { ascii, EVERY_KIND_OF_FRAME, frame, framesOf, hex, joined, latin1Text, Seeded, seeds } from "./testing.ts";
import { FrameReceiver, type FrameSink } from "./frame_receiver.ts";

const { END_STREAM, END_HEADERS, PADDED } = FrameFlag;
const ALL = joined(...EVERY_KIND_OF_FRAME);

/** Writes down what the receiver says, pieces of one DATA frame joined, so that cuts leave no trace. */
class Transcript implements FrameSink {
  readonly lines: string[] = [];
  bytes: Uint8Array = ALL;
  answer = 0;
  #data = "";

  onData(streamId: number, flowBytes: number): number {
    this.#data = `DATA ${streamId} flow=${flowBytes} `;
    return this.answer;
  }
  onDataPiece(at: number, bytes: number): void {
    this.#data += latin1Text(this.bytes, at, at + bytes);
  }
  onDataEnd(endStream: boolean, paddingBytes: number): void {
    this.lines.push(`${this.#data} padding=${paddingBytes}${endStream ? " ended" : ""}`);
  }
  onFrame(type: number, flags: number, streamId: number, bytes: Uint8Array, start: number, end: number): number {
    this.lines.push(`${FRAME_RULES[type]?.name ?? type} ${flags} ${streamId} ${latin1Text(bytes, start, end)}`);
    return this.answer;
  }
}

/** What is said of these bytes, received in these chunks; `bytes` lie where DATA pieces are looked for. */
function receive(bytes: Uint8Array, ...cuts: readonly number[]): { lines: string[]; result: number; between: boolean } {
  const sink = new Transcript();
  sink.bytes = bytes;
  const receiver = new FrameReceiver(sink, 16_384);
  let result = 0, at = 0;
  for (const cut of [...cuts, bytes.length]) {
    result = receiver.receive(bytes, at, cut);
    at = cut;
    if (result !== 0) break;
  }
  return { lines: sink.lines, result, between: receiver.betweenFrames };
}

/** The same, told by a plain reader of whole frames. */
const EXPECTED = framesOf(ALL).map(({ type, flags, streamId, payload }) => {
  if (type !== FrameType.DATA) {
    const text = type > FrameType.CONTINUATION ? "" : latin1Text(payload, 0, payload.length);
    return `${FRAME_RULES[type]?.name ?? type} ${flags} ${streamId} ${text}`;
  }
  const padding = (flags & PADDED) === 0 ? 0 : payload[0]! + 1;
  const start = padding === 0 ? 0 : 1, end = payload.length - Math.max(0, padding - 1);
  const ended = (flags & END_STREAM) === 0 ? "" : " ended";
  return `DATA ${streamId} flow=${payload.length} ${latin1Text(payload, start, end)} padding=${padding}${ended}`;
});

Deno.test("FrameReceiver gives every kind of frame, and of unknown ones the header alone (RFC 9113 §5.5)", () => {
  assertEquals(receive(ALL), { lines: EXPECTED, result: 0, between: true });
});

Deno.test("FrameReceiver says the same wherever the bytes are cut (RFC 9113 §4.1)", () => {
  for (let cut = 0; cut <= ALL.length; cut++) assertEquals(receive(ALL, cut).lines, EXPECTED, `cut at ${cut}`);
  const random = new Seeded(11);
  for (let run = 0; run < 500; run++) {
    const cuts: number[] = [];
    for (let at = 0; at < ALL.length; at += 1 + random.next(40)) cuts.push(at);
    assertEquals(receive(ALL, ...cuts).lines, EXPECTED, `run ${run}`);
  }
  assertEquals(receive(ALL, ...ALL.keys()).lines, EXPECTED, "octet by octet");
});

Deno.test("FrameReceiver says nothing early, and knows whether it stands between frames", () => {
  for (let end = 0; end < ALL.length; end++) {
    const { lines, result, between } = receive(ALL.slice(0, end));
    assertEquals([lines, result], [EXPECTED.slice(0, lines.length), 0]);
    const whole = framesOf(ALL.slice(0, end)).reduce((sum, it) => sum + 9 + it.payload.length, 0);
    assertEquals(between, whole === end, `after ${end} octets`);
  }
});

Deno.test("FrameReceiver refuses padding that leaves a DATA frame, and headers that break their rule (RFC 9113 §6)", () => {
  const check = (bytes: Uint8Array, error: number) => {
    for (let cut = 0; cut <= bytes.length; cut++) assertEquals(receive(bytes, cut).result, error, `cut at ${cut}`);
  };
  check(frame(FrameType.DATA, PADDED, 1), H2Error.FRAME_SIZE_ERROR);
  check(frame(FrameType.DATA, PADDED, 1, hex("01")), H2Error.PROTOCOL_ERROR);
  check(frame(FrameType.DATA, PADDED, 1, hex("03 0000")), H2Error.PROTOCOL_ERROR);
  check(frame(FrameType.DATA, 0, 0, ascii("x")), H2Error.PROTOCOL_ERROR);
  check(frame(FrameType.PING, 0, 0, hex("00")), H2Error.FRAME_SIZE_ERROR);
  check(frame(FrameType.HEADERS, END_HEADERS, 0), H2Error.PROTOCOL_ERROR);
});

Deno.test("FrameReceiver waits for no payload beyond its limits", () => {
  const header = (bytes: number, type: number) => Uint8Array.of(bytes >> 16, bytes >> 8, bytes, type, 0, 0, 0, 0, 1);
  assertEquals(receive(header(16_385, FrameType.DATA)).result, H2Error.FRAME_SIZE_ERROR);
  const wide = new FrameReceiver(new Transcript(), 1 << 20);
  assertEquals(wide.receive(header(65_537, FrameType.HEADERS), 0, 9), H2Error.ENHANCE_YOUR_CALM);
});

Deno.test("FrameReceiver hands on what its sink refuses, at once", () => {
  for (const bytes of EVERY_KIND_OF_FRAME) {
    const sink = new Transcript(), receiver = new FrameReceiver(sink, 16_384);
    sink.answer = H2Error.INTERNAL_ERROR;
    const twice = joined(bytes, frame(FrameType.PING, 0, 0, new Uint8Array(8)));
    sink.bytes = twice;
    assertEquals(receiver.receive(twice, 0, twice.length), H2Error.INTERNAL_ERROR);
    assertEquals(sink.lines.filter((line) => line.startsWith("PING")).length, bytes[3] === FrameType.PING ? 1 : 0);
  }
});

Deno.test("FrameReceiver never throws, and says the same for any cut, whatever comes (seeded, 50,000 streams)", () => {
  for (const seed of seeds(7)) {
    const random = new Seeded(seed);
    let refused = 0;
    for (let run = 0; run < 50_000; run++) {
      const bytes = ALL.slice(random.next(2) * 9, 40 + random.next(ALL.length - 40));
      for (let change = random.next(6); change > 0; change--) bytes[random.next(bytes.length)] = random.next(256);
      const whole = receive(bytes), cut = receive(bytes, random.next(bytes.length));
      if (whole.result < 0 || whole.result > H2Error.HTTP_1_1_REQUIRED) {
        throw new Error(`${whole.result} in run ${run}`);
      }
      if (whole.lines.join() !== cut.lines.join() || whole.result !== cut.result) {
        throw new Error(`run ${run} of seed ${seed}: a cut changed what was said`);
      }
      if (whole.result !== 0) refused++;
    }
    assertEquals(refused > 5_000 && refused < 45_000, true, `${refused} refused: the mutations reach both outcomes`);
  }
});
