/** How long to wait before the next try: doubled each time, with jitter, so that many who failed together do not return together. */

export interface BackoffLimits {
  readonly firstMs: number;
  readonly maxMs: number;
}

/** Waits for one thing that is tried again and again. */
export class Backoff {
  readonly #limits: BackoffLimits;
  readonly #random: () => number;
  #nextMs: number;

  constructor(limits: BackoffLimits, random: () => number = Math.random) {
    this.#limits = limits;
    this.#random = random;
    this.#nextMs = limits.firstMs;
  }

  /** The next wait, between half and one and a half times its step, never over the limit. */
  next(): number {
    const step = this.#nextMs;
    this.#nextMs = Math.min(step * 2, this.#limits.maxMs);
    return Math.min(step * (0.5 + this.#random()), this.#limits.maxMs);
  }

  /** After a success. */
  reset(): void {
    this.#nextMs = this.#limits.firstMs;
  }
}

/** Waits, or rejects with the signal's reason as soon as that is aborted. */
export function sleep(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal.aborted) return reject(signal.reason);
    const stop = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", stop);
      resolve();
    }, ms);
    signal.addEventListener("abort", stop, { once: true });
  });
}
