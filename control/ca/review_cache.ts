/** Answers about tokens, remembered for seconds: a node's proxy shows the same token for every pod of its node (CP-476). */
import { createHash } from "node:crypto";
import { assert } from "../../base/assert.ts";

export interface ReviewCacheOptions {
  readonly now: () => number;
  /** How many answers are kept; the oldest go first. */
  readonly entriesMax: number;
  /** How many questions are open at once; further ones wait. */
  readonly openMax: number;
  /** How many wait; further ones get `busy`. */
  readonly waitingMax: number;
}

interface Entry<T> {
  readonly answer: Promise<T>;
  /** Until when it counts; undefined while it is awaited. */
  untilMs: number | undefined;
}

/** What was found, and until when it may be repeated: a moment that has passed means not at all. */
export interface Found<T> {
  readonly value: T;
  readonly untilMs: number;
}

export class ReviewCache<T> {
  readonly #options: ReviewCacheOptions;
  readonly #entries = new Map<string, Entry<T>>();
  readonly #waiting: (() => void)[] = [];
  #open = 0;

  constructor(options: ReviewCacheOptions) {
    this.#options = options;
  }

  get size(): number {
    return this.#entries.size;
  }

  /**
   * The answer about a secret in a realm, asked once however many want it at the same time.
   * @returns undefined if too many wait already. @throws What `ask` throws, to all that wait for it.
   */
  async find(realm: string, secret: string, ask: () => Promise<Found<T>>): Promise<T | undefined> {
    const key = createHash("sha256").update(realm).update("\0").update(secret).digest("base64");
    const known = this.#entries.get(key);
    if (known !== undefined && (known.untilMs === undefined || this.#options.now() < known.untilMs)) {
      return await known.answer;
    }
    if (this.#open >= this.#options.openMax && this.#waiting.length >= this.#options.waitingMax) return undefined;
    const { promise, resolve, reject } = Promise.withResolvers<T>();
    const entry: Entry<T> = { answer: promise, untilMs: undefined };
    this.#entries.delete(key); // So that it becomes the youngest.
    this.#entries.set(key, entry);
    this.#ask(ask).then(({ value, untilMs }) => {
      entry.untilMs = untilMs;
      if (untilMs <= this.#options.now()) this.#forget(key, entry);
      resolve(value);
    }, (error) => {
      this.#forget(key, entry);
      reject(error);
    });
    this.#evict();
    return await promise;
  }

  async #ask(ask: () => Promise<Found<T>>): Promise<Found<T>> {
    if (this.#open >= this.#options.openMax) await new Promise<void>((resolve) => this.#waiting.push(resolve));
    else this.#open++;
    try {
      return await ask();
    } finally {
      const next = this.#waiting.shift(); // Who waits takes over our place, so that nobody slips in between.
      if (next === undefined) this.#open--;
      else next();
      assert(this.#open >= 0, "as many questions end as began");
    }
  }

  #forget(key: string, entry: Entry<T>): void {
    if (this.#entries.get(key) === entry) this.#entries.delete(key);
  }

  #evict(): void {
    for (const [key, { untilMs }] of this.#entries) {
      if (this.#entries.size <= this.#options.entriesMax) return;
      if (untilMs !== undefined) this.#entries.delete(key); // What is awaited is bounded by those who may wait.
    }
  }
}
