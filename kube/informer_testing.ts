/** For tests: an informer, what it told and what came of it, with waits that take no time. */
import { assertEquals } from "@std/assert";
import { Logger } from "../base/log.ts";
import type { Informer, InformerChange, KubeApi, ResourceType, Scope } from "./api.ts";
import { type InformerLimits, startInformer } from "./informer.ts";

const DEADLINE_MS = 60_000;

/** Waits until a claim holds. Throws if it does not within a minute. */
export async function until(claim: string, holds: () => boolean): Promise<void> {
  for (const endMs = performance.now() + DEADLINE_MS; !holds();) {
    if (performance.now() > endMs) throw new Error(`in time: ${claim}`);
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

/** A mirror of a type, kept by an informer. */
export class Mirror implements AsyncDisposable {
  readonly informer: Informer;
  /** Every change told, as `+name` or `-name`. */
  readonly told: string[] = [];
  readonly batches: number[] = [];
  readonly logged: string[] = [];
  /** How long it would have waited between tries, in milliseconds. */
  readonly waits: number[] = [];
  /** What is there, by what was told: name and version. */
  readonly objects = new Map<string, string>();
  /** Called with each batch before it is taken. */
  onBatch: (changes: readonly InformerChange[]) => void = () => {};
  readonly #stop = new AbortController();

  /** @param options `sleep`: how it waits between tries; at once unless told. */
  constructor(
    api: KubeApi,
    type: ResourceType,
    scope: Scope = {},
    options: { limits?: Partial<InformerLimits>; sleep?: (ms: number, signal: AbortSignal) => Promise<void> } = {},
  ) {
    this.informer = startInformer(api, type, scope, {
      onChange: (changes) => this.#take(changes),
      log: new Logger("informer", { sink: (line) => this.logged.push(line) }),
      random: () => 0.5,
      sleep: (ms, signal) => {
        this.waits.push(ms);
        return options.sleep?.(ms, signal) ?? new Promise((resolve) => setTimeout(resolve, 0));
      },
      limits: options.limits,
    }, this.#stop.signal);
  }

  /** Empties what was told, and returns it. */
  takeTold(): string[] {
    return this.told.splice(0);
  }

  /** Waits until exactly these names are there. */
  async untilNames(...names: string[]): Promise<void> {
    const wanted = names.toSorted().join(" ");
    await until(`the mirror holds ${wanted}`, () => [...this.objects.keys()].toSorted().join(" ") === wanted);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.informer.stopped;
  }

  #take(changes: readonly InformerChange[]): void {
    this.onBatch(changes);
    this.batches.push(changes.length);
    for (const { name, object } of changes) {
      this.told.push(`${object === undefined ? "-" : "+"}${name}`);
      if (object === undefined) this.objects.delete(name);
      else this.objects.set(name, object.metadata.resourceVersion ?? "");
    }
    assertEquals(new Set(changes.map(({ namespace, name }) => `${namespace}/${name}`)).size, changes.length);
  }
}
