/** What items yield when it may be several things, or none. */
import { assert } from "../../base/assert.ts";
import type { Store } from "./store.ts";

/** What a transform returns: output items by key. */
export type Outputs<O> = readonly (readonly [key: string, item: O])[];

const NO_KEYS: readonly string[] = [];

/** Writes the outputs of items that yield any number of them, and remembers whose they are. */
export class OutputWriter<O> {
  readonly store: Store<O>;
  /** Most yield one: its key is kept without a list. */
  readonly #keysOf = new Map<string, string | readonly string[]>();

  constructor(store: Store<O>) {
    this.store = store;
  }

  write(computed: readonly (readonly [key: string, outputs: Outputs<O>])[]): void {
    // All that vanished goes before anything comes: an output key may pass from one item to another.
    for (const [key, outputs] of computed) {
      for (const outputKey of this.#before(key)) {
        if (!outputs.some(([kept]) => kept === outputKey)) this.store.write(outputKey, undefined);
      }
    }
    for (const [key, outputs] of computed) {
      const before = this.#before(key);
      for (const [outputKey, item] of outputs) {
        const free = before.includes(outputKey) || this.store.get(outputKey) === undefined;
        assert(free, `${this.store.name}: one item alone yields ${outputKey}`);
        this.store.write(outputKey, item);
      }
      if (outputs.length === 0) this.#keysOf.delete(key);
      else this.#keysOf.set(key, outputs.length === 1 ? outputs[0]![0] : outputs.map(([outputKey]) => outputKey));
    }
  }

  #before(key: string): readonly string[] {
    const before = this.#keysOf.get(key);
    return before === undefined ? NO_KEYS : typeof before === "string" ? [before] : before;
  }
}
