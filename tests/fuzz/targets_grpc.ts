/** Fuzzed: what a client says to istiod's gRPC server before anybody knows who it is. */
import type { Carrier } from "../../control/grpc/carrier.ts";
import { Connection, type ConnectionOwner } from "../../control/grpc/connection.ts";
import { Methods } from "../../control/grpc/methods.ts";
import { GrpcMetrics } from "../../control/grpc/metrics.ts";
import {
  GREETING,
  headers,
  LIMITS,
  message,
  PATH,
  ping,
  REQUEST,
  reset,
  setting,
  windowUpdate,
} from "../../control/grpc/testing.ts";
import { Metrics } from "../../base/metrics.ts";
import { decodeReflectionRequest } from "../../mesh/proto/reflection_codec.ts";
import { WireFormatError } from "../../mesh/proto/wire_format_error.ts";
import { MessageReader } from "../../wire/grpc/message_reader.ts";
import { FRAME_HEADER_BYTES, FrameFlag, FrameType, Setting } from "../../wire/h2/frame_rules.ts";
import { HpackDecoder } from "../../wire/h2/hpack_decoder.ts";
import { ascii, frame, framesOf, HeaderTexts, hex, joined } from "../../wire/h2/testing.ts";
import { promise, size, sort, type Target } from "./target.ts";

const { END_STREAM, END_HEADERS } = FrameFlag;
const STREAMS_MAX = 4, MESSAGE_BYTES_MAX = 600;

/** Takes all at once. */
class QuickCarrier implements Carrier {
  readonly said: Uint8Array[] = [];
  over = false;

  write(bytes: Uint8Array, taken: () => void): void {
    promise(!this.over, "nothing is written after the end");
    this.said.push(bytes.slice());
    taken();
  }
  end(): void {
    this.over = true;
  }
  destroy(): void {
    this.over = true;
  }
}

/** Gives a server bytes in pieces of a size. @returns What became of it. */
function converse(input: Uint8Array, pieceBytes: number): string {
  const carrier = new QuickCarrier(), metrics = new Metrics();
  const methods = new Methods(new GrpcMetrics(metrics, () => 1));
  let calls = 0, over = 0, messages = 0, closed = 0;
  methods.add({
    path: PATH,
    kind: "bidi_stream",
    messageBytesMax: MESSAGE_BYTES_MAX,
    serve(call) {
      calls++;
      let answered = false;
      call.whenOver(() => over++);
      call.start({
        onMessage: (bytes) => {
          promise(bytes.length <= MESSAGE_BYTES_MAX && !call.over, "messages have a bound, and an end");
          messages++;
          if (messages % 7 === 0) call.finish("ABORTED", "enough");
          else if (!answered) call.send([bytes, bytes], () => {});
          answered = true;
        },
        onHalfClosed: () => call.finish("OK"),
      });
    },
  });
  const owner: ConnectionOwner = {
    limits: { ...LIMITS, streamsMax: STREAMS_MAX },
    onRequest: (connection, stream, fields) => methods.serve(stream, connection.peer, fields),
    onStalled: () => {},
    onClosed: () => void closed++,
  };
  const peer = { host: "10.0.0.1", port: 1, certificate: undefined, issuers: [] };
  const connection = new Connection(carrier, peer, owner, () => 1, () => 0);
  for (let at = 0; at < input.length; at += pieceBytes) {
    connection.receive(input.subarray(at, at + pieceBytes));
    promise(connection.streams.size <= STREAMS_MAX && connection.sendWindow >= 0, "streams and windows have bounds");
  }
  connection.flush();
  const texts = wellFormed(joined(...carrier.said));
  connection.carrierClosed("over");
  promise(connection.streams.size === 0 && calls === over && closed === 1, "all calls end with their connection");
  return `${texts.join()} ${size(calls)} ${size(messages)} ${carrier.over}`;
}

/** Holds what was said to HTTP/2. @returns How calls and the connection ended. */
function wellFormed(said: Uint8Array): string[] {
  const decoder = new HpackDecoder(4_096, 65_536), ends: string[] = [];
  let bytes = 0;
  for (const { type, streamId, payload } of framesOf(said)) {
    bytes += FRAME_HEADER_BYTES + payload.length;
    promise(payload.length <= 16_384, "no frame is larger than the client takes");
    if (type === FrameType.GOAWAY) ends.push(`goaway-${payload[7]}`);
    if (type === FrameType.RST_STREAM) ends.push(`reset-${payload[3]}`);
    if (type !== FrameType.HEADERS) continue;
    const texts = new HeaderTexts();
    promise(streamId % 2 === 1 && decoder.decode(payload, 0, payload.length, texts) === 0, "heads can be read");
    ends.push(...texts.texts.filter((text) => /^(grpc-status|:status): /.test(text)));
  }
  promise(bytes === said.length, "what is said are whole frames");
  return [...new Set(ends)].sort();
}

const OTHER_PATH = headers(5, [...REQUEST.slice(0, 2), [":path", "/other"], ...REQUEST.slice(3)]);
const CALL = joined(headers(1), message(1, ascii("hello")), message(1, ascii("again"), END_STREAM));

const GRPC_SERVER: Target = {
  name: "grpc-server",
  seeds: [
    joined(GREETING, CALL),
    joined(
      GREETING,
      setting(Setting.INITIAL_WINDOW_SIZE, 3),
      CALL,
      windowUpdate(1, 100),
      windowUpdate(0, 5),
      OTHER_PATH,
    ),
    joined(GREETING, headers(1), frame(FrameType.DATA, 0, 1, hex("00 00000004 01")), reset(1), ping(), headers(3)),
    joined(
      GREETING,
      headers(1, REQUEST, 0),
      frame(FrameType.CONTINUATION, END_HEADERS, 1),
      message(1, new Uint8Array(300)),
    ),
    joined(
      GREETING,
      headers(1, [...REQUEST, ["grpc-timeout", "5S"], ["grpc-encoding", "gzip"]]),
      headers(3, [["a", "b"]]),
    ),
    joined(
      GREETING,
      headers(1),
      headers(3),
      headers(5),
      headers(7),
      headers(9),
      frame(FrameType.GOAWAY, 0, 0, new Uint8Array(8)),
    ),
  ],
  bytesMax: 4_096,
  run(input) {
    const whole = converse(input, Math.max(1, input.length));
    for (const pieceBytes of [1, 7, 100]) promise(converse(input, pieceBytes) === whole, "a cut changes nothing");
    return whole;
  },
};

const GRPC_MESSAGES: Target = {
  name: "grpc-messages",
  seeds: [hex("00 00000000"), hex("00 00000002 aabb 00 00000001 cc"), hex("01 00000001 aa"), hex("00 00000259")],
  bytesMax: 2_048,
  run(input) {
    const read = (cut: number) => {
      const reader = new MessageReader(MESSAGE_BYTES_MAX), lengths: number[] = [];
      const keep = (bytes: Uint8Array) => lengths.push(bytes.length) > 0;
      const problem = reader.receive(input, 0, cut, keep) ?? reader.receive(input, cut, input.length, keep);
      promise(lengths.every((length) => length <= MESSAGE_BYTES_MAX), "messages have a bound");
      return `${lengths.length} ${problem?.status} ${problem !== undefined || reader.betweenMessages}`;
    };
    const whole = read(input.length);
    for (const cut of [0, 1, 5, input.length >> 1]) {
      promise(read(Math.min(cut, input.length)) === whole, "a cut changes nothing");
    }
    return whole;
  },
};

const REFLECTION: Target = {
  name: "proto-reflection-request",
  seeds: [hex("3a 01 2a"), hex("0a 01 68 22 03 61 2e 42"), hex("")],
  bytesMax: 512,
  run(input) {
    try {
      const { host, listsServices } = decodeReflectionRequest(input);
      promise(host.length <= input.length, "a name is no longer than its question");
      return `${listsServices} ${size(host.length)}`;
    } catch (error) {
      if (!(error instanceof WireFormatError)) throw error;
      return sort(error.message);
    }
  },
};

export const GRPC_TARGETS: readonly Target[] = [GRPC_SERVER, GRPC_MESSAGES, REFLECTION];
