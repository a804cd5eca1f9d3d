/** The plugin as a process: reads a call, prints its answer on standard output and nothing else, logs on standard error (CNI-002, CNI-003, CNI-011). */
import { chain } from "../../base/errors.ts";
import { LEVELS, LogFilter, Logger } from "../../base/log.ts";
import { SocketAgent } from "./agent.ts";
import { CniCode, CniFailure, INPUT_BYTES_MAX, parseCall, type PluginCall, versionIn } from "./call.ts";
import { runCall } from "./plugin.ts";
import type { PodLookup } from "./plugin.ts";
import type { PluginConfig } from "./plugin_config.ts";
import { CNI_VERSIONS, type Json } from "./result.ts";

const encoder = new TextEncoder();

/** @returns The exit status. `lookup` asks the API server by the kubeconfig in the agent's run folder. */
export async function runPlugin(lookup: (config: PluginConfig) => PodLookup): Promise<number> {
  const environment = (name: string) => Deno.env.get(name);
  if ((environment("CNI_COMMAND") ?? "") === "") {
    write(Deno.stderr, `CNI plugin of ambit; versions ${CNI_VERSIONS.join(", ")}\n`);
    return 0;
  }
  let input = "";
  try {
    input = await readInput();
    const call = parseCall(environment, input);
    const log = loggerOf(call);
    const sleep = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));
    const answer = await runCall(call, { agent: ({ runDir }) => new SocketAgent(runDir), lookup, log, sleep });
    if (answer !== undefined) print(answer);
    return 0;
  } catch (error) {
    const failure = error instanceof CniFailure ? error : new CniFailure(
      CniCode.OTHER,
      `the plugin failed: ${chain(error)}`,
      error instanceof Error ? error.stack ?? "" : "", // A mistake of ours must not pass for a pod that is fine.
    );
    print(failure.toJson(versionIn(input)));
    return 1;
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

function loggerOf({ config, containerId }: PluginCall): Logger {
  const wanted = LEVELS.find((it) => it === config.plugin_log_level);
  const filter = new LogFilter(wanted ?? "warn");
  const log = new Logger("cni-plugin", { filter, json: true, sink: (line) => write(Deno.stderr, `${line}\n`) });
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
