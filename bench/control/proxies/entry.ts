/** The process of simulated proxies: commands in by lines, answers out by lines. */
import process from "node:process";
import { chain } from "../../../base/errors.ts";
import type { Endpoint, ProxyAnswer, ProxyCommand } from "./messages.ts";
import { nowMs } from "./messages.ts";
import { Proxy } from "./proxy.ts";
import { sign } from "./signing.ts";

const DIALS_AT_ONCE = 10;
// A control plane lets in so many new streams a second, and refuses the others: they come again, as real ones do.
const RETRY_MS = 250, CONNECT_MS_MAX = 120_000;

let proxies: Proxy[] = [];

async function connect(endpoint: Endpoint, count: number): Promise<ProxyAnswer> {
  const startedAt = nowMs(), syncMs: number[] = [];
  let next = 0;
  const dialler = async () => {
    for (let number = next++; number < count; number = next++) {
      const { proxy, atMs } = await connectOne(endpoint, number, startedAt + CONNECT_MS_MAX);
      proxies.push(proxy);
      syncMs.push(atMs - startedAt);
    }
  };
  await Promise.all(Array.from({ length: DIALS_AT_ONCE }, dialler));
  const sum = (of: (proxy: Proxy) => number) => proxies.reduce((total, proxy) => total + of(proxy), 0);
  return { is: "connected", syncMs, resources: sum((it) => it.resources), bytes: sum((it) => it.bytes) };
}

async function connectOne(endpoint: Endpoint, number: number, deadlineMs: number) {
  for (;;) {
    const proxy = new Proxy();
    try {
      return { proxy, atMs: await proxy.connect(endpoint, number) };
    } catch (error) {
      if (nowMs() > deadlineMs) throw error;
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    }
  }
}

function report(sentAtMs: Readonly<Record<string, number>>): ProxyAnswer {
  const latencyMs: number[] = [];
  let missing = 0;
  for (const { arrivedAtMs } of proxies) {
    for (const [pod, atMs] of Object.entries(sentAtMs)) {
      const arrived = arrivedAtMs.get(pod);
      if (arrived === undefined) missing++;
      else latencyMs.push(Math.max(0, arrived - atMs)); // The change may overtake the answer that it was written.
    }
  }
  const { user, system } = process.cpuUsage();
  const ended = proxies.filter((it) => it.ended !== undefined).length;
  return { is: "report", latencyMs, missing, ended, cpuSeconds: (user + system) / 1e6 };
}

async function obey(command: ProxyCommand): Promise<ProxyAnswer> {
  if (command.do === "connect") return await connect(command.endpoint, command.count);
  if (command.do === "report") return report(command.sentAtMs);
  if (command.do === "sign") return await sign(command.endpoint, command);
  for (const proxy of proxies) proxy.arrivedAtMs.clear();
  return { is: "ready" };
}

async function main(): Promise<void> {
  let text = "";
  for await (const chunk of Deno.stdin.readable.pipeThrough(new TextDecoderStream())) {
    text += chunk;
    for (let end = text.indexOf("\n"); end >= 0; end = text.indexOf("\n")) {
      const line = text.slice(0, end);
      text = text.slice(end + 1);
      const answer = await obey(JSON.parse(line)).catch((error) => ({ is: "failed", why: chain(error) }));
      const bytes = new TextEncoder().encode(JSON.stringify(answer) + "\n");
      const writer = Deno.stdout.writable.getWriter();
      await writer.write(bytes);
      writer.releaseLock();
    }
  }
  proxies = [];
  Deno.exit(0); // Streams still stand, and would keep us.
}

if (import.meta.main) await main();
