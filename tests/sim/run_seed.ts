/** One seed, and what a reader needs when it fails. */
import { Trace } from "./chance.ts";
import { type Mutation, type Outcome, World } from "./world.ts";

/** Runs a seed. */
export function runSeed(seed: number, options: { print?: (line: string) => void; mutation?: Mutation } = {}): Outcome {
  const trace = new Trace(options.print);
  try {
    return new World(seed, { trace, mutation: options.mutation }).run();
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    const text = `seed ${seed}: ${error.message}\n  ${trace.lines.slice(-25).join("\n  ")}`;
    throw new Error(text, { cause: error });
  }
}
