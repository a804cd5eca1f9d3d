/** `deno task bench`: picks the benchmark and hands over. */
import { chain, MeshError } from "../base/errors.ts";
import { runControl } from "./control/control.ts";
import { CONTROL_USAGE } from "./control/options.ts";
import { runL4 } from "./macro/l4.ts";
import { USAGE } from "./macro/options.ts";
import { REDIRECT_USAGE, runRedirect } from "./redirect/redirect.ts";

const EXIT_USAGE = 64; // EX_USAGE of sysexits.h

const BENCHMARKS: Readonly<Record<string, { usage: string; run: (args: readonly string[]) => Promise<number> }>> = {
  l4: { usage: USAGE, run: runL4 },
  control: { usage: CONTROL_USAGE, run: runControl },
  redirect: { usage: REDIRECT_USAGE, run: runRedirect },
};

async function main(args: readonly string[]): Promise<number> {
  const [name = "", ...rest] = args, wanted = rest.some(isHelp), all = `${USAGE}\n${CONTROL_USAGE}\n${REDIRECT_USAGE}`;
  if (isHelp(name)) return say(all, 0);
  const benchmark = BENCHMARKS[name];
  if (benchmark === undefined) return say(all, EXIT_USAGE);
  if (wanted) return say(benchmark.usage, 0);
  try {
    return await benchmark.run(rest);
  } catch (error) {
    if (!(error instanceof MeshError)) throw error;
    return say(`bench ${name}: ${error.code}: ${chain(error)}\n  try: ${error.remedy}\n`, 1);
  }
}

const isHelp = (argument: string) => argument === "--help" || argument === "-h";

function say(text: string, status: number): number {
  (status === 0 ? Deno.stdout : Deno.stderr).writeSync(new TextEncoder().encode(text));
  return status;
}

if (import.meta.main) Deno.exit(await main(Deno.args));
