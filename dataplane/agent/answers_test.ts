import { assert, assertEquals } from "@std/assert";
import { Poller } from "../../os/poller.ts";
import { signalEventFd } from "../../os/sockets.ts";
import { createTables } from "../tables/handles.ts";
import { AnswerStatus, type Question, QuestionKind, QuestionReader, QuestionWriter } from "../tables/questions.ts";
import { type Answer, Answers } from "./answers.ts";

const SMALL = { pods: 2, identities: 2, flowsPerWorker: 4, connectionsPerWorker: 4, snapshotBytes: 4096 };
const { SOCKS_NAME } = QuestionKind;

/** The poller has a thread of its own: what it brings comes in a later turn of this one. */
async function until(condition: () => boolean): Promise<void> {
  const deadline = performance.now() + 60_000;
  while (!condition()) {
    assert(performance.now() < deadline, "it came in time");
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

Deno.test("a question crosses the ring as it was asked; one that does not fit is not asked", () => {
  const handles = createTables({ ...SMALL, workers: 2 });
  const writer = new QuestionWriter(handles, 1), reader = new QuestionReader(handles, 1);
  assertEquals(writer.push(SOCKS_NAME, 0x7fffffff, 3, true, "name.example"), true);
  assertEquals(writer.push(SOCKS_NAME, 2, 511, false, ""), true);
  assertEquals(writer.push(SOCKS_NAME, 3, 0, true, "é".repeat(182)), true);
  assertEquals(writer.push(SOCKS_NAME, 4, 0, true, "x".repeat(365)), false);
  assertEquals(new QuestionReader(handles, 0).read(), undefined);
  const common = { kind: SOCKS_NAME, podRow: 0, wantsIpv4: true };
  assertEquals(reader.read(), { ...common, number: 0x7fffffff, podRow: 3, text: "name.example" });
  assertEquals(reader.read(), { ...common, number: 2, podRow: 511, wantsIpv4: false, text: "" });
  assertEquals(reader.read(), { ...common, number: 3, text: "é".repeat(182) });
  assertEquals(reader.read(), undefined);
  for (let count = 0; count < 256; count++) assertEquals(writer.push(SOCKS_NAME, count, 0, true, "x"), true);
  assertEquals(writer.push(SOCKS_NAME, 256, 0, true, "x"), false);
});

Deno.test("each worker gets the answer to its own question, in whatever order they are found", async () => {
  const handles = createTables({ ...SMALL, workers: 2 });
  const told: unknown[] = [], gates = new Map<string, PromiseWithResolvers<Answer>>();
  const answer = ({ text }: Question) => {
    const gate = Promise.withResolvers<Answer>();
    gates.set(text, gate);
    return gate.promise;
  };
  await using poller = new Poller();
  using answers = new Answers(handles, { answer: (...it) => told.push(it) }, {
    [SOCKS_NAME]: answer,
    [QuestionKind.RESOURCE]: answer,
    [QuestionKind.HOSTNAME]: answer,
  }, poller);
  const writers = [0, 1].map((worker) => new QuestionWriter(handles, worker, () => signalEventFd(answers.wakeFd)));
  writers[0]!.push(SOCKS_NAME, 7, 0, true, "first");
  writers[1]!.push(SOCKS_NAME, 7, 0, true, "second");
  writers[1]!.push(SOCKS_NAME, 8, 0, true, "third");
  await until(() => gates.size === 3);
  gates.get("third")!.resolve([0, 0, 0xffff, 5]);
  await gates.get("third")!.promise;
  gates.get("first")!.resolve("unknown");
  gates.get("second")!.resolve("unsupported");
  await until(() => told.length === 3);
  assertEquals(told, [
    [1, 8, AnswerStatus.KNOWN, [0, 0, 0xffff, 5]],
    [0, 7, AnswerStatus.UNKNOWN, [0, 0, 0, 0]],
    [1, 7, AnswerStatus.UNSUPPORTED, [0, 0, 0, 0]],
  ]);
  writers[0]!.push(SOCKS_NAME, 9, 0, true, "again"); // The agent had read all: it is woken anew.
  await until(() => gates.size === 4);
  gates.get("again")!.resolve("unknown");
  await until(() => told.length === 4);
});
