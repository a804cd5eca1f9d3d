/** Tells of every batch of changed objects once it is in the index. */
import type { ObjectChange } from "./objects.ts";

type Listener = (changes: readonly ObjectChange[]) => void;

export class ObjectFeed {
  readonly #listeners = new Set<Listener>();

  /** Calls back for every later batch, until the returned function is called. */
  subscribe(listener: Listener): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  tell(changes: readonly ObjectChange[]): void {
    for (const listener of [...this.#listeners]) listener(changes);
  }
}
