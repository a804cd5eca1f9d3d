import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { Logger } from "../../base/log.ts";
import { FrameFlag } from "../../wire/h2/frame_rules.ts";
import { frame, hex, joined } from "../../wire/h2/testing.ts";
import { FakeTime } from "./fake_time_testing.ts";
import type { CallSink, GrpcCall } from "./call.ts";
import { type Answer, type Method, unaryMethod } from "./methods.ts";
import { GREETING, headers, message, PATH, REQUEST, settle, TestConnection } from "./testing.ts";

const { END_STREAM } = FrameFlag;

function unary(answer: (question: Uint8Array) => Promise<Answer>, logLines: string[] = []): Method {
  const log = new Logger("test", { sink: (line) => void logLines.push(line) });
  return unaryMethod({ path: PATH, messageBytesMax: 100, log, answer });
}

/** What one call is told: its last HEADERS, without what every answer has. */
async function ask(method: Method, ...parts: readonly Uint8Array[]): Promise<string> {
  const it = new TestConnection(method);
  await it.receive(GREETING, ...parts);
  await settle();
  it.connection.carrierClosed("over");
  const said = it.saidTexts().filter((text) => text.startsWith("HEADERS"));
  return said.at(-1)?.replace("; grpc-accept-encoding: identity", "").replace("HEADERS 1 ", "") ?? "nothing";
}

Deno.test("A method of one question keeps it until its end, whatever becomes of the bytes that it came in", async () => {
  const method = unary((question) => Promise.resolve({ bytes: question }));
  const said: string[] = [], bytes = hex("0102");
  let sink: CallSink | undefined;
  const call = {
    start: (given: CallSink) => sink = given,
    send: ([message]: readonly Uint8Array[]) => said.push(String(message)),
    finish: (status: string) => said.push(status),
  };
  method.serve(call as unknown as GrpcCall);
  sink!.onMessage(bytes);
  bytes.fill(0xff);
  sink!.onHalfClosed();
  await settle();
  assertEquals(said, ["1,2", "OK"]);
});

const withField = (name: string, value: string) =>
  headers(1, [...REQUEST.filter(([other]) => other !== name), [name, value]]);
const HEAD = ":status: 200; content-type: application/grpc";
const ANSWERED = unary(() => Promise.resolve({ bytes: hex("01") }));

Deno.test("Methods serve gRPC, and answer what is none as HTTP does (gRPC over HTTP/2)", async () => {
  const body = message(1, hex("00"), END_STREAM);
  const cases: readonly (readonly [Uint8Array, string])[] = [
    [headers(1), "grpc-status: 0 end"],
    [withField("content-type", "application/grpc+proto"), "grpc-status: 0 end"],
    [withField("content-type", "application/grpc-web"), ":status: 415 end"],
    [withField("content-type", "text/html"), ":status: 415 end"],
    [withField(":method", "GET"), "nothing"], // `:method` comes last in this one: malformed.
    [headers(1, [[":method", "GET"], ...REQUEST.slice(1)]), ":status: 405 end"],
    [withField("grpc-encoding", "identity"), "grpc-status: 0 end"],
    [
      withField("grpc-encoding", "gzip"),
      `${HEAD}; grpc-status: 12; grpc-message: messages compressed by gzip are not taken end`,
    ],
    [withField("grpc-timeout", "soon"), `${HEAD}; grpc-status: 13; grpc-message: malformed grpc-timeout end`],
    [withField("grpc-timeout", "99999999H"), "grpc-status: 0 end"],
    [
      headers(1, [...REQUEST.slice(0, 2), [":path", "/other"], ...REQUEST.slice(3)]),
      `${HEAD}; grpc-status: 12; grpc-message: unknown method end`,
    ],
    [headers(1, [...REQUEST, ...Array(2_100).fill(["a", "b"])]), ":status: 431 end"],
  ];
  for (const [head, end] of cases) assertEquals(await ask(ANSWERED, head, body), end);
});

Deno.test("unaryMethod() takes one message and gives one answer, or says why not", async () => {
  const one = message(1, hex("0102"));
  const refusing = unary(() => Promise.resolve({ status: "NOT_FOUND", details: "no such" }));
  const cases: readonly (readonly [Method, readonly Uint8Array[], string])[] = [
    [ANSWERED, [one, frame(0, END_STREAM, 1)], "grpc-status: 0 end"],
    [ANSWERED, [frame(0, END_STREAM, 1)], "grpc-status: 12; grpc-message: no message to answer end"],
    [ANSWERED, [one, one], "grpc-status: 12; grpc-message: more than one message for one answer end"],
    [ANSWERED, [one.slice(0, 12)], "nothing"],
    [
      ANSWERED,
      [message(1, new Uint8Array(101))],
      "grpc-status: 8; grpc-message: received message larger than max (101 vs. 100) end",
    ],
    [
      ANSWERED,
      [frame(0, 0, 1, hex("01 00000000"))],
      "grpc-status: 13; grpc-message: a compressed message without grpc-encoding end",
    ],
    [
      ANSWERED,
      [frame(0, END_STREAM, 1, hex("00 00000005 01"))],
      "grpc-status: 13; grpc-message: the request ends within a message end",
    ],
    [refusing, [message(1, hex(""), END_STREAM)], "grpc-status: 5; grpc-message: no such end"],
  ];
  for (const [method, parts, end] of cases) assertEquals(await ask(method, headers(1), ...parts), end);
});

Deno.test("unaryMethod() tells a caller nothing of our own mistakes, and the log all", async () => {
  const lines: string[] = [];
  const broken = unary(() => Promise.reject(new Error("secret")), lines);
  assertEquals(
    await ask(broken, headers(1), message(1, hex(""), END_STREAM)),
    "grpc-status: 13; grpc-message: internal error end",
  );
  assertStringIncludes(lines.join(), "secret");
});

Deno.test("GrpcCall ends at its caller's deadline, and not before", async () => {
  using time = new FakeTime();
  const it = new TestConnection(unary(() => new Promise(() => {})));
  it.connection.receive(joined(GREETING, withField("grpc-timeout", "1500m"), message(1, hex(""), END_STREAM)));
  time.pass(1_499);
  await Promise.resolve();
  assertEquals(it.connection.streams.size, 1);
  time.pass(1);
  await Promise.resolve();
  await Promise.resolve();
  assert(it.saidTexts().at(-1)!.includes("grpc-status: 4"));
  assertEquals(time.pending, 0);
});

Deno.test("grpc_server_… count calls, messages and statuses by method as dashboards ask for them (CP-022)", async () => {
  const it = new TestConnection(ANSWERED);
  await it.receive(GREETING, headers(1), message(1, hex("00"), END_STREAM), headers(3), frame(0, END_STREAM, 3));
  const text = it.metrics.render(), method = 'grpc_method="Method",grpc_service="test.Service",grpc_type="unary"';
  for (
    const line of [
      `grpc_server_started_total{${method}} 2`,
      `grpc_server_handled_total{grpc_code="OK",${method}} 1`,
      `grpc_server_handled_total{grpc_code="Unimplemented",${method}} 1`,
      `grpc_server_msg_received_total{${method}} 1`,
      `grpc_server_msg_sent_total{${method}} 1`,
      `grpc_server_handling_seconds_count{${method}} 2`,
    ]
  ) assertStringIncludes(text, `\n${line}\n`);
});
