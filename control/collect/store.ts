/** Collections and their indexes, and the changes that wait in them for the next settling. */
import { equal } from "./equal.ts";
import { SortedKeys } from "./sorted_keys.ts";

/** One changed item: `before` undefined was added, `after` undefined was removed. */
export interface Change<T> {
  readonly key: string;
  readonly before: T | undefined;
  readonly after: T | undefined;
}

/** What changed in the settling under way, by key. */
export interface ChangedKeys {
  readonly size: number;
  keys(): Iterable<string>;
}

/** A set of items by key, as readers see it. */
export interface Collection<T> {
  readonly name: string;
  readonly changed: ChangedKeys;
  get(key: string): T | undefined;
  entries(): IterableIterator<[string, T]>;
  readonly size: number;
}

/** A grouping of a collection's items by keys computed from each. */
export interface Index<T> {
  readonly name: string;
  readonly changed: ChangedKeys;
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

  get changed(): ChangedKeys {
    return this.pending;
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
    const earlier = this.pending.get(key);
    if (earlier === undefined) this.pending.set(key, { key, before: previous, after: value });
    else if (equal(earlier.before, value)) this.pending.delete(key);
    else this.pending.set(key, { key, before: earlier.before, after: value });
    for (const index of this.indexes) index.move(key, previous, value);
  }
}

/** The groups that an item is in. */
export type KeysOf<T> = (item: T, key: string) => readonly string[];

const NO_KEYS: readonly string[] = [];

/** The keys of a store's items by computed keys, kept current by the store. */
export class StoreIndex<T> implements Index<T> {
  readonly name: string;
  readonly #store: Store<T>;
  readonly #keysOf: KeysOf<T>;
  /** Whether a group counts as changed only when it comes or goes. */
  readonly #existence: boolean;
  /** A group of one, as most are, is just that one's key. */
  readonly #groups = new Map<string, string | SortedKeys>();
  /** Index keys whose group may have changed in the settling under way. */
  readonly touched = new Set<string>();

  constructor(name: string, store: Store<T>, { keysOf, existence }: { keysOf: KeysOf<T>; existence: boolean }) {
    this.name = name;
    this.#store = store;
    this.#keysOf = keysOf;
    this.#existence = existence;
  }

  get changed(): ChangedKeys {
    return this.touched;
  }

  /** Follows an item of the store that came, changed or went. */
  move(key: string, before: T | undefined, after: T | undefined): void {
    const left = before === undefined ? NO_KEYS : this.#keysOf(before, key);
    const entered = after === undefined ? NO_KEYS : this.#keysOf(after, key);
    for (const indexKey of left) {
      if (!entered.includes(indexKey)) this.#leave(indexKey, key);
      if (!this.#existence || !this.#groups.has(indexKey)) this.touched.add(indexKey);
    }
    for (const indexKey of entered) {
      if (!this.#existence || !this.#groups.has(indexKey)) this.touched.add(indexKey);
      if (!left.includes(indexKey)) this.#enter(indexKey, key);
    }
  }

  #enter(indexKey: string, key: string): void {
    const group = this.#groups.get(indexKey);
    if (group === undefined) this.#groups.set(indexKey, key);
    else if (typeof group !== "string") group.add(key);
    else if (group !== key) this.#groups.set(indexKey, new SortedKeys(group, key));
  }

  #leave(indexKey: string, key: string): void {
    const group = this.#groups.get(indexKey);
    if (group === undefined || typeof group === "string") {
      if (group === key) this.#groups.delete(indexKey);
      return;
    }
    group.delete(key);
    if (group.size === 1) this.#groups.set(indexKey, group.read()[0]!);
  }

  get(indexKey: string): readonly T[] {
    const group = this.#groups.get(indexKey);
    if (group === undefined) return [];
    const items: T[] = [];
    for (const key of typeof group === "string" ? [group] : group.read()) {
      const item = this.#store.get(key);
      if (item !== undefined) items.push(item);
    }
    return items;
  }

  keys(): IterableIterator<string> {
    return this.#groups.keys();
  }
}
