/**
 * What streams cost istiod: CPU for each push and for each reconnect, and how long a change takes to whoever is last to hear
 * of it. `deno run -A bench/control/streams.ts --streams 200 --resources 10000 --pushes 50`; clients are a process of their
 * own, with a connection each, as node proxies have. `--deaf N`: so many more open a stream and never read from it.
 */
import { parseArgs } from "@std/cli";
import { ADDRESS_TYPE_URL } from "../../mesh/proto/workload_codec.ts";
import { ControlRig, until } from "../../tests/interop/control_rig.ts";
import { resource } from "../../tests/interop/xds_rig.ts";

const TICKS_PER_SECOND = 100; // sysconf(_SC_CLK_TCK) of every Linux we know

/** User and system time of this process so far, in milliseconds: proc(5), fields 14 and 15 of stat. */
function cpuMs(): number {
  const text = Deno.readTextFileSync("/proc/self/stat"), fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) * 1_000 / TICKS_PER_SECOND;
}

/** Resident memory, and what is reachable of it if the engine lets us collect (`--v8-flags=--expose-gc`). */
function memory(): string {
  const resident = Deno.memoryUsage().rss, { gc } = globalThis as { gc?: () => void };
  gc?.();
  const { heapUsed, external, rss } = Deno.memoryUsage(), mb = (bytes: number) => Math.round(bytes / 1e6);
  const collected = `; collected: heap ${mb(heapUsed)}, external ${mb(external)}, resident ${mb(rss)}`;
  return `${mb(resident)} MB${gc === undefined ? "" : collected}`;
}

function say(text: string): void {
  Deno.stdout.writeSync(new TextEncoder().encode(`${text}\n`));
}

/** Reads lines of JSON from a child. */
async function* linesOf(stream: ReadableStream<Uint8Array>): AsyncIterableIterator<string> {
  let rest = "";
  for await (const chunk of stream.pipeThrough(new TextDecoderStream())) {
    const lines = (rest + chunk).split("\n");
    rest = lines.pop() ?? "";
    yield* lines;
  }
}

const flags = parseArgs(Deno.args, { string: ["streams", "resources", "pushes", "changes", "rounds", "deaf"] });
const streams = Number(flags.streams ?? 200), resources = Number(flags.resources ?? 10_000);
const pushes = Number(flags.pushes ?? 50), changes = Number(flags.changes ?? 1);

await using rig = await ControlRig.start();
for (let at = 0; at < resources; at++) {
  rig.mesh.set(ADDRESS_TYPE_URL, resource(`Kubernetes//Pod/ns/pod-${at}`, "1", 230));
}
const child = new Deno.Command(Deno.execPath(), {
  args: ["run", "-A", new URL("streams_process.ts", import.meta.url).pathname],
  stdin: "piped",
  stdout: "piped",
}).spawn();
const stdin = child.stdin.getWriter(), answers = linesOf(child.stdout);
const ask = async (question: unknown): Promise<Record<string, number>> => {
  await stdin.write(new TextEncoder().encode(`${JSON.stringify(question)}\n`));
  const { value } = await answers.next();
  return JSON.parse(value ?? "{}");
};
const roots = await Deno.readTextFile(`${rig.stateDir}/root.pem`);
const token = await rig.token();
let before = cpuMs();
const opened = await ask({ open: streams, deaf: Number(flags.deaf ?? 0), port: rig.port, roots, token, resources });
say(
  `${streams} streams opened and told of ${resources} resources: ${opened.ms} ms, istiod's CPU ${
    cpuMs() - before
  } ms, ${memory()}`,
);

before = cpuMs();
const all: number[] = [];
for (let push = 0; push < pushes; push++) {
  await ask({ arm: 1 });
  const atMs = performance.timeOrigin + performance.now();
  const updated = Array.from({ length: changes }, (_, at) => ({
    ...resource(`Kubernetes//Pod/ns/pod-${at}`, `v${push}`, 230),
    bytes: new Uint8Array(230).fill(1),
  }));
  rig.ads.push([{ typeUrl: ADDRESS_TYPE_URL, updated, removed: [] }]);
  const { first, median, last } = await ask({ wait: 1 });
  all.push(median! - atMs);
  if (push === pushes - 1) {
    say(
      `last push: first ${(first! - atMs).toFixed(1)} ms, median ${(median! - atMs).toFixed(1)}, last ${
        (last! - atMs).toFixed(1)
      }`,
    );
  }
}
const sorted = all.toSorted((one, other) => one - other);
say(
  `${pushes} pushes of ${changes} to ${streams}: istiod's CPU ${
    ((cpuMs() - before) / pushes).toFixed(2)
  } ms a push; median of medians ${sorted[pushes >> 1]!.toFixed(1)} ms, ${memory()}`,
);

before = cpuMs();
const again = await ask({ reopen: 1 });
say(
  `${streams} streams reconnect with versions of ${resources}: ${again.ms} ms, istiod's CPU ${
    cpuMs() - before
  } ms, ${memory()}`,
);
for (let round = 0; round < Number(flags.rounds ?? 0); round++) {
  await ask({ close: 1 });
  await until(() => rig.ads.status().length === 0, "all streams are gone");
  await ask({ open: streams, port: rig.port, roots, token, resources });
  say(`round ${round + 2} of fresh streams: ${memory()}`);
}
await stdin.close();
await child.status;
await until(() => rig.ads.status().length === 0, "all streams are gone");
