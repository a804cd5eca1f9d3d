/**
 * Derived collections that recompute only what changed. A source is written; a derived collection is a stateless
 * function of one primary item and whatever else it fetches. After each batch of writes {@link Engine.settle} reruns
 * exactly the items whose inputs changed, in the order the collections were made, and equal results stop there.
 *
 * All of it is synchronous and single-threaded; listeners run once per settling, when everything is consistent again.
 */
import { assert } from "../../base/assert.ts";
import { Cell, type Change, type Collection, type Index, Store, StoreIndex } from "./store.ts";
import { type Dependency, type Fetch, groupDependency, itemDependency, Tracker } from "./tracker.ts";

/** What a transform returns: output items by key. */
type Outputs<O> = readonly (readonly [key: string, item: O])[];

interface Step {
  readonly run: () => number;
}

interface Subscription {
  readonly collect: () => (() => void) | undefined;
}

/** Owns the collections of one graph. A collection may only read those made before it, so there are no cycles. */
export class Engine {
  readonly #stores: Store<unknown>[] = [];
  readonly #indexes: StoreIndex<unknown>[] = [];
  readonly #cells: Cell<unknown>[] = [];
  readonly #steps: Step[] = [];
  readonly #subscriptions: Subscription[] = [];
  /** How often transforms ran, since the beginning; tests hold it down. */
  runCount = 0;

  /** A collection that is written from outside; call {@link settle} after a batch of writes. */
  source<T>(name: string): Store<T> {
    return this.#keep(new Store<T>(name));
  }

  /** A value that is written from outside, as sources are. */
  cell<T>(name: string, value: T): Cell<T> {
    const cell = new Cell(name, value);
    this.#cells.push(cell as Cell<unknown>);
    return cell;
  }

  #keep<T>(store: Store<T>): Store<T> {
    assert(this.#stores.every((it) => it.name !== store.name), `collection ${store.name} is made once`);
    this.#stores.push(store as Store<unknown>);
    return store;
  }

  /** Groups a collection's items. Make it before anything is written. */
  index<T>(collection: Collection<T>, name: string, keysOf: (item: T) => readonly string[]): Index<T> {
    assert(collection instanceof Store && collection.size === 0, `index ${name} is made while its collection is empty`);
    assert(this.#indexes.every((it) => it.name !== name), `index ${name} is made once`);
    const index = new StoreIndex(name, keysOf);
    (collection as Store<T>).indexes.push(index);
    this.#indexes.push(index as StoreIndex<unknown>);
    return index;
  }

  /** One output, or none, for each item, under the item's own key. */
  derive<I, O>(
    name: string,
    primary: Collection<I>,
    transform: (item: I, fetch: Fetch) => O | undefined,
  ): Collection<O> {
    return this.deriveMany(name, primary, (item, fetch, key) => {
      const output = transform(item, fetch);
      return output === undefined ? [] : [[key, output]];
    });
  }

  /** Any number of outputs for each item; no two items may have an output key in common. */
  deriveMany<I, O>(
    name: string,
    primary: Collection<I>,
    transform: (item: I, fetch: Fetch, key: string) => Outputs<O>,
  ): Collection<O> {
    assert(primary instanceof Store, "collections are made by an engine");
    const source = primary as Store<I>;
    return this.#derived(name, { dirty: () => source.pending.keys(), all: () => source.items.keys() }, (key, fetch) => {
      const item = source.get(key);
      return item === undefined ? [] : transform(item, fetch, key);
    });
  }

  /** One output, or none, for each key of an index, from all items under it. */
  group<I, O>(
    name: string,
    index: Index<I>,
    transform: (items: readonly I[], fetch: Fetch, indexKey: string) => O | undefined,
  ): Collection<O> {
    const groups = index as StoreIndex<I>;
    return this.#derived(name, { dirty: () => groups.touched, all: () => groups.keys() }, (indexKey, fetch) => {
      const items = groups.get(indexKey);
      const output = items.length === 0 ? undefined : transform(items, fetch, indexKey);
      return output === undefined ? [] : [[indexKey, output]];
    });
  }

  /** The items of several collections, whose keys must not overlap. */
  join<T>(name: string, collections: readonly Collection<T>[]): Collection<T> {
    const result = this.#keep(new Store<T>(name));
    this.#steps.push({
      run: () => {
        // Removals first: an item may move from one collection to another within one settling.
        const added: Change<T>[] = [];
        for (const collection of collections as readonly Store<T>[]) {
          for (const change of collection.pending.values()) {
            if (change.after === undefined) result.write(change.key, undefined);
            else added.push(change);
          }
        }
        for (const { key, after } of added) result.write(key, after);
        return 0;
      },
    });
    return result;
  }

  #derived<O>(
    name: string,
    primary: { readonly dirty: () => Iterable<string>; readonly all: () => Iterable<string> },
    compute: (key: string, fetch: Fetch) => Outputs<O>,
  ): Collection<O> {
    const result = this.#keep(new Store<O>(name));
    const outputsOf = new Map<string, readonly string[]>();
    const ownerOf = new Map<string, string>();
    const tracker = new Tracker();
    const run = () => {
      const dirty = new Set(primary.dirty());
      if (tracker.cellChanged) { for (const key of primary.all()) dirty.add(key); }
      for (const dependency of this.#changedDependencies()) tracker.addDependents(dependency, dirty);
      if (dirty.size === 0) return 0;
      const computed = [...dirty].map((key) => [key, compute(key, tracker.track(key))] as const);
      // All that vanished goes before anything comes: an output key may pass from one item to another.
      for (const [key, outputs] of computed) {
        const kept = new Set(outputs.map(([outputKey]) => outputKey));
        for (const outputKey of outputsOf.get(key) ?? []) {
          if (kept.has(outputKey)) continue;
          ownerOf.delete(outputKey);
          result.write(outputKey, undefined);
        }
      }
      for (const [key, outputs] of computed) {
        for (const [outputKey, item] of outputs) {
          const owner = ownerOf.get(outputKey);
          assert(owner === undefined || owner === key, `${name}: one item alone yields ${outputKey}`);
          ownerOf.set(outputKey, key);
          result.write(outputKey, item);
        }
        if (outputs.length > 0) outputsOf.set(key, outputs.map(([outputKey]) => outputKey));
        else outputsOf.delete(key);
      }
      return dirty.size;
    };
    this.#steps.push({ run });
    return result;
  }

  *#changedDependencies(): Iterable<Dependency> {
    for (const store of this.#stores) for (const key of store.pending.keys()) yield itemDependency(store.name, key);
    for (const index of this.#indexes) for (const key of index.touched) yield groupDependency(index.name, key);
  }

  /** Calls back after each settling that changed the collection. */
  subscribe<T>(collection: Collection<T>, listener: (changes: readonly Change<T>[]) => void): void {
    const store = collection as Store<T>;
    this.#subscriptions.push({
      collect: () => {
        if (store.pending.size === 0) return undefined;
        const changes = [...store.pending.values()];
        return () => listener(changes);
      },
    });
  }

  /** Reruns what depends on the writes since the last settling, then tells the subscribers, in order of subscription. */
  settle(): void {
    for (const step of this.#steps) this.runCount += step.run();
    const notifications = this.#subscriptions.map((subscription) => subscription.collect());
    for (const store of this.#stores) store.pending.clear();
    for (const index of this.#indexes) index.touched.clear();
    for (const cell of this.#cells) cell.changed = false;
    for (const notify of notifications) notify?.();
  }
}
