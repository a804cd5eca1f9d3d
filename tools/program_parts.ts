/** What the program of all roles is made of, for whoever packs it. */

const ROOT = new URL("..", import.meta.url).pathname;

/** What roles are made of; whatever these import comes along. A worker's script and the plugin are imported by nobody. */
export const PROGRAM_ENTRIES: readonly string[] = [
  "main.ts",
  "dataplane/worker/entry.ts",
  "cni/redirection/program_thread.ts",
  "cni/plugin/entry.ts",
];

/** The runtime's own words in `deno task ambit`, so that what is packed runs as what people run. */
export async function runtimeFlags(): Promise<string[]> {
  const { tasks } = JSON.parse(await Deno.readTextFile(`${ROOT}deno.json`));
  return `${tasks.ambit.command}`.split(" ").slice(2, -1);
}

/** The words of {@link runtimeFlags} for the engine, without their `--v8-flags=`, and those for the runtime itself. */
export async function engineAndRuntimeFlags(): Promise<{ readonly engine: string; readonly runtime: string[] }> {
  const flags = await runtimeFlags(), prefix = "--v8-flags=";
  return {
    engine: flags.filter((flag) => flag.startsWith(prefix)).map((flag) => flag.slice(prefix.length)).join(","),
    runtime: flags.filter((flag) => !flag.startsWith(prefix)),
  };
}

export async function isFile(path: string): Promise<boolean> {
  try {
    return (await Deno.stat(path)).isFile;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}
