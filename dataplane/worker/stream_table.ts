/** The open streams of a session by their number. */
import { assert } from "../../base/assert.ts";

const PLACES_MIN = 16; // A power of two, as every size is.

/**
 * In place of a Map: whenever a Map has seen as many deletions as it has places, it moves to a new table, and the engine
 * lets the old one point to the new. An old table that was promoted then keeps all that came after it out of the reach of
 * the small collections, and with it every stream that was open at some time.
 */
export class StreamTable<T extends { readonly streamId: number }> {
  /** Streams of one side have every second number: so many in a row stand side by side, and hardly ever meet. */
  #places: (T | null)[] = new Array<T | null>(PLACES_MIN).fill(null);
  #size = 0;

  get size(): number {
    return this.#size;
  }

  get(streamId: number): T | undefined {
    const places = this.#places, mask = places.length - 1;
    for (let at = (streamId >>> 1) & mask;; at = (at + 1) & mask) {
      const item = places[at]!;
      if (item === null) return undefined;
      if (item.streamId === streamId) return item;
    }
  }

  has(streamId: number): boolean {
    return this.get(streamId) !== undefined;
  }

  /** Adds a stream whose number nobody has. */
  add(item: T): void {
    assert(!this.has(item.streamId), "a stream belongs to one tunnel");
    if (2 * ++this.#size > this.#places.length) this.#grow();
    this.#put(item);
  }

  /** Takes a stream out. @returns Whether it was there. */
  delete(streamId: number): boolean {
    const places = this.#places, mask = places.length - 1;
    let hole = (streamId >>> 1) & mask;
    for (;; hole = (hole + 1) & mask) {
      const item = places[hole]!;
      if (item === null) return false;
      if (item.streamId === streamId) break;
    }
    this.#size--;
    // Whoever stands behind the hole and would be looked for in front of it moves there: a search ends at the first gap.
    for (let at = (hole + 1) & mask;; at = (at + 1) & mask) {
      const item = places[at]!;
      if (item === null) break;
      const home = (item.streamId >>> 1) & mask;
      if (((at - home) & mask) < ((at - hole) & mask)) continue;
      places[hole] = item;
      hole = at;
    }
    places[hole] = null;
    return true;
  }

  clear(): void {
    this.#places.fill(null);
    this.#size = 0;
  }

  /** All of them, as they are now. */
  values(): T[] {
    return this.#places.filter((item): item is T => item !== null);
  }

  /** Places, for whoever looks at all of them by {@link at} and neither adds nor deletes; {@link clear} is allowed. */
  get placeCount(): number {
    return this.#places.length;
  }

  at(place: number): T | null {
    return this.#places[place]!;
  }

  #grow(): void {
    const before = this.#places;
    this.#places = new Array<T | null>(2 * before.length).fill(null);
    for (const item of before) if (item !== null) this.#put(item);
  }

  #put(item: T): void {
    const places = this.#places, mask = places.length - 1;
    let at = (item.streamId >>> 1) & mask;
    while (places[at] !== null) at = (at + 1) & mask;
    places[at] = item;
  }
}
