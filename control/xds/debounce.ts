/**
 * Gathers changes until they pause, so that a burst is one push; a lone change goes almost at once (CP-440). Where changes
 * never pause, as in a large cluster all day, they are pushed as often as pushing takes a tenth of the time.
 */
import { NONE, type Resource, type ResourceChange } from "./resources.ts";
import { WaitingChanges } from "./waiting_changes.ts";

export interface DebounceOptions {
  /** Quiet time that ends a burst. */
  readonly quietMs: number;
  /** Quiet time after which a first change goes when nothing was pushed lately: enough to take one commit as a whole. */
  readonly idleQuietMs: number;
  /** A burst is pushed after this long, however much the pushes cost. */
  readonly maxMs: number;
  readonly now: () => number;
  /** Calls back once after so many milliseconds. @returns What cancels it. */
  readonly schedule: (callback: () => void, ms: number) => () => void;
  readonly flush: (changes: readonly ResourceChange[], waitedMs: number) => void;
}

/** Of all time, what pushes may take while changes do not pause. */
const PUSH_SHARE_MAX = 0.1;
/** Of the quiet time: no burst waits for less, so that what belongs together goes together. */
const BURST_SHARE_OF_QUIET = 0.5;

export class Debouncer {
  readonly #options: DebounceOptions;
  readonly #waiting = new Map<string, WaitingChanges>();
  #firstAtMs = 0;
  #lastAtMs = 0;
  #flushedAtMs = -Infinity;
  #flushMs = 0;
  #cancel: (() => void) | undefined;

  constructor(options: DebounceOptions) {
    this.#options = options;
  }

  add(change: ResourceChange): void {
    if (change.updated.length + change.removed.length === 0) return;
    const nowMs = this.#options.now();
    if (this.#waiting.size === 0) this.#firstAtMs = nowMs;
    this.#lastAtMs = nowMs;
    let merged = this.#waiting.get(change.typeUrl);
    if (merged === undefined) this.#waiting.set(change.typeUrl, merged = new WaitingChanges());
    merged.add(change);
    this.#cancel ??= this.#options.schedule(() => this.#wake(), this.#dueMs(nowMs));
  }

  /** What came or changed of a type and is not pushed yet. */
  gathering(typeUrl: string): Iterable<Resource> {
    return this.#waiting.get(typeUrl)?.updates() ?? NONE;
  }

  /** Drops what waits and pushes no more. */
  stop(): void {
    this.#cancel?.();
    this.#cancel = undefined;
    this.#waiting.clear();
  }

  #wake(): void {
    this.#cancel = undefined;
    const nowMs = this.#options.now();
    const dueMs = this.#dueMs(nowMs);
    if (dueMs > 0) { // More came meanwhile: wait for the rest of its quiet time.
      this.#cancel = this.#options.schedule(() => this.#wake(), dueMs);
      return;
    }
    const changes: ResourceChange[] = [];
    for (const [typeUrl, merged] of this.#waiting) {
      const { resources: updated, removed } = merged.take({ updates: true, removals: true });
      changes.push({ typeUrl, updated, removed });
    }
    this.#waiting.clear();
    this.#flushedAtMs = nowMs;
    this.#options.flush(changes, nowMs - this.#firstAtMs);
    this.#flushMs = this.#options.now() - nowMs;
  }

  #dueMs(nowMs: number): number {
    const { quietMs, idleQuietMs, maxMs } = this.#options;
    const idle = this.#firstAtMs - this.#flushedAtMs >= quietMs;
    const quietEndsMs = this.#lastAtMs + (idle ? Math.min(idleQuietMs, quietMs) : quietMs);
    const patienceMs = Math.max(quietMs * BURST_SHARE_OF_QUIET, this.#flushMs / PUSH_SHARE_MAX);
    return Math.max(0, Math.min(quietEndsMs, this.#firstAtMs + Math.min(patienceMs, maxMs)) - nowMs);
  }
}
