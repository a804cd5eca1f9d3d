import { assertEquals } from "@std/assert";
import { ResponseMessage } from "./response.ts";
import { ResponseWriter } from "./response_writer.ts";

Deno.test("ResponseWriter makes a response when the one before has left, and none ahead of that (CP-441, CP-443)", () => {
  const sent: number[] = [], due = [3, 5, 7];
  let take = () => {};
  let taken = 0;
  const call = {
    send(parts: readonly Uint8Array[], callback: () => void) {
      sent.push(parts.reduce((sum, part) => sum + part.length, 0));
      take = callback;
    },
  };
  const writer = new ResponseWriter(call, () => {
    const size = due.shift();
    if (size === undefined) return undefined;
    return { message: new ResponseMessage(new Uint8Array(size)), onTaken: () => taken++ };
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
