/** `deno task bench`: picks the benchmark and hands over. */
import { chain, MeshError } from "../base/errors.ts";
import { runL4 } from "./macro/l4.ts";
import { USAGE } from "./macro/options.ts";

const EXIT_USAGE = 64; // EX_USAGE of sysexits.h

async function main(args: readonly string[]): Promise<number> {
  const [name, ...rest] = args;
  if (name === "--help" || name === "-h" || rest.includes("--help") || rest.includes("-h")) return say(USAGE, 0);
  if (name !== "l4") return say(USAGE, EXIT_USAGE);
  try {
    return await runL4(rest);
  } catch (error) {
    if (!(error instanceof MeshError)) throw error;
    return say(`bench l4: ${error.code}: ${chain(error)}\n  try: ${error.remedy}\n`, 1);
  }
}

function say(text: string, status: number): number {
  (status === 0 ? Deno.stdout : Deno.stderr).writeSync(new TextEncoder().encode(text));
  return status;
}

if (import.meta.main) Deno.exit(await main(Deno.args));
