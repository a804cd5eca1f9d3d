/** Changes that wait for one client and one type: by name the newest, bounded by the distinct names (CP-441, CP-443). */
import { NONE, type Resource, type ResourceChange } from "./resources.ts";

/** A part of what waited, in the arrays of the change it came with if that was the only one. */
export interface TakenChanges {
  readonly resources: readonly Resource[];
  /** Sorted. */
  readonly removed: readonly string[];
}

/**
 * While one change waits and nothing else, it is kept as it came: every stream in this state then sends the very same
 * arrays, which are encoded once for all of them (CP-658). The second change makes it a map of its own.
 */
export class WaitingChanges {
  #whole: TakenChanges | undefined;
  /** Undefined while nothing waits that needs it: most streams never do. */
  #merged: Map<string, Resource | undefined> | undefined;

  get size(): number {
    const whole = this.#whole;
    return whole === undefined ? this.#merged?.size ?? 0 : whole.resources.length + whole.removed.length;
  }

  /** Adds a change; a later one replaces an earlier one of the same name. */
  add({ updated, removed }: ResourceChange): void {
    if (updated.length + removed.length === 0) return;
    if (this.size === 0) {
      this.#whole = { resources: updated, removed: isSorted(removed) ? removed : removed.toSorted() };
      return;
    }
    const merged = this.#unfold();
    for (const name of removed) merged.set(name, undefined);
    for (const resource of updated) merged.set(resource.name, resource);
  }

  /** @param resource undefined: it is gone. */
  set(name: string, resource: Resource | undefined): void {
    this.#unfold().set(name, resource);
  }

  has(name: string): boolean {
    return this.size > 0 && this.#unfold().has(name);
  }

  delete(name: string): void {
    if (this.size > 0) this.#unfold().delete(name);
  }

  clear(): void {
    this.#whole = undefined;
    this.#merged = undefined;
  }

  hasUpdates(): boolean {
    if (this.#whole !== undefined) return this.#whole.resources.length > 0;
    if (this.#merged === undefined) return false;
    for (const resource of this.#merged.values()) if (resource !== undefined) return true;
    return false;
  }

  /** What came or changed, without taking it. */
  *updates(): IterableIterator<Resource> {
    if (this.#whole !== undefined) yield* this.#whole.resources;
    if (this.#merged === undefined) return;
    for (const resource of this.#merged.values()) if (resource !== undefined) yield resource;
  }

  /** Takes the updates, the removals, or both; the rest goes on waiting. */
  take({ updates, removals }: { updates: boolean; removals: boolean }): TakenChanges {
    const whole = this.#whole;
    if (whole !== undefined) {
      const rest = { resources: updates ? NONE : whole.resources, removed: removals ? NONE : whole.removed };
      this.#whole = rest.resources.length + rest.removed.length === 0 ? undefined : rest;
      return { resources: updates ? whole.resources : NONE, removed: removals ? whole.removed : NONE };
    }
    const merged = this.#merged, resources: Resource[] = [], removed: string[] = [];
    if (merged === undefined) return { resources, removed };
    for (const [name, resource] of merged) {
      if (resource !== undefined ? !updates : !removals) continue;
      if (resource === undefined) removed.push(name);
      else resources.push(resource);
      merged.delete(name);
    }
    if (merged.size === 0) this.#merged = undefined;
    return { resources, removed: removed.sort() };
  }

  #unfold(): Map<string, Resource | undefined> {
    const whole = this.#whole, merged = this.#merged ??= new Map();
    if (whole === undefined) return merged;
    this.#whole = undefined;
    for (const name of whole.removed) merged.set(name, undefined);
    for (const resource of whole.resources) merged.set(resource.name, resource);
    return merged;
  }
}

function isSorted(names: readonly string[]): boolean {
  return names.every((name, at) => at === 0 || names[at - 1]! <= name);
}
