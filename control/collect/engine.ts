/**
 * Derived collections that recompute only what changed. A source is written; a derived collection is a stateless
 * function of one primary item and whatever else it fetches. After each batch of writes {@link Engine.settle} reruns
 * exactly the items whose inputs changed, in the order the collections were made, and equal results stop there.
 *
 * All of it is synchronous and single-threaded; listeners run once per settling, when everything is consistent again.
 */
import { assert } from "../../base/assert.ts";
import {
  Cell,
  type Change,
  type ChangedKeys,
  type Collection,
  type Index,
  type KeysOf,
  Store,
  StoreIndex,
} from "./store.ts";
import { type Outputs, OutputWriter } from "./outputs.ts";
import { type Fetch, Tracker } from "./tracker.ts";

/** What one item yields: items by key, and what stood in the way of others. */
export interface Outcome<O, P> {
  readonly items: Outputs<O>;
  readonly problems: readonly P[];
}

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

  /** Every collection, in the order they were made. */
  collections(): readonly Collection<unknown>[] {
    return this.#stores;
  }

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

  /** A value computed from whatever it fetches. */
  single<T>(name: string, compute: (fetch: Fetch) => T): Cell<T> {
    const tracker = new Tracker(),
      run = () => {
        const value = compute(tracker.begin(name));
        tracker.end();
        return value;
      };
    const cell = this.cell(name, run());
    this.#steps.push({
      run: () => {
        const dirty = new Set<string>();
        tracker.addChanged(dirty);
        if (dirty.size === 0 && !tracker.cellChanged) return 0;
        cell.write(run());
        return 1;
      },
    });
    return cell;
  }

  #keep<T>(store: Store<T>): Store<T> {
    assert(this.#stores.every((it) => it.name !== store.name), `collection ${store.name} is made once`);
    this.#stores.push(store as Store<unknown>);
    return store;
  }

  /** Groups a collection's items. Make it before anything is written. */
  index<T>(collection: Collection<T>, name: string, keysOf: KeysOf<T>): Index<T> {
    return this.#index(collection, name, { keysOf, existence: false });
  }

  /**
   * Groups items of which those under one key are alike in all that its readers use, which must follow from the key.
   * So what read a group runs again only when the group comes or goes, not with each of its items.
   */
  kinds<T>(collection: Collection<T>, name: string, keysOf: KeysOf<T>): Index<T> {
    return this.#index(collection, name, { keysOf, existence: true });
  }

  #index<T>(
    collection: Collection<T>,
    name: string,
    options: { readonly keysOf: KeysOf<T>; readonly existence: boolean },
  ): Index<T> {
    assert(collection instanceof Store && collection.size === 0, `index ${name} is made while its collection is empty`);
    assert(this.#indexes.every((it) => it.name !== name), `index ${name} is made once`);
    const store: Store<T> = collection, index = new StoreIndex(name, store, options);
    store.indexes.push(index);
    this.#indexes.push(index as StoreIndex<unknown>);
    return index;
  }

  /** One output, or none, for each item, under the item's own key. */
  derive<I, O>(
    name: string,
    primary: Collection<I>,
    transform: (item: I, fetch: Fetch, key: string) => O | undefined,
  ): Collection<O> {
    return this.#oneToOne(name, primary.changed, () => keysOf(primary), (key, fetch) => {
      const item = primary.get(key);
      return item === undefined ? undefined : transform(item, fetch, key);
    });
  }

  /** One output, or none, for each key of an index, from all items under it. */
  group<I, O>(
    name: string,
    index: Index<I>,
    transform: (items: readonly I[], fetch: Fetch, indexKey: string) => O | undefined,
  ): Collection<O> {
    return this.#oneToOne(name, index.changed, () => index.keys(), (indexKey, fetch) => {
      const items = index.get(indexKey);
      return items.length === 0 ? undefined : transform(items, fetch, indexKey);
    });
  }

  /** Any number of outputs for each item; no two items may have an output key in common. */
  deriveMany<I, O>(
    name: string,
    primary: Collection<I>,
    transform: (item: I, fetch: Fetch, key: string) => Outputs<O>,
  ): Collection<O> {
    const outputs = new OutputWriter(this.#keep(new Store<O>(name)));
    this.#steps.push(stepOf(primary.changed, () => keysOf(primary), (dirty, tracker) => {
      const computed: [key: string, outputs: Outputs<O>][] = [];
      for (const key of dirty) {
        const item = primary.get(key), fetch = tracker.begin(key);
        computed.push([key, item === undefined ? [] : transform(item, fetch, key)]);
        tracker.end();
      }
      outputs.write(computed);
    }));
    return outputs.store;
  }

  /** As {@link deriveMany}, with problems beside the items, in a collection of their own under `key#0`, `key#1` … */
  deriveOutcomes<I, O, P>(
    name: string,
    primary: Collection<I>,
    transform: (item: I, fetch: Fetch, key: string) => Outcome<O, P> | undefined,
  ): { readonly items: Collection<O>; readonly problems: Collection<P> } {
    const items = new OutputWriter(this.#keep(new Store<O>(name)));
    const problems = new OutputWriter(this.#keep(new Store<P>(`problems: ${name}`)));
    this.#steps.push(stepOf(primary.changed, () => keysOf(primary), (dirty, tracker) => {
      const computed: [key: string, outputs: Outputs<O>][] = [], beside: [key: string, outputs: Outputs<P>][] = [];
      for (const key of dirty) {
        const item = primary.get(key), fetch = tracker.begin(key);
        const outcome = item === undefined ? undefined : transform(item, fetch, key);
        tracker.end();
        computed.push([key, outcome?.items ?? []]);
        beside.push([key, outcome?.problems.map((it, at) => [`${key}#${at}`, it] as const) ?? []]);
      }
      items.write(computed);
      problems.write(beside);
    }));
    return { items: items.store, problems: problems.store };
  }

  #oneToOne<O>(
    name: string,
    changed: ChangedKeys,
    all: () => Iterable<string>,
    compute: (key: string, fetch: Fetch) => O | undefined,
  ): Collection<O> {
    const result = this.#keep(new Store<O>(name));
    this.#steps.push(stepOf(changed, all, (dirty, tracker) => {
      for (const key of dirty) {
        const output = compute(key, tracker.begin(key));
        tracker.end();
        result.write(key, output);
      }
    }));
    return result;
  }

  /** The items of several collections, whose keys must not overlap. */
  join<T>(name: string, collections: readonly Collection<T>[]): Collection<T> {
    const result = this.#keep(new Store<T>(name));
    this.#steps.push({
      run: () => {
        // Removals first: an item may move from one collection to another within one settling.
        const added: Change<T>[] = [];
        for (const collection of collections as readonly Store<T>[]) {
          if (collection.pending.size === 0) continue;
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
    // Clearing a map makes it a new table, even of an empty one; most collections have not changed.
    for (const { pending } of this.#stores) if (pending.size > 0) pending.clear();
    for (const { touched } of this.#indexes) if (touched.size > 0) touched.clear();
    for (const cell of this.#cells) cell.changed = false;
    for (const notify of notifications) notify?.();
  }
}

function* keysOf(collection: Collection<unknown>): Iterable<string> {
  for (const [key] of collection.entries()) yield key;
}

/** A step that reruns the items of a primary that changed themselves, and those whose fetches did. */
function stepOf(
  changed: ChangedKeys,
  all: () => Iterable<string>,
  rerun: (dirty: ReadonlySet<string>, tracker: Tracker) => void,
): Step {
  const tracker = new Tracker();
  return {
    run: () => {
      if (changed.size === 0 && !tracker.changed) return 0;
      const dirty = new Set<string>();
      if (changed.size > 0) { for (const key of changed.keys()) dirty.add(key); }
      tracker.addChanged(dirty);
      if (tracker.cellChanged) { for (const key of all()) dirty.add(key); }
      if (dirty.size > 0) rerun(dirty, tracker);
      return dirty.size;
    },
  };
}
