/** The plugin as a process: reads a call, prints its answer on standard output and nothing else, logs on standard error (CNI-002, CNI-003, CNI-011). */
import { chain } from "../../base/errors.ts";
import { LEVELS, LogFilter, Logger } from "../../base/log.ts";
import { SocketAgent } from "./agent.ts";
import { CniCode, CniFailure, INPUT_BYTES_MAX, parseCall, type PluginCall, versionIn } from "./call.ts";
import { runCall } from "./plugin.ts";
import type { PodLookup } from "./plugin.ts";
import { NAMESPACES_FILE, parseAmbientNamespaces } from "../namespaces_file.ts";
import { PluginLogLines } from "../plugin_log_lines.ts";
import { type PluginConfig, runDirOf } from "./plugin_config.ts";
import { CNI_VERSIONS, type Json } from "./result.ts";

const encoder = new TextEncoder();

/** @returns The exit status. `lookup` asks the API server by the kubeconfig in the agent's run folder. */
export async function runPlugin(lookup: (config: PluginConfig) => PodLookup): Promise<number> {
  const environment = (name: string) => Deno.env.get(name);
  if ((environment("CNI_COMMAND") ?? "") === "") {
    write(Deno.stderr, `CNI plugin of ambit; versions ${CNI_VERSIONS.join(", ")}\n`);
    return 0;
  }
  let input = "", log: Logger | undefined, runDir: string | undefined;
  const lines = new PluginLogLines();
  try {
    input = await readInput();
    const call = parseCall(environment, input);
    runDir = runDirOf(call.config);
    log = loggerOf(call, lines);
    const sleep = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));
    const agent = ({ runDir }: PluginConfig) => new SocketAgent(runDir);
    const answer = await runCall(call, { agent, lookup, ambientNamespaces, log, sleep });
    if (answer !== undefined) print(answer);
    return 0;
  } catch (error) {
    const failure = error instanceof CniFailure ? error : new CniFailure(
      CniCode.OTHER,
      `the plugin failed: ${chain(error)}`,
      error instanceof Error ? error.stack ?? "" : "", // A mistake of ours must not pass for a pod that is fine.
    );
    log?.error("call failed", { code: failure.code, error: failure.message });
    print(failure.toJson(versionIn(input)));
    return 1;
  } finally {
    if (runDir !== undefined) await lines.handOver(runDir);
  }
}

/** By the file that the agent leaves in its run folder (CNI-021). */
async function ambientNamespaces({ runDir }: PluginConfig): Promise<ReadonlySet<string> | undefined> {
  try {
    return parseAmbientNamespaces(await Deno.readTextFile(`${runDir}/${NAMESPACES_FILE}`));
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.PermissionDenied) return undefined;
    throw error;
  }
}

async function readInput(): Promise<string> {
  const parts: Uint8Array<ArrayBuffer>[] = [];
  let bytes = 0;
  for await (const part of Deno.stdin.readable) {
    bytes += part.length;
    if (bytes > INPUT_BYTES_MAX) {
      throw new CniFailure(CniCode.DECODING, `the network configuration is longer than ${INPUT_BYTES_MAX} bytes`);
    }
    parts.push(part);
  }
  return await new Blob(parts).text();
}

function loggerOf({ config, containerId }: PluginCall, lines: PluginLogLines): Logger {
  const wanted = LEVELS.find((it) => it === config.plugin_log_level);
  const filter = new LogFilter(wanted ?? "warn");
  const sink = (line: string) => {
    write(Deno.stderr, `${line}\n`);
    lines.add(line);
  };
  const log = new Logger("cni-plugin", { filter, json: true, sink });
  log.debug("call", { containerId });
  return log;
}

function print(value: Json): void {
  write(Deno.stdout, `${JSON.stringify(value)}\n`);
}

function write(to: { writeSync(bytes: Uint8Array): number }, text: string): void {
  const bytes = encoder.encode(text);
  for (let at = 0; at < bytes.length;) at += to.writeSync(bytes.subarray(at));
}
