/** Every target on what earlier searches kept and what chance makes of it; and the search itself held to finding things. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { seeds } from "../../wire/h2/testing.ts";
import { corpusNames, readCorpus } from "./corpus.ts";
import { Broken, Fuzzer, INPUT_MS_MAX } from "./fuzzer.ts";
import { promise, type Target } from "./target.ts";
import { TARGETS } from "./targets.ts";

const INPUTS_A_SEED = 300;

for (const target of TARGETS) {
  Deno.test(`${target.name} keeps its promises on what is kept and what chance makes of it, seeded`, () => {
    for (const seed of seeds(3)) {
      const fuzzer = new Fuzzer(target, seed, readCorpus(target.name));
      for (let count = 0; count < INPUTS_A_SEED; count++) fuzzer.step();
      assert(fuzzer.outcomes.size > 1, "seeds and changes lead to different ends");
    }
  });
  Deno.test(`${target.name} keeps its promises wherever a good input is cut`, () => {
    for (const whole of target.seeds) {
      for (let end = 0; end < whole.length; end++) target.run(whole.slice(0, end));
    }
  });
}

Deno.test("what is kept belongs to a target, and each target's name is its own", () => {
  const names = TARGETS.map((target) => target.name);
  assertEquals(new Set(names).size, names.length);
  assertEquals(corpusNames().filter((name) => !names.includes(name)), []);
});

/** Breaks behind four steps that only show as a new word each. */
const HIDDEN: Target = {
  name: "hidden",
  seeds: [Uint8Array.of(1, 2, 3, 4, 5, 6)],
  bytesMax: 20,
  run(input) {
    const wanted = [0xff, 0x80, 0x0a, 0x7f];
    let steps = 0;
    while (steps < wanted.length && input[steps] === wanted[steps]) steps++;
    promise(steps < wanted.length, "nobody gets here");
    return String(steps);
  },
};

Deno.test("Fuzzer finds what is hidden behind steps, since it keeps what leads to something new", () => {
  const fuzzer = new Fuzzer(HIDDEN, 1);
  const broken = assertThrows(() => {
    for (let count = 0; count < 200_000; count++) fuzzer.step();
  }, Broken);
  assertEquals([...(broken as Broken).input.subarray(0, 4)], [0xff, 0x80, 0x0a, 0x7f]);
  assert(fuzzer.outcomes.size >= 3, "on the way it kept the steps");
});

Deno.test("Fuzzer.shrink() leaves of an input what matters", () => {
  const target: Target = {
    name: "shrink",
    seeds: [],
    bytesMax: 100,
    run: (input) => String(input.includes(7) && input.includes(9)),
  };
  const input = Uint8Array.from({ length: 60 }, (_, at) => at);
  assertEquals([...new Fuzzer(target, 1).shrink("true", input)], [7, 9]);
});

Deno.test("Fuzzer names an input that takes long, and not one that was slow by chance", () => {
  let nowMs = 0, slow = 0;
  const target: Target = { name: "slow", seeds: [new Uint8Array(3)], bytesMax: 3, run: () => (nowMs += slow, "x") };
  const fuzzer = new Fuzzer(target, 1, [], () => nowMs);
  slow = INPUT_MS_MAX + 1;
  assertThrows(() => fuzzer.step(), Broken, "takes longer");
  target.run = () => (nowMs += slow, slow = 0, "x");
  slow = INPUT_MS_MAX + 1;
  fuzzer.step();
});
