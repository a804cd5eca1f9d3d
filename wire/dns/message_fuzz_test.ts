import { assertEquals } from "@std/assert";
import { Buffer } from "node:buffer";
import library from "dns-packet";
import { assert } from "../../base/assert.ts";
import { MESSAGE_BYTES_MAX, readQuery, readResponse, secondsToKeep } from "./message.ts";
import { answerBytesMax, writeForwarded, writeOwnAnswer, writeRefusal } from "./message_writer.ts";

const other = library as unknown as { encode(message: object): Uint8Array; decode(bytes: Uint8Array): object };

/** Always the same, unless FUZZ_ROUNDS asks for more (`deno task fuzz`). */
function seeds(): number[] {
  return Array.from({ length: 200 * Number(Deno.env.get("FUZZ_ROUNDS") ?? "1") }, (_, seed) => seed + 1);
}

function randomFrom(seed: number): (below: number) => number {
  let state = seed;
  return (below) => (state = (state * 48271) % 2147483647) % below;
}

const QUESTION = { name: "web.shop.example", type: "A", class: "IN" };
const OPTION = { type: "OPT", name: ".", udpPayloadSize: 1232, flags: 0x8000, options: [] };
const A = { name: "web.shop.example", type: "A", ttl: 300, data: "192.0.2.1" };
const ALIAS = { name: "web.shop.example", type: "CNAME", ttl: 300, data: "other.example" };
const GOOD = {
  query: new Uint8Array(other.encode({ type: "query", id: 7, questions: [QUESTION], additionals: [OPTION] })),
  response: new Uint8Array(
    other.encode({ type: "response", id: 7, questions: [QUESTION], answers: [ALIAS, A, A], additionals: [A, OPTION] }),
  ),
};

/** Changes, cuts, repeats and inserts bytes, the header's counts and pointers among them. */
function mutated(good: Uint8Array, random: (below: number) => number): Uint8Array {
  let bytes = [...good];
  for (let left = 1 + random(6); left > 0; left--) {
    const at = random(bytes.length + 1);
    switch (random(5)) {
      case 0:
        bytes[at] = random(256);
        break;
      case 1:
        bytes[at] = 0xc0 | random(64);
        break;
      case 2:
        bytes = bytes.slice(0, at);
        break;
      case 3:
        bytes.splice(at, 0, ...bytes.slice(0, random(40)));
        break;
      default:
        bytes[4 + random(8)] = random(4);
    }
  }
  return Uint8Array.from(bytes, (byte) => byte ?? 0);
}

Deno.test("queries with seeded damage are read or refused, and every answer to them is well-formed", () => {
  let served = 0;
  for (const seed of seeds()) {
    const random = randomFrom(seed);
    for (let round = 0; round < 50; round++) {
      const received = readQuery(mutated(GOOD.query, random));
      if (received.kind === "ignore") continue;
      if (received.kind === "refuse") {
        other.decode(Buffer.from(writeRefusal(received, received.code)));
        continue;
      }
      served++;
      const { query } = received, bytesMax = answerBytesMax(query, random(2) === 0);
      assert(bytesMax >= 512 && bytesMax <= MESSAGE_BYTES_MAX, `seed ${seed}`);
      const addresses = Array.from({ length: random(80) }, () => [0, 0, 0xffff, 1] as const);
      const answer = writeOwnAnswer(
        query,
        { name: query.name ?? "x", alias: "a.b", addresses, ttlSeconds: 30 },
        bytesMax,
      );
      assert(answer.length <= bytesMax, `seed ${seed}`);
      const again = readResponse(answer, query.id, query.question);
      assert(again !== undefined && again.code === 0, `seed ${seed}`);
    }
  }
  assert(served > 100, "some damage leaves a query");
});

Deno.test("responses with seeded damage are refused, or passed on as something that can be read again", () => {
  const received = readQuery(GOOD.query);
  assert(received.kind === "query", "the undamaged query is one");
  const { query } = received;
  let passed = 0;
  for (const seed of seeds()) {
    const random = randomFrom(seed);
    for (let round = 0; round < 50; round++) {
      const bytes = mutated(GOOD.response, random), response = readResponse(bytes, 7, query.question);
      if (response === undefined) continue;
      passed++;
      assert(secondsToKeep(bytes, response) >= 0, `seed ${seed}`);
      const bytesMax = 512 + random(200);
      const answer = writeForwarded(query, { bytes, response }, { bytesMax, ageSeconds: random(400) });
      assert(answer.length <= bytesMax, `seed ${seed}`);
      const again = readResponse(answer, query.id, query.question);
      assertEquals(
        again?.records.length,
        response.records.filter((it) => it.end <= bytesMax - 11).length,
        `seed ${seed}`,
      );
    }
  }
  assert(passed > 100, "some damage leaves a response");
});

Deno.test("noise is never more than refused, seeded", () => {
  for (const seed of seeds()) {
    const random = randomFrom(seed);
    const bytes = Uint8Array.from({ length: random(600) }, () => random(256));
    assert(readQuery(bytes).kind !== "query", `seed ${seed}`);
    const id = ((bytes[0] ?? 0) << 8) | (bytes[1] ?? 0);
    assert(readResponse(bytes, id, bytes.subarray(12, 40)) === undefined, `seed ${seed}`);
  }
});
