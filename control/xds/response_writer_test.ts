/** Large responses take turns, small ones do not; and which streams have to make room. */
import { assertEquals } from "@std/assert";
import { CarriedBytes } from "./carried_bytes.ts";
import { ResponseMessage } from "./response.ts";
import { ResponseWriter, WriteBudget } from "./response_writer.ts";
import type { AdsCall } from "./stream_gate.ts";

const LARGE = 1_000_000;

class Rig {
  readonly written: string[] = [];
  #timers: (() => void)[] = [];
  readonly budget = new WriteBudget({
    bytesMax: 2 * LARGE,
    holdMsMax: 10,
    schedule: (callback) => {
      this.#timers.push(callback);
      return () => this.#timers = this.#timers.filter((it) => it !== callback);
    },
  });

  /** A stream whose transport takes everything at once, as the runtime's does. */
  stream(name: string, sizes: number[]): ResponseWriter {
    const call = {
      write: (message: ResponseMessage, callback: () => void) => {
        this.written.push(`${name}:${message.byteLength}`);
        callback();
      },
    } as unknown as AdsCall;
    return new ResponseWriter(call, this.budget, () => {
      const size = sizes.shift();
      return size === undefined ? undefined : { message: new ResponseMessage(new Uint8Array(size)), typeUrl: "t" };
    });
  }

  /** Lets the time run out for all that is held. */
  expire(): void {
    for (const timer of this.#timers.splice(0)) timer();
  }

  get timers(): number {
    return this.#timers.length;
  }
}

Deno.test("ResponseWriter lets large responses go in turn, as others are acknowledged (CP-658)", () => {
  const rig = new Rig();
  const writers = ["a", "b", "c", "d"].map((name) => rig.stream(name, [LARGE]));
  for (const writer of writers) writer.pump();
  assertEquals(rig.written, ["a:1000000", "b:1000000"]);
  writers[0]!.settled("other");
  assertEquals(rig.written.length, 2, "an acknowledgement of another type");
  writers[0]!.settled("t");
  writers[0]!.settled("t");
  assertEquals(rig.written, ["a:1000000", "b:1000000", "c:1000000"]);
  writers[3]!.end();
  writers[1]!.settled("t");
  writers[2]!.settled("t");
  assertEquals([rig.written.length, rig.timers], [3, 0], "who has left is not written to, and nothing is held");
});

Deno.test("ResponseWriter lets small responses go at once, whatever waits (CP-443)", () => {
  const rig = new Rig();
  for (const name of ["a", "b", "c"]) rig.stream(name, [LARGE]).pump();
  rig.stream("d", [10, 20]).pump();
  assertEquals(rig.written.slice(2), ["d:10", "d:20"]);
});

Deno.test("WriteBudget holds nobody up for a client that never acknowledges (CP-443)", () => {
  const rig = new Rig();
  for (const name of ["a", "b", "c", "d"]) rig.stream(name, [LARGE]).pump();
  rig.expire();
  assertEquals(rig.written, ["a:1000000", "b:1000000", "c:1000000", "d:1000000"]);
});

Deno.test("CarriedBytes names who has carried more than its share, once all have carried too much", () => {
  const carried = new CarriedBytes<string>(100);
  carried.add("a", 60);
  carried.add("b", 10);
  assertEquals([carried.isTooMuch("a"), carried.total], [false, 70]);
  carried.add("c", 40);
  assertEquals(["a", "b", "c", "d"].filter((it) => carried.isTooMuch(it)), ["a", "c"]);
  carried.forget("a");
  carried.forget("a");
  assertEquals([carried.isTooMuch("c"), carried.total], [false, 50]);
});
