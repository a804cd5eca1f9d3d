/** What the commands share of reading arguments: a target stands without a flag, and `-o` is short for `--output`. */
import type { ConfigDefinition, Table } from "../base/config.ts";
import { MeshError } from "../base/errors.ts";
import { TARGET_FORMS } from "../mesh/enrolment.ts";

/** Splits arguments into those for the table and the rest, in order. The value of a flag is never taken for a target. */
export function splitArguments<T extends Table>(
  definition: ConfigDefinition<T>,
  args: readonly string[],
): { readonly flags: string[]; readonly positionals: string[] } {
  const switches = new Set(
    Object.values(definition.table).filter(({ kind }) => kind.placeholder === "").map(({ flag }) => `--${flag}`),
  );
  const flags: string[] = [], positionals: string[] = [];
  for (let at = 0; at < args.length; at++) {
    const argument = args[at] === "-o" ? "--output" : args[at]!;
    if (!argument.startsWith("-")) positionals.push(argument);
    else {
      flags.push(argument);
      const takesNext = argument.startsWith("--") && !argument.includes("=") && !switches.has(argument);
      if (takesNext && at + 1 < args.length) flags.push(args[++at]!);
    }
  }
  return { flags, positionals };
}

/** Throws AMB7500 unless there is just one target. */
export function oneTarget(command: string, positionals: readonly string[]): string {
  if (positionals.length === 1) return positionals[0]!;
  throw new MeshError("AMB7500", `${command} needs one target, not ${positionals.length}`, {
    remedy: `Name it as ${TARGET_FORMS}, e.g. ${command} netns/web.`,
  });
}

/** Writes to standard output, whole, as long as somebody reads it: `head` has enough after a few lines. */
export function writeOut(text: string): void {
  const bytes = new TextEncoder().encode(text);
  try {
    for (let at = 0; at < bytes.length;) at += Deno.stdout.writeSync(bytes.subarray(at));
  } catch (error) {
    if (!(error instanceof Deno.errors.BrokenPipe)) throw error;
  }
}
