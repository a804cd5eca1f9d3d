/** `deno task sim [COUNT | FROM+COUNT | seed=N]`: runs seeds 1 to COUNT, some later ones, or one with its trace printed. */
import { runSeed } from "./run_seed.ts";

const TWICE_EVERY = 20;
const COUNT_DEFAULT = 100;

/** What the command line asks for. */
function parse(text: string | undefined): { from: number; count: number; print: boolean } {
  const match = /^(?:seed=(\d+)|(?:(\d+)\+)?(\d+))$/.exec(text ?? String(COUNT_DEFAULT));
  if (match === null) throw new TypeError(`${text} is neither COUNT, FROM+COUNT nor seed=N`);
  if (match[1] !== undefined) return { from: Number(match[1]), count: 1, print: true };
  return { from: Number(match[2] ?? 1), count: Number(match[3]), print: false };
}

const encoder = new TextEncoder();
function say(line: string): void {
  Deno.stdout.writeSync(encoder.encode(`${line}\n`));
}

const { from, count, print } = parse(Deno.args[0]);
const startedMs = performance.now();
let exchanges = 0,
  remote = 0,
  excused = 0,
  bytes = 0,
  failures = 0,
  streams = 0,
  responses = 0,
  refused = 0,
  removed = 0,
  handedOver = 0;
for (let seed = from; seed < from + count; seed++) {
  try {
    const outcome = runSeed(seed, print ? { print: say } : {});
    exchanges += outcome.exchanges;
    remote += outcome.remote;
    excused += outcome.excused;
    bytes += outcome.bytes;
    streams += outcome.streams;
    responses += outcome.responses;
    refused += outcome.refused;
    removed += outcome.removed;
    handedOver += outcome.handedOver;
    if (seed % TWICE_EVERY === 0 && runSeed(seed).hash !== outcome.hash) {
      throw new Error(`seed ${seed}: two runs differ`);
    }
  } catch (error) {
    failures++;
    const { message, cause } = error as Error;
    say(message);
    if (cause instanceof Error) say(cause.stack ?? "");
  }
}
const seconds = (performance.now() - startedMs) / 1000;
say(
  `${count} seeds, ${failures} failed, ${exchanges} exchanges (${remote} by gateway, ${excused} disturbed), ` +
    `${(bytes / 1e6).toFixed(1)} MB delivered; xDS: ${streams} streams, ${responses} responses, ` +
    `${removed} removals, ${refused} resources refused; ${handedOver} connections handed over; ${
      (count / seconds).toFixed(1)
    } seeds/s`,
);
if (failures > 0) Deno.exit(1);
