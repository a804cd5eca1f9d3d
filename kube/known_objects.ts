/** Who is there and in which version: all that an informer remembers of the objects it follows. */

/**
 * Places and versions. By namespace, then name, so that no text is made for a place: the strings are the objects' own,
 * which whoever keeps the objects has anyway. A version that is a number is kept as one.
 */
export class KnownObjects {
  readonly #byNamespace = new Map<string, Map<string, string | number>>();
  #size = 0;
  /** While a list is read: what it has named so far. */
  #listed: Map<string, Set<string>> | undefined;

  get size(): number {
    return this.#size;
  }

  /** Notes an object. @returns whether it is new, or its version another than the one known. */
  note(namespace: string, name: string, resourceVersion: string): boolean {
    this.#mark(namespace, name);
    let names = this.#byNamespace.get(namespace);
    if (names === undefined) this.#byNamespace.set(namespace, names = new Map());
    const known = names.get(name), version = compact(resourceVersion);
    if (known === version) return false;
    if (known === undefined) this.#size++;
    names.set(name, version);
    return true;
  }

  /** Forgets an object. @returns whether it was known. */
  forget(namespace: string, name: string): boolean {
    this.#listed?.get(namespace)?.delete(name);
    const names = this.#byNamespace.get(namespace);
    if (names === undefined || !names.delete(name)) return false;
    this.#size--;
    if (names.size === 0) this.#byNamespace.delete(namespace);
    return true;
  }

  /** A list begins; one that began before and never ended is void. */
  beginList(): void {
    // The first list finds nothing known, so it need not remember what it has named.
    this.#listed = this.#size === 0 ? undefined : new Map();
  }

  /** The list is complete: forgets and returns who was known and not named by it. */
  endList(): { readonly namespace: string; readonly name: string }[] {
    const listed = this.#listed;
    this.#listed = undefined;
    if (listed === undefined) return [];
    const vanished = [];
    for (const [namespace, names] of this.#byNamespace) {
      const kept = listed.get(namespace);
      for (const name of names.keys()) if (kept?.has(name) !== true) vanished.push({ namespace, name });
    }
    for (const { namespace, name } of vanished) this.forget(namespace, name);
    return vanished;
  }

  #mark(namespace: string, name: string): void {
    if (this.#listed === undefined) return;
    const names = this.#listed.get(namespace);
    if (names === undefined) this.#listed.set(namespace, new Set([name]));
    else names.add(name);
  }
}

function compact(resourceVersion: string): string | number {
  const number = Number(resourceVersion);
  return Number.isSafeInteger(number) && String(number) === resourceVersion ? number : resourceVersion;
}
