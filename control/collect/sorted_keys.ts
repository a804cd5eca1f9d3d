/** Keys in order, for groups that are read more often than they are filled. */
const FEW = 8;

/** A set of keys that is read in order: kept sorted between reads, however large, at the cost of a search and a shift. */
export class SortedKeys {
  #keys: string[];
  /** Keys that came since the last read, at the end of the list and in no order; sorted in when somebody reads. */
  #unsorted = 0;

  constructor(...keys: readonly string[]) {
    this.#keys = [...keys];
    this.#unsorted = keys.length;
  }

  get size(): number {
    return this.#keys.length;
  }

  /** In order; the caller changes nothing of it, and is done with it before the next change. */
  read(): readonly string[] {
    if (this.#unsorted > 0) this.#sort();
    return this.#keys;
  }

  /** Adds a key that is not there. */
  add(key: string): void {
    this.#keys.push(key);
    this.#unsorted++;
  }

  /** Removes a key that is there. */
  delete(key: string): void {
    if (this.#unsorted > 0) this.#sort();
    const at = this.#find(key);
    if (this.#keys[at] === key) this.#keys.splice(at, 1);
  }

  #sort(): void {
    const added = this.#unsorted;
    this.#unsorted = 0;
    // Many, as in a first list, are sorted with the rest; a few are put where they belong.
    if (added > FEW) this.#keys.sort();
    else for (const key of this.#keys.splice(-added)) this.#keys.splice(this.#find(key), 0, key);
  }

  /** Where the key is, or would be. */
  #find(key: string): number {
    let low = 0, high = this.#keys.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#keys[middle]! < key) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
