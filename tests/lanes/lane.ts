/** A lane: where test processes run one after the other, with a network and named namespaces that no other lane sees. */
import type { Batch } from "./plan.ts";
import { readSummary, type Summary } from "./summary.ts";

const UNSHARE = ["--mount", "--net", "--propagation", "private"];
/** Own named namespaces and a loopback that is up, then what we were called for, in the same process: signals reach it. */
const SETTLE = `mkdir -p /run/netns && mount -t tmpfs none /run/netns && ip link set lo up && exec "$@"`;
const TEST = ["test", "-A", "--unstable-worker-options"];

export interface Outcome {
  readonly batch: Batch;
  readonly summary: Summary;
  /** What was printed, without the summary. */
  readonly output: string;
  readonly seconds: number;
}

/** Whether this process may give lanes namespaces of their own. */
export async function canIsolate(): Promise<boolean> {
  try {
    return (await new Deno.Command("unshare", { args: [...UNSHARE, "sh", "-c", SETTLE, "lane", "true"] }).output())
      .success;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

/** Runs the files of a batch to their end. Fails by what it returns: a run that ends without a word counts as one failed. */
export async function runBatch(
  batch: Batch,
  { isolated, signal }: { readonly isolated: boolean; readonly signal: AbortSignal },
): Promise<Outcome> {
  const test = [Deno.execPath(), ...TEST, ...batch.files], startedMs = performance.now();
  const [program, ...args] = isolated && !batch.fetching
    ? ["unshare", ...UNSHARE, "sh", "-c", SETTLE, "lane", ...test]
    : test;
  const child = new Deno.Command(program!, {
    args,
    env: { NO_COLOR: "1" }, // What it prints is read.
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const end = () => child.kill("SIGTERM");
  signal.addEventListener("abort", end);
  const pieces: Uint8Array[] = [];
  const collect = async (stream: ReadableStream<Uint8Array>) => {
    for await (const bytes of stream) pieces.push(bytes);
  };
  const [{ success }] = await Promise.all([child.status, collect(child.stdout), collect(child.stderr)]);
  signal.removeEventListener("abort", end);
  const { summary, rest } = readSummary(await new Blob(pieces as BlobPart[]).text());
  const told = summary ?? { passed: 0, steps: 0, failed: 0, ignored: 0 };
  return {
    batch,
    summary: !success && told.failed === 0 ? { ...told, failed: 1 } : told,
    output: rest,
    seconds: (performance.now() - startedMs) / 1_000,
  };
}
