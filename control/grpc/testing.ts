/** A connection without a socket for tests: a client of single frames, a carrier that takes when it is told to, a clock that is moved. */
import { writeField } from "../../wire/h2/hpack_encoder.ts";
import { CLIENT_PREFACE, FrameFlag, FrameType } from "../../wire/h2/frame_rules.ts";
import { HpackDecoder } from "../../wire/h2/hpack_decoder.ts";
import { frame, framesOf, HeaderTexts, hex, joined, type WholeFrame } from "../../wire/h2/testing.ts";
import { messagePrefix } from "../../wire/grpc/message_reader.ts";
import { writeUint32 } from "../../wire/bytes.ts";
import type { RequestFields } from "../../wire/h2/request_fields.ts";
import { Metrics } from "../../base/metrics.ts";
import type { Carrier } from "./carrier.ts";
import { Connection, type ConnectionLimits, type ConnectionOwner } from "./connection.ts";
import { type Method, Methods } from "./methods.ts";
import { GrpcMetrics } from "./metrics.ts";
import type { ServerStream } from "./server_stream.ts";

export const LIMITS: ConnectionLimits = {
  streamsMax: 100,
  keepaliveIntervalMs: 30_000,
  keepaliveTimeoutMs: 10_000,
  ageMsMax: Infinity,
  ageGraceMs: 1_000,
  stallMsMax: 60_000,
};

export const PATH = "/test.Service/Method";
export const REQUEST: readonly (readonly [string, string])[] = [
  [":method", "POST"],
  [":scheme", "https"],
  [":path", PATH],
  [":authority", "istiod"],
  ["content-type", "application/grpc"],
  ["te", "trailers"],
];

/** Bytes that a client sends first. */
export const GREETING: Uint8Array = joined(CLIENT_PREFACE, frame(FrameType.SETTINGS, 0, 0));

/** HEADERS of these fields. */
export function headers(
  streamId: number,
  fields: readonly (readonly [string, string])[] = REQUEST,
  flags: number = FrameFlag.END_HEADERS,
): Uint8Array {
  const block = new Uint8Array(80_000);
  let end = 0;
  for (const [name, value] of fields) end = writeField(block, end, name, value);
  return frame(FrameType.HEADERS, flags, streamId, block.slice(0, end));
}

/** DATA with one whole message. */
export function message(streamId: number, bytes: Uint8Array, flags = 0): Uint8Array {
  return frame(FrameType.DATA, flags, streamId, joined(messagePrefix(bytes.length), bytes));
}

export function windowUpdate(streamId: number, bytes: number): Uint8Array {
  return frame(FrameType.WINDOW_UPDATE, 0, streamId, word(bytes));
}

export function reset(streamId: number): Uint8Array {
  return frame(FrameType.RST_STREAM, 0, streamId, word(8));
}

export function ping(flags = 0, payload: Uint8Array = hex("0102030405060708")): Uint8Array {
  return frame(FrameType.PING, flags, 0, payload);
}

/** SETTINGS of one setting. */
export function setting(identifier: number, value: number): Uint8Array {
  return frame(FrameType.SETTINGS, 0, 0, joined(Uint8Array.of(0, identifier), word(value)));
}

function word(value: number): Uint8Array {
  const bytes = new Uint8Array(4);
  writeUint32(bytes, 0, value);
  return bytes;
}

/** Keeps what it is given; takes it when told to, or at once. */
export class TestCarrier implements Carrier {
  /** Copies of what it was given, and what it was given itself. */
  readonly writes: Uint8Array[] = [];
  readonly given: Uint8Array[] = [];
  readonly waiting: (() => void)[] = [];
  takes = true;
  ended = false;
  destroyed = false;

  write(bytes: Uint8Array, taken: () => void): void {
    this.writes.push(bytes.slice());
    this.given.push(bytes);
    if (this.takes) queueMicrotask(taken);
    else this.waiting.push(taken);
  }

  end(): void {
    this.ended = true;
  }

  destroy(): void {
    this.destroyed = true;
  }
}

export class TestConnection implements ConnectionOwner {
  readonly limits: ConnectionLimits;
  readonly carrier = new TestCarrier();
  readonly connection: Connection;
  readonly metrics = new Metrics();
  readonly #methods: Methods;
  readonly #decoder = new HpackDecoder(4_096, 65_536);
  nowMs = 1_000;
  closedBecause: string | undefined;
  stalled = 0;

  constructor(method: Method, limits: Partial<ConnectionLimits> = {}) {
    this.limits = { ...LIMITS, ...limits };
    this.#methods = new Methods(new GrpcMetrics(this.metrics, () => this.nowMs));
    this.#methods.add(method);
    const peer = { host: "10.0.0.1", port: 4_711, certificate: undefined, issuers: [] };
    this.connection = new Connection(this.carrier, peer, this, () => this.nowMs, () => 0.5);
  }

  onRequest(connection: Connection, stream: ServerStream, fields: RequestFields | undefined): void {
    this.#methods.serve(stream, connection.peer, fields);
  }

  onStalled(): void {
    this.stalled++;
  }

  onClosed(_connection: Connection, reason: string): void {
    this.closedBecause = reason;
  }

  /** Gives it bytes, and lets it say what it has to say. */
  async receive(...parts: readonly Uint8Array[]): Promise<void> {
    for (const part of parts) this.connection.receive(part);
    await settle();
  }

  /** Moves the clock, as a server's timer would see it. */
  async pass(ms: number, stepMs = 250): Promise<void> {
    for (const endMs = this.nowMs + ms; this.nowMs < endMs;) {
      this.nowMs += Math.min(stepMs, endMs - this.nowMs);
      this.connection.tick();
      await settle();
    }
  }

  /** All frames said since the last call. */
  said(): WholeFrame[] {
    return framesOf(joined(...this.carrier.writes.splice(0)));
  }

  /** The same as texts: headers decoded, data by its size. */
  saidTexts(): string[] {
    return this.said().map((it) => this.text(it));
  }

  text({ type, flags, streamId, payload }: WholeFrame): string {
    const name = Object.entries(FrameType).find(([, number]) => number === type)![0];
    const end = (type === FrameType.DATA || type === FrameType.HEADERS) && (flags & FrameFlag.END_STREAM) !== 0;
    if (type === FrameType.DATA) return `DATA ${streamId} ${payload.length}${end ? " end" : ""}`;
    if (type !== FrameType.HEADERS) {
      return `${name}${flags === 0 ? "" : ` ${flags}`} ${streamId} ${
        [...payload].map((byte) => byte.toString(16)).join()
      }`;
    }
    const texts = new HeaderTexts();
    this.#decoder.decode(payload, 0, payload.length, texts);
    return `HEADERS ${streamId} ${texts.texts.join("; ")}${end ? " end" : ""}`;
  }
}

/** Microtasks have run. */
export async function settle(): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, 0));
}
