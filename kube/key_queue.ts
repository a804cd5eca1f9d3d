/** Keys to look at: each once however often it was added, several side by side. What follows a failure is its user's affair. */

export class KeyQueue {
  readonly #workers: number;
  readonly #work: (key: string, signal: AbortSignal) => Promise<void>;
  /** Waiting, in order of their first addition. */
  readonly #waiting = new Set<string>();
  readonly #active = new Set<string>();
  /** Added while it was active: looked at again, since what was read may be old. */
  readonly #again = new Set<string>();
  readonly #wakes: (() => void)[] = [];

  /** @param work Looks at one key; what it throws ends {@link run}. */
  constructor(workers: number, work: (key: string, signal: AbortSignal) => Promise<void>) {
    this.#workers = workers;
    this.#work = work;
  }

  get size(): number {
    return this.#waiting.size + this.#active.size + this.#again.size;
  }

  add(key: string): void {
    if (this.#active.has(key)) this.#again.add(key);
    else this.#waiting.add(key);
    this.#wakes.shift()?.();
  }

  /** Works until the signal; resolves once no call is under way any more. */
  async run(signal: AbortSignal): Promise<void> {
    const wakeAll = () => {
      for (const wake of this.#wakes.splice(0)) wake();
    };
    signal.addEventListener("abort", wakeAll, { once: true });
    await Promise.all(Array.from({ length: this.#workers }, () => this.#turn(signal)));
  }

  async #turn(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const [key] = this.#waiting;
      if (key === undefined) {
        await new Promise<void>((resolve) => this.#wakes.push(resolve));
        continue;
      }
      this.#waiting.delete(key);
      this.#active.add(key);
      await this.#work(key, signal);
      this.#active.delete(key);
      if (this.#again.delete(key)) this.add(key);
    }
  }
}
