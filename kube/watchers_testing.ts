/** Open watches of the API in memory: each has a queue, and can be held or cut. */
import type { KubeObject, WatchEvent } from "./api.ts";
import type { Selects } from "./selectors_testing.ts";

/** A change of one object; `before` is undefined when it is new, `after` when it is gone. */
export interface StoredChange {
  readonly version: number;
  readonly before: KubeObject | undefined;
  readonly after: KubeObject | undefined;
}

/** What a watch with a selection sees of a change: objects that enter or leave it appear and disappear. */
export function eventOf(change: StoredChange, selects: Selects): WatchEvent | undefined {
  const { before, after, version } = change;
  const was = before !== undefined && selects(before), is = after !== undefined && selects(after);
  if (is) return { type: was ? "MODIFIED" : "ADDED", object: after };
  if (!was) return undefined;
  // What is gone is told in its last state, under the version of its end.
  const last = after ?? before;
  return { type: "DELETED", object: { ...last, metadata: { ...last.metadata, resourceVersion: String(version) } } };
}

/** One open watch. */
export class Watcher {
  readonly selects: Selects;
  readonly #queue: WatchEvent[] = [];
  #wake: () => void = () => {};
  #ended = false;
  #error: Error | undefined;
  #held: boolean;

  constructor(selects: Selects, held: boolean) {
    this.selects = selects;
    this.#held = held;
  }

  change(change: StoredChange): void {
    const event = eventOf(change, this.selects);
    if (event !== undefined) this.push(event);
  }

  push(event: WatchEvent): void {
    if (this.#ended) return;
    this.#queue.push(event);
    this.#wake();
  }

  hold(held: boolean): void {
    this.#held = held;
    this.#wake();
  }

  /** Ends it once what is queued has been read, with an error if there is one. */
  end(error?: Error): void {
    this.#ended = true;
    this.#error ??= error;
    this.#wake();
  }

  /** Everything there is, until it ends or the signal is aborted. */
  async *events(signal: AbortSignal): AsyncGenerator<WatchEvent> {
    const stop = () => this.end();
    signal.addEventListener("abort", stop);
    try {
      while (!signal.aborted) {
        const next = this.#held ? undefined : this.#queue.shift();
        if (next !== undefined) {
          yield next;
          continue;
        }
        if (this.#ended) break;
        await new Promise<void>((resolve) => this.#wake = resolve);
      }
      if (this.#error !== undefined && !signal.aborted) throw this.#error;
    } finally {
      signal.removeEventListener("abort", stop);
      this.#ended = true;
    }
  }
}
