/**
 * What the ambient index costs at a size, without network or API server: first full state, memory after it, and the
 * CPU of single changes. `deno task bench:engine [PODS…]`; each size in a process of its own.
 */
import process from "node:process";
import { AmbientIndex } from "../../control/ambient/index.ts";
import type { KubernetesObject } from "../../control/objects.ts";
import { changeOf, type MeshSize, namespace, pod, policy, service, sizeOf, slice, surroundings } from "./mesh.ts";

const HEAP_FLAGS = "--heap-growing-percent=20,--max-semi-space-size=4"; // as deno task ambit
const BATCH = 500; // as an informer's page of a first list

function cpuMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1_000;
}

function* batches(objects: Iterable<KubernetesObject>): Iterable<KubernetesObject[]> {
  const batch: KubernetesObject[] = [];
  for (const object of objects) {
    batch.push(object);
    if (batch.length === BATCH) yield batch.splice(0);
  }
  yield batch;
}

function* pods(size: MeshSize): Iterable<KubernetesObject> {
  for (let at = 0; at < size.pods; at++) yield pod(at, size);
}

function* slices(size: MeshSize): Iterable<KubernetesObject> {
  for (let at = 0; at < Math.min(size.services, size.pods); at++) yield slice(at, size);
}

/** Feeds a new index with everything. */
function load(size: MeshSize): { index: AmbientIndex; objectsMs: number; indexMs: number; cpu: number } {
  const index = new AmbientIndex(), cpuAtStart = cpuMs();
  let objectsMs = 0, indexMs = 0, startedMs = performance.now();
  for (const part of [surroundings(size), slices(size), pods(size)]) {
    for (const batch of batches(part)) {
      const decodedMs = performance.now();
      objectsMs += decodedMs - startedMs;
      index.apply(batch.map(changeOf));
      startedMs = performance.now();
      indexMs += startedMs - decodedMs;
    }
  }
  return { index, objectsMs, indexMs, cpu: cpuMs() - cpuAtStart };
}

interface Cost {
  /** Milliseconds of CPU, all threads, per change: garbage collection is in it. */
  readonly cpuMs: number;
  /** Of wall-clock time, the slowest. */
  readonly worstMs: number;
  /** Resources announced per change. */
  readonly announced: number;
}

/** The cost of one change among many alike; objects are made beforehand. */
function cost(index: AmbientIndex, changes: readonly (readonly KubernetesObject[])[]): Cost {
  let announced = 0, worstMs = 0;
  const stop = index.subscribe(({ updated, removed }) => announced += updated.length + removed.length);
  const before = cpuMs();
  for (const change of changes) {
    const startedMs = performance.now();
    index.apply(change.map(changeOf));
    worstMs = Math.max(worstMs, performance.now() - startedMs);
  }
  const spent = cpuMs() - before;
  stop();
  return { cpuMs: rounded(spent / changes.length), worstMs: rounded(worstMs), announced: announced / changes.length };
}

const rounded = (value: number) => Math.round(value * 1_000) / 1_000;
const numbers = (count: number) => Array.from({ length: count }, (_, at) => at);

function removal(index: AmbientIndex, object: KubernetesObject): number {
  const before = cpuMs();
  index.apply([{ ...changeOf(object), object: undefined }]);
  return cpuMs() - before;
}

function changes(index: AmbientIndex, size: MeshSize): Record<string, Cost | number> {
  const rounds = numbers(1_000);
  const spread = (at: number) => at * 7_919 % size.pods;
  const flip = (ready: boolean) => rounds.map((at) => [pod(spread(at), size, { ready })]);
  const fresh = rounds.map((at) => pod(size.pods + at, size));
  const results: Record<string, Cost | number> = {
    "pod flips, warm-up": cost(index, [...flip(false), ...flip(true)]),
    "pod flips": cost(index, [...flip(false), ...flip(true)]),
    "pod flips, and its slice": cost(
      index,
      [false, true].flatMap((ready) =>
        rounds.map((at) => {
          const it = spread(at);
          return [pod(it, size, { ready }), slice(it % size.services, size, ready ? -1 : it)];
        })
      ),
    ),
    "pod created": cost(index, fresh.map((it) => [it])),
    "pod deleted": rounded(fresh.map((it) => removal(index, it)).reduce((sum, it) => sum + it, 0) / fresh.length),
    "a service's selector": cost(
      index,
      numbers(100).flatMap((at) => [[service(at, size, "none")], [service(at, size)]]),
    ),
    "a policy's selector": cost(index, numbers(100).flatMap((at) => [[policy(at, size, "none")], [policy(at, size)]])),
    "a namespace's label": cost(index, numbers(100).map((at) => [namespace(at, { touched: "true" })])),
  };
  // One service that all of 10,000 further pods are in.
  const crowd = numbers(10_000).map((at) => pod(size.pods + 2_000 + at, size, { service: 0 }));
  for (const batch of batches(crowd)) index.apply(batch.map(changeOf));
  const crowded = (ready: boolean) =>
    numbers(500).map((at) => [pod(size.pods + 2_000 + at, size, { ready, service: 0 })]);
  results["pod flips in a service of 10,000"] = cost(index, [...crowded(false), ...crowded(true)]);
  return results;
}

function measure(podCount: number): void {
  const size = sizeOf(podCount), { index, objectsMs, indexMs, cpu } = load(size);
  const collect = (globalThis as { gc?: () => void }).gc;
  const rssMib = process.memoryUsage().rss / 2 ** 20;
  collect?.();
  collect?.();
  const heapMib = process.memoryUsage().heapUsed / 2 ** 20,
    bytes = [...index.all("type.googleapis.com/istio.workload.Address")];
  print(JSON.stringify({
    ...size,
    resources: bytes.length,
    resourceMib: rounded(bytes.reduce((sum, it) => sum + it.bytes.length, 0) / 2 ** 20),
    decodeMs: Math.round(objectsMs),
    firstStateMs: Math.round(indexMs),
    firstStateCpuMs: Math.round(cpu),
    rssMib: Math.round(rssMib),
    heapMib: Math.round(heapMib),
    ...changes(index, size),
  }));
}

function print(text: string): void {
  Deno.stdout.writeSync(new TextEncoder().encode(`${text}\n`));
}

/** A Markdown table of figures, a column for each size. */
function table(results: readonly Record<string, Cost | number>[]): string {
  const cell = (value: Cost | number | undefined) =>
    typeof value === "object" ? `${value.cpuMs} (worst ${value.worstMs})` : String(value);
  return Object.keys(results[0]!).map((name) => `| ${[name, ...results.map((it) => cell(it[name]))].join(" | ")} |`)
    .join("\n");
}

const [first, ...rest] = Deno.args;
if (first === "--one") measure(Number(rest[0]));
else {
  const results: Record<string, Cost | number>[] = [];
  for (const size of Deno.args.length > 0 ? Deno.args : ["1000", "10000", "100000"]) {
    const command = new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", `--v8-flags=--expose-gc,${HEAP_FLAGS}`, new URL(import.meta.url).pathname, "--one", size],
    });
    const { success, stdout, stderr } = await command.output();
    if (!success) throw new Error(new TextDecoder().decode(stderr));
    results.push(JSON.parse(new TextDecoder().decode(stdout)));
  }
  print(table(results));
}
