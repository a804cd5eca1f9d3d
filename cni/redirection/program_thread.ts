/** The thread that runs iptables, nft and ipset in pods' namespaces: its mounts are its own, and so is its waiting (CNI-141). */
/// <reference no-default-lib="true" />
/// <reference lib="deno.worker" />
import { Netns } from "../../os/netns.ts";
import { maskNameServices } from "../../os/private_mounts.ts";
import { spawnWithin } from "../../os/process.ts";
import type { ProgramAnswer, ProgramRequest } from "./programs.ts";

const LIMIT_MS = 40_000; // Past the 30 s that iptables waits for its lock.

async function run({ id, netnsFd, program, args, input, env }: ProgramRequest): Promise<ProgramAnswer> {
  const options: Deno.CommandOptions = {
    args: [...args],
    env,
    cwd: "/",
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
    signal: AbortSignal.timeout(LIMIT_MS),
  };
  try {
    const child = start(program, options, netnsFd);
    const [output] = await Promise.all([child.output(), feed(child, input)]);
    const decoder = new TextDecoder();
    const ended = output.signal === null ? output.code : -1;
    return { id, code: ended, stdout: decoder.decode(output.stdout), stderr: decoder.decode(output.stderr) };
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return { id, absent: true };
    return { id, failure: error instanceof Error ? error.message : String(error) };
  }
}

function start(program: string, options: Deno.CommandOptions, netnsFd: number | undefined): Deno.ChildProcess {
  if (netnsFd === undefined) return new Deno.Command(program, options).spawn();
  using netns = new Netns(netnsFd, "a pod's descriptor"); // Ours since it was sent.
  return spawnWithin(netns, program, options);
}

async function feed(child: Deno.ChildProcess, input: string): Promise<void> {
  const writer = child.stdin.getWriter();
  try {
    await writer.write(new TextEncoder().encode(input));
    await writer.close();
  } catch (error) {
    if (!(error instanceof Deno.errors.BrokenPipe)) throw error; // It ended before it had read all: its status says why.
  }
}

const lacking = maskNameServices();
self.postMessage({ lacking });
self.onmessage = async ({ data }: MessageEvent<ProgramRequest>) => self.postMessage(await run(data));
