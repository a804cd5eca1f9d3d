/**
 * `deno task fuzz [--minutes N] [--target NAME] [--keep] [--seed N]`: searches every target for inputs that break it, and
 * meanwhile runs the seeded tests with more and more seeds, until the time is over or something fails. With `--keep`
 * inputs that led to something new are written to the corpus, which `deno task test` replays.
 */
import { parseArgs } from "@std/cli";
import { addToCorpus, readCorpus } from "./corpus.ts";
import { Broken, Fuzzer } from "./fuzzer.ts";
import { TARGETS } from "./targets.ts";

const FOLDERS = ["base", "wire", "mesh", "control", "dataplane", "tests/fuzz"];
const ROUNDS_FIRST = 50;
const SLICE_MS = 200; // of each target in turn
const HEAP_GROWTH_BYTES_MAX = 512 * 1024 ** 2; // a target that keeps what it is given would pass it within a minute
const EXIT_USAGE = 64; // EX_USAGE of sysexits.h

const options = parseArgs(Deno.args, {
  string: ["minutes", "target", "seed"],
  boolean: ["keep"],
  default: { minutes: "1", seed: String(Date.now() % 0x7fff_ffff) },
});
const limitMs = Number(options.minutes) * 60_000, seed = Number(options.seed);
const targets = TARGETS.filter((target) => options.target === undefined || target.name === options.target);
const encoder = new TextEncoder();

function say(line: string): void {
  Deno.stdout.writeSync(encoder.encode(`${line}\n`));
}

function refuse(reason: string): never {
  Deno.stderr.writeSync(encoder.encode(`fuzz: ${reason}\n`));
  Deno.exit(EXIT_USAGE);
}

if (!(limitMs > 0)) refuse(`--minutes takes a number above 0, not ${options.minutes}`);
if (!Number.isInteger(seed)) refuse(`--seed takes a whole number, not ${options.seed}`);
if (targets.length === 0) refuse(`--target takes one of ${TARGETS.map((target) => target.name).join(", ")}`);

/** Runs the seeded tests until the deadline. @returns The exit status of the run that failed, or 0. */
async function runTests(deadlineMs: number): Promise<number> {
  for (let rounds = ROUNDS_FIRST; performance.now() < deadlineMs; rounds *= 2) {
    const test = new Deno.Command(Deno.execPath(), {
      args: ["test", "-A", "--unstable-worker-options", "--parallel", "--filter=seeded", ...FOLDERS],
      env: { FUZZ_ROUNDS: String(rounds) },
    }).spawn();
    // A run that is cut off in the middle has found nothing so far; one that fails says which seed.
    const overtime = setTimeout(() => test.kill("SIGTERM"), Math.max(1, deadlineMs - performance.now()));
    const { code, signal } = await test.status;
    clearTimeout(overtime);
    if (signal === null && code !== 0) return code;
  }
  return 0;
}

/** Searches all targets in turn until the deadline. @returns Whether no promise was broken. */
async function search(deadlineMs: number): Promise<boolean> {
  const fuzzers: Fuzzer[] = [], known = new Map<string, ReadonlySet<string>>(), broken = new Set<string>();
  const heapBefore = Deno.memoryUsage().heapUsed;
  const guard = (name: string, work: () => void) => {
    try {
      work();
    } catch (error) {
      if (!(error instanceof Broken)) throw error;
      broken.add(name);
      say(`BROKEN ${error.message}\n${error.cause instanceof Error ? error.cause.stack : ""}`);
      if (options.keep) addToCorpus(name, [["once broke a promise", error.input]]);
    }
  };
  for (const target of targets) {
    guard(target.name, () => {
      const fuzzer = new Fuzzer(target, seed, readCorpus(target.name));
      known.set(target.name, new Set(fuzzer.outcomes.keys()));
      fuzzers.push(fuzzer);
    });
  }
  while (performance.now() < deadlineMs && fuzzers.some((it) => !broken.has(it.target.name))) {
    for (const fuzzer of fuzzers) {
      if (broken.has(fuzzer.target.name)) continue;
      const untilMs = Math.min(deadlineMs, performance.now() + SLICE_MS);
      guard(fuzzer.target.name, () => {
        while (performance.now() < untilMs) fuzzer.step();
      });
    }
    const grown = Deno.memoryUsage().heapUsed - heapBefore;
    if (grown > HEAP_GROWTH_BYTES_MAX) {
      throw new Error(`the heap has grown by ${grown} bytes: a target keeps its inputs`);
    }
    await new Promise((resolve) => setTimeout(resolve)); // The tests beside us are looked after.
  }
  for (const fuzzer of fuzzers) {
    const { target, inputCount, outcomes } = fuzzer;
    const fresh = [...outcomes].filter(([word]) => !known.get(target.name)!.has(word));
    const kept = options.keep
      ? addToCorpus(target.name, fresh.map(([word, input]) => [word, fuzzer.shrink(word, input)]))
      : 0;
    say(`${target.name}: ${inputCount} inputs, ${outcomes.size} outcomes, ${fresh.length} new, ${kept} kept`);
  }
  return broken.size === 0;
}

const deadlineMs = performance.now() + limitMs;
say(`fuzz: seed ${seed}, ${targets.length} targets`);
const [held, code] = await Promise.all([
  search(deadlineMs),
  options.target === undefined ? runTests(deadlineMs) : Promise.resolve(0),
]);
Deno.exit(held ? code : 1);
