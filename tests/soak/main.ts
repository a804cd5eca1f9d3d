/** `deno task soak`: a mesh of two nodes under load while everything around it comes and goes, watched all the time. */
import { ConfigDefinition, defineConfig, duration, integer, oneOf } from "../../base/config.ts";
import { chain, MeshError } from "../../base/errors.ts";
import { Checks } from "../../demo/checks.ts";
import { canBuildHere, fetchImports, hasNetnsFolder, removeNetnsFolder } from "../../demo/footing.ts";
import { sweepLeftovers } from "../../demo/lab/network.ts";
import { checkLeftovers, interfaceNames } from "../../demo/leftovers.ts";
import { Soak } from "./soak.ts";

const EXIT_INTERRUPTED = 130, EXIT_USAGE = 64;

export const SOAK_CONFIG = defineConfig("deno task soak", {
  minutes: {
    kind: integer(1, 100_000, "minutes"),
    flag: "minutes",
    default: 5,
    help: "how long the load runs; memory is judged from 9 on",
  },
  seed: {
    kind: integer(0, 0x7fff_ffff),
    flag: "seed",
    default: 1,
    help: "decides what comes when, as far as machines allow",
  },
  interval: {
    kind: duration(1_000, 600_000),
    flag: "interval",
    default: 10_000,
    help: "how often everything is looked at and a line is printed",
  },
  takeover: {
    kind: duration(0, 3_600_000),
    flag: "takeover",
    default: 30_000,
    help: "how often, on average, a ztunnel is replaced by another that takes over; 0s: never",
  },
  output: {
    kind: oneOf("text", "json"),
    flag: "output",
    short: "o",
    default: "text",
    help: "json: the result alone",
  },
});

function print(text: string): void {
  const bytes = new TextEncoder().encode(`${text}\n`);
  for (let at = 0; at < bytes.length;) at += Deno.stdout.writeSync(bytes.subarray(at));
}

async function run(config: ReturnType<typeof parse>, interrupted: AbortSignal): Promise<number> {
  const json = config.output === "json", say = json ? () => {} : print;
  const folderBefore = hasNetnsFolder(), interfacesBefore = interfaceNames();
  sweepLeftovers();
  const soak = new Soak(config, { say, interrupted });
  const checks = new Checks(({ name, ok, detail }) => say(`${ok ? "ok  " : "FAIL"} ${name}: ${detail}`));
  try {
    await checks.check("it ran to its end", async () => ({ ok: true, detail: await soak.run() }));
  } finally {
    await soak[Symbol.asyncDispose]();
    if (!folderBefore) removeNetnsFolder();
    if (soak.inventory !== undefined) await checkLeftovers(checks, soak.inventory, interfacesBefore);
  }
  for (const finding of soak.findings.lines) await checks.check("found", () => ({ ok: false, detail: finding }));
  if (json) print(JSON.stringify({ ...soak.report(), checks: checks.results, ok: checks.ok }));
  else say(`\n${checks.ok ? "Nothing was found." : "Findings above."} Seed ${config.seed}, ${config.minutes} min.`);
  return interrupted.aborted ? EXIT_INTERRUPTED : checks.ok ? 0 : 1;
}

function parse(args: readonly string[]) {
  return SOAK_CONFIG.parse(args, () => undefined).config;
}

async function main(args: readonly string[]): Promise<number> {
  if (ConfigDefinition.wantsHelp(args)) {
    print(SOAK_CONFIG.help("A mesh under load while everything around it comes and goes, watched all the time."));
    return 0;
  }
  const interrupted = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    Deno.addSignalListener(signal, () => interrupted.abort());
  }
  try {
    const config = parse(args);
    if (!canBuildHere()) {
      throw new MeshError("AMB9111", "network namespaces cannot be made here", { remedy: "Run the soak as root." });
    }
    await fetchImports();
    return await run(config, interrupted.signal);
  } catch (error) {
    if (!(error instanceof MeshError)) throw error;
    print(`error: ${chain(error)}\nfix: ${error.remedy}\ncode: ${error.code}`);
    return error.code.startsWith("AMB01") ? EXIT_USAGE : 1;
  }
}

if (import.meta.main) Deno.exit(await main(Deno.args));
