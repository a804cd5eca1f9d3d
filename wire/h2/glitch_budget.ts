/** How much legal oddity a peer may show before it is told to calm down. */

/** So many at once, and so many more each millisecond: generous to a busy peer, final to one that only makes work. */
const GLITCHES_MAX = 2_000, GLITCHES_PER_MS = 0.2;

export class GlitchBudget {
  #count = 0;
  #refilledAtMs: number;

  constructor(nowMs: number) {
    this.#refilledAtMs = nowMs;
  }

  /** Counts one. @returns false when it was one too many. */
  spend(nowMs: number): boolean {
    this.#count++;
    if (this.#count <= GLITCHES_MAX) return true;
    const refilled = Math.floor((nowMs - this.#refilledAtMs) * GLITCHES_PER_MS);
    this.#count -= Math.min(this.#count, refilled);
    this.#refilledAtMs = nowMs;
    return this.#count <= GLITCHES_MAX;
  }
}
