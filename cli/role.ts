/** What every role has around it: its settings read, a log, and a signal that asks it to end. */
import { ConfigDefinition, type Given, type Parsed, type Table } from "../base/config.ts";
import { LineBuffer } from "../base/line_buffer.ts";
import { LogFilter, Logger } from "../base/log.ts";
import { writeOut } from "../base/standard_output.ts";

const LAST_LINES_MS = 1_000; // An output that nobody reads must not keep a role from ending.
const EXIT_INTERRUPTED = 130; // 128 and SIGINT, as a shell has it.

export interface Role {
  readonly signal: AbortSignal;
  readonly log: Logger;
  readonly filter: LogFilter;
}

/** Where settings come from besides flags. */
export interface Sources {
  environment(name: string): string | undefined;
  /** What stands below the environment. */
  below?(name: string): Given | undefined;
}

/** Runs the role until it ends or is asked to. @returns Its exit status. @throws MeshError for settings, and what the role throws. */
export async function runRole<T extends Table>(
  definition: ConfigDefinition<T>,
  summary: string,
  args: readonly string[],
  run: (config: Parsed<T>["config"], role: Role) => Promise<void>,
  sources: Sources = { environment: (name) => Deno.env.get(name) },
): Promise<number> {
  if (ConfigDefinition.wantsHelp(args)) {
    writeOut(definition.help(summary));
    return 0;
  }
  const parsed = definition.parse(args, sources.environment, sources.below);
  const lines = new LineBuffer(Deno.stdout, (count) => log.warn("log lines dropped, nobody read them", { count }));
  const filter = new LogFilter();
  const json = (parsed.config as Record<string, unknown>)["logFormat"] === "json";
  const log = new Logger("ambit", { filter, json, sink: lines.write });
  log.info("settings", definition.changed(parsed));
  const stop = new AbortController();
  let interrupts = 0;
  const onTerminate = () => stop.abort();
  const onInterrupt = () => {
    if (interrupts++ > 0) Deno.exit(EXIT_INTERRUPTED); // A second one does not wait for the drain (ZT-224).
    stop.abort();
  };
  Deno.addSignalListener("SIGTERM", onTerminate);
  Deno.addSignalListener("SIGINT", onInterrupt);
  try {
    await run(parsed.config, { signal: stop.signal, log, filter });
    return 0;
  } finally {
    Deno.removeSignalListener("SIGTERM", onTerminate);
    Deno.removeSignalListener("SIGINT", onInterrupt);
    await Promise.race([lines.flush(), new Promise((resolve) => setTimeout(resolve, LAST_LINES_MS))]);
  }
}
