import { assertEquals } from "@std/assert";
import { FrameFlag, FrameType } from "../../wire/h2/frame_rules.ts";
import { ascii, frame, hex, joined } from "../../wire/h2/testing.ts";
import { encodeReflectionResponse } from "../../mesh/proto/reflection_codec.ts";
import { reflectionMethods } from "./reflection.ts";
import { GREETING, headers, message, REQUEST, TestConnection, windowUpdate } from "./testing.ts";

const [V1, V1_ALPHA] = reflectionMethods(() => ["a.A", "b.B"]);
const LIST = joined(hex("3a 01"), ascii("*")), SYMBOL = joined(hex("22 03"), ascii("a.A"));

/** What a call with these frames is answered: messages without their prefix, and the trailers. */
async function ask(method: typeof V1, ...parts: readonly Uint8Array[]): Promise<[Uint8Array[], string]> {
  const it = new TestConnection(method!);
  await it.receive(
    GREETING,
    headers(1, REQUEST.map(([name, value]) => [name, name === ":path" ? method!.path : value])),
  );
  it.said();
  await it.receive(windowUpdate(1, 100_000), ...parts);
  const said = it.said();
  it.connection.carrierClosed("over");
  const data = said.filter(({ type }) => type === FrameType.DATA).map(({ payload }) => payload.slice(5));
  const head = said.filter(({ type }) => type === FrameType.HEADERS).map((part) => it.text(part));
  return [data, head.at(-1) ?? "nothing"];
}

Deno.test("ServerReflection lists the services, in both of its versions (CP-002)", async () => {
  for (const method of [V1, V1_ALPHA]) {
    const [data, end] = await ask(method, message(1, LIST, FrameFlag.END_STREAM));
    const services = encodeReflectionResponse({ host: "", question: LIST, answer: { services: ["a.A", "b.B"] } });
    assertEquals([data, end], [[services], "HEADERS 1 grpc-status: 0 end"]);
  }
});

Deno.test("ServerReflection answers each question in its turn, and descriptions with why there are none (CP-002)", async () => {
  const [data] = await ask(V1, message(1, SYMBOL), message(1, LIST), frame(FrameType.DATA, FrameFlag.END_STREAM, 1));
  assertEquals([data.length, data[0]!.subarray(0, 7), data[1]![0]], [2, joined(hex("12 05"), SYMBOL), 0x12]);
});

Deno.test("ServerReflection bounds what waits for a client that does not read, and refuses bytes that are no question", async () => {
  const it = await ask(
    V1,
    ...Array.from({ length: 2_000 }, () => message(1, joined(hex("0a 40"), new Uint8Array(64)))),
  );
  assertEquals(it[1].includes("grpc-status: 8"), true);
  assertEquals((await ask(V1, message(1, hex("ff"))))[1].includes("grpc-status: 3"), true);
});
