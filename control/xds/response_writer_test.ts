import { assertEquals } from "@std/assert";
import { OutgoingMessage } from "../grpc/outgoing_message.ts";
import { ResponseWriter } from "./response_writer.ts";

Deno.test("ResponseWriter makes a response when the one before has left, and none ahead of that (CP-441, CP-443)", () => {
  const sent: number[] = [], due = [3, 5, 7];
  let take = () => {};
  let taken = 0;
  const call = {
    sendMessage({ byteLength }: OutgoingMessage, callback: () => void) {
      sent.push(byteLength);
      take = callback;
    },
  };
  const writer = new ResponseWriter(call, {
    next: () => {
      const size = due.shift();
      return size === undefined ? undefined : { message: new OutgoingMessage([new Uint8Array(size)]) };
    },
    onTaken: () => taken++,
    onFailure: (error) => {
      throw error;
    },
  });
  writer.pump();
  writer.pump();
  assertEquals([sent, due, taken], [[3], [5, 7], 0]);
  take();
  assertEquals([sent, due, taken], [[3, 5], [7], 1]);
  writer.end();
  take();
  writer.pump();
  assertEquals([sent, due, taken], [[3, 5], [7], 2]);
});

for (const broken of ["next", "send", "taken"] as const) {
  Deno.test(`ResponseWriter tells once of what ${broken} throws, and writes nothing more (CP-441)`, () => {
    const failures: unknown[] = [],
      breaks = (here: string) => {
        if (here === broken) throw new Error(here);
      };
    let asked = 0;
    const call = {
      sendMessage(_: OutgoingMessage, taken: () => void) {
        breaks("send");
        taken();
      },
    };
    const next = () => {
      asked++;
      breaks("next");
      return { message: new OutgoingMessage([new Uint8Array(1)]) };
    };
    const onTaken = () => breaks("taken");
    const writer = new ResponseWriter(call, { next, onTaken, onFailure: (error) => failures.push(error) });
    writer.pump();
    writer.pump();
    assertEquals([failures.map(String), asked], [[`Error: ${broken}`], 1]);
  });
}
