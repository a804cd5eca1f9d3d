/** A token bucket: so many calls at once, so many a second after that (CP-010). */
import { sleep } from "./backoff.ts";

export class RateLimit {
  readonly #perSecond: number;
  readonly #burst: number;
  readonly #now: () => number;
  #tokens: number;
  #atMs: number;

  constructor(limits: { perSecond: number; burst: number }, now: () => number = () => performance.now()) {
    this.#perSecond = limits.perSecond;
    this.#burst = limits.burst;
    this.#now = now;
    this.#tokens = limits.burst;
    this.#atMs = now();
  }

  /** Takes a token. @returns how long to wait until it is there; callers are served in the order they asked. */
  reserve(): number {
    const atMs = this.#now();
    this.#tokens = Math.min(this.#burst, this.#tokens + (atMs - this.#atMs) / 1_000 * this.#perSecond);
    this.#atMs = atMs;
    this.#tokens -= 1;
    return this.#tokens >= 0 ? 0 : -this.#tokens / this.#perSecond * 1_000;
  }

  /** Waits for its turn, or rejects with the signal's reason. */
  async take(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    const waitMs = this.reserve();
    if (waitMs === 0) return;
    try {
      await sleep(waitMs, signal);
    } catch (error) {
      this.#tokens += 1; // It goes unused: who gives up must not slow those that do not.
      throw error;
    }
  }
}
