/** What each item fetched in its last run, so that it runs again when that changes. */
import type { Cell, Collection, Index } from "./store.ts";

/** How a transform reads beyond its primary item. What it asked for is remembered, absence included. */
export interface Fetch {
  one<T>(collection: Collection<T>, key: string): T | undefined;
  by<T>(index: Index<T>, indexKey: string): readonly T[];
  /** Noted for the whole collection, not for the item: when the value changes, every item runs again. */
  value<T>(cell: Cell<T>): T;
}

/** Why an item must run again: something under this name changed. */
export type Dependency = string;

/** That an item of a collection was asked for. */
export const itemDependency = (name: string, key: string): Dependency => `i\0${name}\0${key}`;
/** That a group of an index was asked for. */
export const groupDependency = (name: string, key: string): Dependency => `g\0${name}\0${key}`;

/** Which items fetched what in their last run. */
export class Tracker {
  readonly #dependents = new Map<Dependency, Set<string>>();
  readonly #dependenciesOf = new Map<string, Set<Dependency>>();
  readonly #cells = new Set<Cell<unknown>>();

  /** Whether a value changed that any item ever fetched. */
  get cellChanged(): boolean {
    for (const cell of this.#cells) if (cell.changed) return true;
    return false;
  }

  addDependents(dependency: Dependency, into: Set<string>): void {
    for (const key of this.#dependents.get(dependency) ?? []) into.add(key);
  }

  /** Forgets what the item fetched before, and returns the means to fetch anew. */
  track(key: string): Fetch {
    for (const dependency of this.#dependenciesOf.get(key) ?? []) {
      const dependents = this.#dependents.get(dependency);
      dependents?.delete(key);
      if (dependents?.size === 0) this.#dependents.delete(dependency);
    }
    this.#dependenciesOf.delete(key);
    const note = (dependency: Dependency) => {
      let mine = this.#dependenciesOf.get(key);
      if (mine === undefined) this.#dependenciesOf.set(key, mine = new Set());
      mine.add(dependency);
      let dependents = this.#dependents.get(dependency);
      if (dependents === undefined) this.#dependents.set(dependency, dependents = new Set());
      dependents.add(key);
    };
    return {
      one: (collection, itemKey) => {
        note(itemDependency(collection.name, itemKey));
        return collection.get(itemKey);
      },
      by: (index, indexKey) => {
        note(groupDependency(index.name, indexKey));
        return index.get(indexKey);
      },
      value: (cell) => {
        this.#cells.add(cell as Cell<unknown>);
        return cell.value;
      },
    };
  }
}
