/** What each item fetched in its last run, so that it runs again when that changes. */
import type { Cell, ChangedKeys, Collection, Index } from "./store.ts";

/** How a transform reads beyond its primary item. What it asked for is remembered, absence included. */
export interface Fetch {
  one<T>(collection: Collection<T>, key: string): T | undefined;
  by<T>(index: Index<T>, indexKey: string): readonly T[];
  /** The items under the item's own key. Noted for the whole collection, at no cost for the item. */
  own<T>(index: Index<T>): readonly T[];
  /** Noted for the whole collection, not for the item: when the value changes, every item runs again. */
  value<T>(cell: Cell<T>): T;
}

/** A collection or an index, as what was fetched from. */
interface Source {
  readonly changed: ChangedKeys;
}

/** One key of one source, and the items that fetched it: one is kept without a set, since most have just that. */
class Dependency {
  readonly source: Source;
  readonly key: string;
  #one: string | undefined;
  #more: Set<string> | undefined;

  constructor(source: Source, key: string) {
    this.source = source;
    this.key = key;
  }

  add(item: string): void {
    if (this.#more !== undefined) this.#more.add(item);
    else if (this.#one === undefined) this.#one = item;
    else if (this.#one !== item) {
      this.#more = new Set([this.#one, item]);
      this.#one = undefined;
    }
  }

  /** @returns whether nobody is left. */
  remove(item: string): boolean {
    if (this.#more !== undefined) return this.#more.delete(item) && this.#more.size === 0;
    if (this.#one === item) this.#one = undefined;
    return this.#one === undefined;
  }

  addTo(items: Set<string>): void {
    if (this.#one !== undefined) items.add(this.#one);
    if (this.#more !== undefined) { for (const item of this.#more) items.add(item); }
  }
}

const NONE: readonly Dependency[] = [];

/**
 * Which items of one collection fetched what in their last run. Between {@link begin} and {@link end} it is what the
 * item fetches with. An item that fetches the same as last time, in the same order, costs a comparison for each fetch.
 */
export class Tracker implements Fetch {
  readonly #sources = new Map<Source, Map<string, Dependency>>();
  readonly #dependenciesOf = new Map<string, readonly Dependency[]>();
  readonly #cells = new Set<Cell<unknown>>();
  readonly #owned = new Set<Source>();
  #item = "";
  #before = NONE;
  /** How many fetches of this run are as in the last. */
  #same = 0;
  /** The fetches of this run, once they differ from the last. */
  #now: Dependency[] | undefined;

  /** Whether a value changed that any item ever fetched. */
  get cellChanged(): boolean {
    for (const cell of this.#cells) if (cell.changed) return true;
    return false;
  }

  /** Whether anything changed in what any item ever fetched from. Asked of every collection at each settling. */
  get changed(): boolean {
    for (const { changed } of this.#sources.keys()) if (changed.size > 0) return true;
    for (const { changed } of this.#owned) if (changed.size > 0) return true;
    return this.cellChanged;
  }

  /** Adds the items that fetched what has changed. */
  addChanged(items: Set<string>): void {
    for (const [source, dependencies] of this.#sources) {
      if (source.changed.size === 0) continue;
      for (const key of source.changed.keys()) dependencies.get(key)?.addTo(items);
    }
    for (const { changed } of this.#owned) {
      if (changed.size > 0) { for (const key of changed.keys()) items.add(key); }
    }
  }

  /** Starts an item's run. An item that is gone begins and ends without fetching. */
  begin(item: string): Fetch {
    this.#item = item;
    this.#before = this.#dependenciesOf.get(item) ?? NONE;
    this.#same = 0;
    this.#now = undefined;
    return this;
  }

  end(): void {
    const before = this.#before, item = this.#item;
    if (this.#now === undefined && this.#same === before.length) return;
    const now = this.#now ?? before.slice(0, this.#same), kept = new Set(now);
    for (const dependency of before) {
      if (kept.has(dependency) || !dependency.remove(item)) continue;
      this.#sources.get(dependency.source)?.delete(dependency.key);
    }
    for (const dependency of kept) dependency.add(item);
    // A copy: a list that grew has room for many more.
    if (now.length > 0) this.#dependenciesOf.set(item, now.slice());
    else this.#dependenciesOf.delete(item);
  }

  #note(source: Source, key: string): void {
    if (this.#now === undefined) {
      const expected = this.#before[this.#same];
      if (expected !== undefined && expected.source === source && expected.key === key) {
        this.#same++;
        return;
      }
      this.#now = this.#before.slice(0, this.#same);
    }
    let dependencies = this.#sources.get(source);
    if (dependencies === undefined) this.#sources.set(source, dependencies = new Map());
    let dependency = dependencies.get(key);
    if (dependency === undefined) dependencies.set(key, dependency = new Dependency(source, key));
    this.#now.push(dependency);
  }

  one<T>(collection: Collection<T>, key: string): T | undefined {
    this.#note(collection, key);
    return collection.get(key);
  }

  by<T>(index: Index<T>, indexKey: string): readonly T[] {
    this.#note(index, indexKey);
    return index.get(indexKey);
  }

  own<T>(index: Index<T>): readonly T[] {
    this.#owned.add(index);
    return index.get(this.#item);
  }

  value<T>(cell: Cell<T>): T {
    this.#cells.add(cell as Cell<unknown>);
    return cell.value;
  }
}
