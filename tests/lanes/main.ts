/** Runs test files in lanes side by side, each in namespaces of its own: `deno run -A tests/lanes/main.ts [--lanes N] FOLDER or FILE …`. */
import { parseArgs } from "@std/cli";
import { canIsolate, type Outcome, runBatch } from "./lane.ts";
import { type Batch, planOf } from "./plan.ts";
import { summaryLine, sumOf } from "./summary.ts";
import { WEIGHTS } from "./weights.ts";

/** A lane waits more than it computes: even one core has time for two. What tests assert of a pause holds up to four. */
const LANES_MIN = 2, LANES_MAX = 4;
const INTERRUPTED = 130;

const encoder = new TextEncoder();

function say(text: string): void {
  for (let bytes = encoder.encode(`${text}\n`); bytes.length > 0;) bytes = bytes.subarray(Deno.stdout.writeSync(bytes));
}

function testFiles(path: string): string[] {
  if (Deno.statSync(path).isFile) return [path];
  return [...Deno.readDirSync(path)].filter(({ name }) => name.endsWith("_test.ts")).map(({ name }) =>
    `${path.replace(/\/$/, "")}/${name}`
  );
}

/** Takes batches from the queue until it is empty or the run is interrupted, and tells of each when it is done. */
async function runLane(queue: Batch[], lane: { isolated: boolean; signal: AbortSignal }): Promise<Outcome[]> {
  const outcomes: Outcome[] = [];
  for (let batch = queue.shift(); batch !== undefined && !lane.signal.aborted; batch = queue.shift()) {
    const outcome = await runBatch(batch, lane);
    outcomes.push(outcome);
    say(`${outcome.output.trim()}\n-- ${batch.files.length} of the files, in ${outcome.seconds.toFixed(1)} s\n`);
  }
  return outcomes;
}

async function main(): Promise<number> {
  const { lanes, _: paths } = parseArgs(Deno.args, { string: ["lanes", "_"] });
  const startedMs = performance.now(), interrupted = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM"] as const) Deno.addSignalListener(signal, () => interrupted.abort());
  const isolated = await canIsolate();
  const wanted = Number(lanes ?? Math.min(LANES_MAX, Math.max(LANES_MIN, navigator.hardwareConcurrency - 1)));
  const count = isolated ? Math.max(1, wanted) : 1; // Lanes that see one another's networks would meet.
  const files = new Set<string>(paths.flatMap((it: string | number) => testFiles(String(it)))); // A file and its folder: once.
  const plan = planOf([...files], WEIGHTS), shared = [...plan.shared];
  const lane = { isolated, signal: interrupted.signal };
  say(`${plan.shared.length} batches in ${count} ${count === 1 ? "lane" : "lanes"}, then ${plan.alone.length} alone\n`);
  const outcomes = (await Promise.all(Array.from({ length: count }, () => runLane(shared, lane)))).flat();
  outcomes.push(...await runLane([...plan.alone], lane));
  for (const { batch, summary } of outcomes) {
    if (summary.failed > 0) say(`${summary.failed} failed in ${batch.files.join(" ")}`);
  }
  const sum = sumOf(outcomes.map((it) => it.summary));
  say(summaryLine(sum, (performance.now() - startedMs) / 1_000));
  if (interrupted.signal.aborted) return INTERRUPTED;
  return sum.failed === 0 ? 0 : 1;
}

Deno.exit(await main());
