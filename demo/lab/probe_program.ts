/** The program of a probe: one JSON request a line in, one JSON answer a line out, in the order they are done. */
import { Handles } from "./probe_handles.ts";
import { operations } from "./probe_operations.ts";

interface Question {
  readonly id: number;
  readonly operation: string;
  readonly input: unknown;
}

type Work = (input: unknown) => unknown;

const works = operations(new Handles()) as unknown as Readonly<Record<string, Work>>;
const encoder = new TextEncoder();

function answer(value: unknown): void {
  const bytes = encoder.encode(`${JSON.stringify(value)}\n`);
  for (let at = 0; at < bytes.length;) at += Deno.stdout.writeSync(bytes.subarray(at));
}

async function handle({ id, operation, input }: Question): Promise<void> {
  try {
    answer({ id, output: await works[operation]!(input) });
  } catch (error) {
    answer({ id, error: error instanceof Error ? error.message : String(error) });
  }
}

answer({ ready: true });
let partial = "";
for await (const text of Deno.stdin.readable.pipeThrough(new TextDecoderStream())) {
  const lines = (partial + text).split("\n");
  partial = lines.pop() ?? "";
  for (const line of lines) handle(JSON.parse(line));
}
Deno.exit(0); // Whoever asked is gone: so are we, whatever is still open.
