/** `deno task fuzz [--minutes N]`: the seeded tests with more and more seeds, until the time is over or one fails. */
import { parseArgs } from "@std/cli";

const FOLDERS = ["wire", "mesh", "control", "dataplane", "tests/fuzz"];
const ROUNDS_FIRST = 50;

const { minutes } = parseArgs(Deno.args, { string: ["minutes"], default: { minutes: "1" } });
const limitMs = Number(minutes) * 60_000;
if (!(limitMs > 0)) {
  await Deno.stderr.write(new TextEncoder().encode(`fuzz: --minutes takes a number above 0, not ${minutes}\n`));
  Deno.exit(64); // EX_USAGE
}
const startedMs = performance.now();
for (let rounds = ROUNDS_FIRST; performance.now() - startedMs < limitMs; rounds *= 2) {
  const test = new Deno.Command(Deno.execPath(), {
    args: ["test", "-A", "--unstable-worker-options", "--parallel", "--filter=seeded", ...FOLDERS],
    env: { FUZZ_ROUNDS: String(rounds) },
  }).spawn();
  // A run that is cut off in the middle has found nothing so far; one that fails says which seed.
  const overtime = setTimeout(() => test.kill("SIGTERM"), Math.max(1, limitMs - (performance.now() - startedMs)));
  const { code, signal } = await test.status;
  clearTimeout(overtime);
  if (signal === null && code !== 0) Deno.exit(code);
}
