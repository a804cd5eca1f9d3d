/** How fast new streams are let in, so that a reconnect storm does not starve the streams there are (CP-400). */

export interface StreamLimitOptions {
  readonly perSecond: number;
  /** Who would wait longer is refused. */
  readonly waitMsMax: number;
  readonly now: () => number;
}

/** A bucket that holds one second's worth of streams. */
export class StreamLimit {
  readonly #options: StreamLimitOptions;
  /** When the next stream is due if all before it went at the rate; lies in the past after a pause. */
  #nextAtMs = -Infinity;

  constructor(options: StreamLimitOptions) {
    this.#options = options;
  }

  /** Takes a turn. @returns How long to wait for it, or undefined if there is none within the longest wait. */
  take(): number | undefined {
    const { perSecond, waitMsMax, now } = this.#options;
    const nowMs = now();
    const dueMs = Math.max(this.#nextAtMs, nowMs - 1_000);
    const waitMs = Math.max(0, dueMs - nowMs);
    if (waitMs > waitMsMax) return undefined;
    this.#nextAtMs = dueMs + 1_000 / perSecond;
    return waitMs;
  }
}
