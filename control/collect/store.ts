/** Collections and their indexes, and the changes that wait in them for the next settling. */
import { equal } from "./equal.ts";

/** One changed item: `before` undefined was added, `after` undefined was removed. */
export interface Change<T> {
  readonly key: string;
  readonly before: T | undefined;
  readonly after: T | undefined;
}

/** A set of items by key, as readers see it. */
export interface Collection<T> {
  readonly name: string;
  get(key: string): T | undefined;
  entries(): IterableIterator<[string, T]>;
  readonly size: number;
}

/** A grouping of a collection's items by keys computed from each. */
export interface Index<T> {
  readonly name: string;
  /** The items under a key, ordered by their own key. */
  get(indexKey: string): readonly T[];
  keys(): IterableIterator<string>;
}

/** One value that the whole graph shares, such as a setting. Whatever fetched it runs again when it changes. */
export class Cell<T> {
  readonly name: string;
  #value: T;
  /** Whether it changed in the settling under way. */
  changed = false;

  constructor(name: string, value: T) {
    this.name = name;
    this.#value = value;
  }

  get value(): T {
    return this.#value;
  }

  /** Equal content is no change. */
  write(value: T): void {
    if (equal(this.#value, value)) return;
    this.#value = value;
    this.changed = true;
  }
}

/** The items of a collection, and what changed in the settling under way. Written by sources and the engine alone. */
export class Store<T> implements Collection<T> {
  readonly name: string;
  readonly items = new Map<string, T>();
  /** Changes of the settling under way, net of their beginning. */
  readonly pending = new Map<string, Change<T>>();
  readonly indexes: StoreIndex<T>[] = [];

  constructor(name: string) {
    this.name = name;
  }

  get size(): number {
    return this.items.size;
  }

  get(key: string): T | undefined {
    return this.items.get(key);
  }

  entries(): IterableIterator<[string, T]> {
    return this.items.entries();
  }

  /** Sets or removes an item. Equal content is no change. */
  write(key: string, value: T | undefined): void {
    const previous = this.items.get(key);
    if (equal(previous, value)) return;
    if (value === undefined) this.items.delete(key);
    else this.items.set(key, value);
    const before = this.pending.has(key) ? this.pending.get(key)!.before : previous;
    if (equal(before, value)) this.pending.delete(key);
    else this.pending.set(key, { key, before, after: value });
    for (const index of this.indexes) index.move(key, previous, value);
  }
}

/** The items of a store by computed keys, kept current by the store. */
export class StoreIndex<T> implements Index<T> {
  readonly name: string;
  readonly #keysOf: (item: T) => readonly string[];
  readonly #groups = new Map<string, Map<string, T>>();
  readonly #sorted = new Map<string, readonly T[]>();
  /** Index keys whose group may have changed in the settling under way. */
  readonly touched = new Set<string>();

  constructor(name: string, keysOf: (item: T) => readonly string[]) {
    this.name = name;
    this.#keysOf = keysOf;
  }

  move(key: string, before: T | undefined, after: T | undefined): void {
    const next = after === undefined ? [] : this.#keysOf(after);
    for (const indexKey of before === undefined ? [] : this.#keysOf(before)) {
      this.#touch(indexKey);
      const group = this.#groups.get(indexKey);
      group?.delete(key);
      if (group?.size === 0) this.#groups.delete(indexKey);
    }
    for (const indexKey of next) {
      this.#touch(indexKey);
      let group = this.#groups.get(indexKey);
      if (group === undefined) this.#groups.set(indexKey, group = new Map());
      group.set(key, after!);
    }
  }

  #touch(indexKey: string): void {
    this.touched.add(indexKey);
    this.#sorted.delete(indexKey);
  }

  get(indexKey: string): readonly T[] {
    let sorted = this.#sorted.get(indexKey);
    if (sorted !== undefined) return sorted;
    const group = this.#groups.get(indexKey);
    if (group === undefined) return [];
    sorted = [...group].sort(([left], [right]) => left < right ? -1 : 1).map(([, item]) => item);
    this.#sorted.set(indexKey, sorted);
    return sorted;
  }

  keys(): IterableIterator<string> {
    return this.#groups.keys();
  }
}
