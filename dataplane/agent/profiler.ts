/** CPU and heap profiles of the agent's thread, taken through the runtime's inspector (ZT-218). Workers are not in them. */
import { pause } from "../../base/waiting.ts";
import { Session } from "node:inspector";
import { type CallFrame, encodePprof, type StackSample } from "./pprof.ts";

const HEAP_INTERVAL_BYTES = 32_768;

interface ProfileNode {
  readonly id: number;
  readonly callFrame: CallFrame;
  readonly children?: readonly number[];
}

interface CpuProfile {
  readonly nodes: readonly ProfileNode[];
  readonly samples: readonly number[];
  /** Microseconds before each sample. */
  readonly timeDeltas: readonly number[];
}

interface HeapNode {
  readonly callFrame: CallFrame;
  readonly selfSize: number;
  readonly children: readonly HeapNode[];
}

/** One at a time of each kind. */
export class Profiler {
  #cpu = false;
  #heap: Session | undefined;

  /** Whether allocations are sampled. */
  get heapActive(): boolean {
    return this.#heap !== undefined;
  }

  /** Samples the stack for a while. @returns pprof bytes, or undefined while another profile is being taken. */
  async cpu({ seconds, frequency, signal }: { seconds: number; frequency: number; signal: AbortSignal }) {
    if (this.#cpu) return undefined;
    this.#cpu = true;
    const session = new Session(), startedAtMs = Date.now(), startMs = performance.now();
    session.connect();
    try {
      const intervalUs = Math.round(1_000_000 / frequency);
      await post(session, "Profiler.enable");
      await post(session, "Profiler.setSamplingInterval", { interval: intervalUs });
      await post(session, "Profiler.start");
      await pause(seconds * 1_000, signal);
      const { profile } = await post<{ profile: CpuProfile }>(session, "Profiler.stop");
      return encodePprof(cpuSamples(profile), {
        types: [["samples", "count"], ["cpu", "microseconds"]],
        period: intervalUs,
        startedAtMs,
        durationMs: performance.now() - startMs,
      });
    } finally {
      session.disconnect();
      this.#cpu = false;
    }
  }

  /** Begins or ends the sampling of allocations; what was sampled is forgotten with it. */
  async activateHeap(active: boolean): Promise<void> {
    if (active === this.heapActive) return;
    if (!active) {
      this.#heap!.disconnect();
      this.#heap = undefined;
      return;
    }
    this.#heap = new Session();
    this.#heap.connect();
    await post(this.#heap, "HeapProfiler.enable");
    await post(this.#heap, "HeapProfiler.startSampling", { samplingInterval: HEAP_INTERVAL_BYTES });
  }

  /** What is still in use of what was allocated since the sampling began. @returns undefined if it did not. */
  async heap(): Promise<Uint8Array | undefined> {
    if (this.#heap === undefined) return undefined;
    const { profile } = await post<{ profile: { head: HeapNode } }>(this.#heap, "HeapProfiler.getSamplingProfile");
    return encodePprof(heapSamples(profile.head), {
      types: [["inuse_space", "bytes"]],
      period: HEAP_INTERVAL_BYTES,
      startedAtMs: Date.now(),
      durationMs: 0,
    });
  }

  [Symbol.dispose](): void {
    this.#heap?.disconnect();
    this.#heap = undefined;
  }
}

function post<T>(session: Session, method: string, params: Record<string, unknown> = {}): Promise<T> {
  return new Promise((resolve, reject) => {
    session.post(method, params, (error: Error | null, result?: object) => {
      if (error === null) resolve(result as T);
      else reject(error);
    });
  });
}

/** Samples by their stack; time in which nothing ran is left out. */
export function cpuSamples({ nodes, samples, timeDeltas }: CpuProfile): StackSample[] {
  const byId = new Map(nodes.map((node) => [node.id, node])), parents = new Map<number, number>();
  for (const { id, children = [] } of nodes) for (const child of children) parents.set(child, id);
  const counts = new Map<number, [count: number, microseconds: number]>();
  for (const [at, id] of samples.entries()) {
    const sum = counts.get(id) ?? [0, 0];
    counts.set(id, [sum[0] + 1, sum[1] + Math.max(0, timeDeltas[at] ?? 0)]);
  }
  const stacks: StackSample[] = [];
  for (const [id, values] of counts) {
    const frames: CallFrame[] = [];
    for (let at: number | undefined = id; at !== undefined; at = parents.get(at)) frames.push(byId.get(at)!.callFrame);
    if (frames[0]!.functionName !== "(idle)") stacks.push({ frames: frames.slice(0, -1), values }); // The last is (root).
  }
  return stacks;
}

function heapSamples(head: HeapNode): StackSample[] {
  const stacks: StackSample[] = [];
  const visit = (node: HeapNode, outer: readonly CallFrame[]) => {
    const frames = node === head ? [] : [node.callFrame, ...outer];
    if (node.selfSize > 0) stacks.push({ frames, values: [node.selfSize] });
    for (const child of node.children) visit(child, frames);
  };
  visit(head, []);
  return stacks;
}
