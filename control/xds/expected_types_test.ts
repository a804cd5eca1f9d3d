/** How long both types are waited for, with timers that the test lets go off. */
import { assertEquals } from "@std/assert";
import { awaitBoth } from "./expected_types.ts";

class Rig {
  expects = true;
  givenUp = 0;
  readonly #timers: (() => void)[] = [];
  readonly waiting = awaitBoth(() => this.expects, () => this.givenUp++, (callback) => {
    this.#timers.push(callback);
    return () => void this.#timers.splice(this.#timers.indexOf(callback), 1);
  });

  /** Lets what is due go off, at most so often. @returns How often it did. */
  wake(times: number): number {
    let woken = 0;
    while (woken < times && this.#timers.length > 0) {
      this.#timers.shift()!();
      woken++;
    }
    return woken;
  }
}

Deno.test("awaitBoth() gives up once, after slices between which a process that stood still reads what came (CP-427)", () => {
  const rig = new Rig();
  rig.wake(1); // However late it is: all that came while nothing ran is read before the next.
  assertEquals(rig.givenUp, 0);
  assertEquals([rig.wake(100), rig.givenUp], [9, 1]);
});

Deno.test("awaitBoth() ends when both were asked for, or the client has left (CP-427)", () => {
  const asked = new Rig();
  asked.wake(3);
  asked.expects = false;
  assertEquals([asked.wake(100), asked.givenUp], [1, 0]);
  const left = new Rig();
  left.wake(3);
  left.waiting.cancel();
  assertEquals([left.wake(100), left.givenUp], [0, 0]);
});
