/** What the mesh is told to trust, and whom no longer: the bundle that is distributed, and who waits for it to change (CP-505, CP-511). */

export interface TrustBundleNow {
  /** Root certificates, as stored. */
  readonly rootsPem: string;
  /** Revocation lists; empty if there are none. */
  readonly revocationsPem: string;
}

export class TrustBundle {
  readonly #listeners = new Set<() => void>();
  #now: TrustBundleNow;

  constructor(now: TrustBundleNow) {
    this.#now = now;
  }

  get now(): TrustBundleNow {
    return this.#now;
  }

  /** Changes what is given and tells all who subscribed, if that differs. */
  set(part: Partial<TrustBundleNow>): void {
    const next = { ...this.#now, ...part };
    if (next.rootsPem === this.#now.rootsPem && next.revocationsPem === this.#now.revocationsPem) return;
    this.#now = next;
    for (const listener of [...this.#listeners]) listener();
  }

  /** Calls back after each change, until the returned function is called. */
  subscribe(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }
}
