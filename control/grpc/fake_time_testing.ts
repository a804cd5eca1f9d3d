/** Timers that fire when the test says so. */
export class FakeTime implements Disposable {
  readonly #real = globalThis.setTimeout;
  readonly #clear = globalThis.clearTimeout;
  readonly #timers = new Map<number, { readonly atMs: number; readonly callback: () => void }>();
  #nowMs = 0;
  #ids = 0;

  constructor() {
    const set = (callback: () => void, ms = 0) => {
      this.#timers.set(++this.#ids, { atMs: this.#nowMs + ms, callback });
      return this.#ids;
    };
    globalThis.setTimeout = set as unknown as typeof setTimeout;
    globalThis.clearTimeout = ((id: number) => void this.#timers.delete(id)) as typeof clearTimeout;
  }

  /** Timers that have not fired. */
  get pending(): number {
    return this.#timers.size;
  }

  pass(ms: number): void {
    this.#nowMs += ms;
    for (const [id, { atMs, callback }] of this.#timers) {
      if (atMs > this.#nowMs) continue;
      this.#timers.delete(id);
      callback();
    }
  }

  [Symbol.dispose](): void {
    globalThis.setTimeout = this.#real;
    globalThis.clearTimeout = this.#clear;
  }
}
