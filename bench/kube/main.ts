/**
 * What it costs to follow many pods: `deno run -A bench/kube/main.ts [PODS …]` starts an API server of its own in another
 * process, follows its pods with an informer that keeps nothing, and prints CPU time and memory of this process.
 */
import { cpuUsage } from "node:process";
import { Logger } from "../../base/log.ts";
import { fixedCredentials } from "../../kube/access.ts";
import type { KubeApi, KubeObject } from "../../kube/api.ts";
import { openKubeApi } from "../../kube/client.ts";
import { startInformer } from "../../kube/informer.ts";
import { PODS } from "../../kube/resource_types.ts";
import { podText } from "./pods.ts";

const COUNTS = [10_000, 100_000];
const encoder = new TextEncoder();

interface Figures {
  readonly cpuSeconds: number;
  readonly wallSeconds: number;
}

async function measured(work: () => Promise<unknown>): Promise<Figures> {
  const before = cpuUsage(), startMs = performance.now();
  await work();
  const { user, system } = cpuUsage(before);
  return { cpuSeconds: (user + system) / 1e6, wallSeconds: (performance.now() - startMs) / 1_000 };
}

function heapMb(): number {
  (globalThis as { gc?: () => void }).gc?.();
  return Deno.memoryUsage().heapUsed / 1e6;
}

/** The API without streaming lists. */
function paging(api: KubeApi): KubeApi {
  return {
    ...api,
    list: api.list.bind(api),
    watch: (type, scope, options) =>
      api.watch(type, scope, options.initialEvents === true ? { ...options, resourceVersion: "nonsense" } : options),
  };
}

async function follow(name: string, api: KubeApi, count: number): Promise<void> {
  const stop = new AbortController(), heapBefore = heapMb();
  let told = 0, resolve = () => {};
  const log = new Logger("bench", { sink: () => {} });
  const onChange = (changes: readonly unknown[]) => {
    told += changes.length;
    if (told === 2 * count) resolve();
  };
  let informer = startInformer(api, PODS, {}, { onChange, log }, stop.signal);
  const list = await measured(() => informer.synced);
  const rssMb = Deno.memoryUsage().rss / 1e6, kept = heapMb() - heapBefore;
  const watch = await measured(() => new Promise<void>((done) => resolve = done));
  stop.abort();
  await informer.stopped;
  informer = undefined as never;
  const row = [
    name,
    count,
    list.cpuSeconds.toFixed(2),
    list.wallSeconds.toFixed(2),
    kept.toFixed(1),
    rssMb.toFixed(0),
    watch.cpuSeconds.toFixed(2),
  ];
  print(`| ${row.join(" | ")} |`);
}

async function parseOnly(count: number): Promise<void> {
  const texts = Array.from({ length: 500 }, (_, row) => podText(row, 1));
  const page = `{"items":[${texts.join(",")}]}`;
  const whole = await measured(() => {
    for (let n = 0; n < count / 500; n++) JSON.parse(page);
    return Promise.resolve();
  });
  const each = await measured(() => {
    for (let n = 0; n < count / 500; n++) for (const text of texts) JSON.parse(text) as KubeObject;
    return Promise.resolve();
  });
  print(
    `JSON.parse alone of ${count} pods of ${encoder.encode(texts[0]!).length} bytes: ${
      whole.cpuSeconds.toFixed(2)
    } s by page, ${each.cpuSeconds.toFixed(2)} s one by one`,
  );
}

function print(line: string): void {
  Deno.stdout.writeSync(encoder.encode(line + "\n"));
}

const counts = Deno.args.length === 0 ? COUNTS : Deno.args.map(Number);
print("| how | pods | CPU s, list | wall s, list | heap kept, MB | resident, MB | CPU s, as many changes |");
print("|---|---|---|---|---|---|---|");
for (const count of counts) {
  const args = ["run", "-A", new URL("server.ts", import.meta.url).pathname, String(count)];
  const server = new Deno.Command(Deno.execPath(), { args, stdout: "piped", stderr: "inherit" }).spawn();
  const reader = server.stdout.getReader();
  const port = Number(new TextDecoder().decode((await reader.read()).value));
  const access = {
    server: new URL(`http://127.0.0.1:${port}`),
    ca: undefined,
    serverName: undefined,
    insecure: false,
    credentials: fixedCredentials({}),
    headers: {},
    namespace: "",
    source: "bench",
  };
  const api = openKubeApi(access, { log: new Logger("bench", { sink: () => {} }) });
  try {
    await follow("streaming list", api, count);
    await follow("pages of 500", paging(api), count);
    await parseOnly(count);
  } finally {
    api.close();
    await reader.cancel();
    server.kill();
    await server.status;
  }
}
