/** Pods to look at: each once however often it is named, again and again after failures, ever more slowly (CNI-073). */
import { chain } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import { KeyQueue } from "../../kube/key_queue.ts";

export interface RetryQueueOptions {
  /** Looks at the state of one key and does what is to be done; throws to be called again. */
  readonly reconcile: (key: string) => Promise<void>;
  readonly log: Logger;
  readonly random?: () => number;
}

const RETRY_FIRST_MS = 5, RETRY_MAX_MS = 5_000;
const WORKERS = 8; // Each waits up to five seconds for ztunnel: one that is slow must not hold up a node's other pods.
const BURST = 100, PER_SECOND = 10;

export class RetryQueue {
  readonly #options: RetryQueueOptions;
  readonly #queue: KeyQueue;
  readonly #failures = new Map<string, number>();
  readonly #timers = new Map<string, ReturnType<typeof setTimeout>>();
  #tokens = BURST;
  #refilledMs = performance.now();

  constructor(options: RetryQueueOptions) {
    this.#options = options;
    this.#queue = new KeyQueue(WORKERS, (key, signal) => this.#work(key, signal));
  }

  /** Keys that wait, are worked on, or are to be tried again. */
  get size(): number {
    return this.#queue.size + this.#timers.size;
  }

  add(key: string): void {
    clearTimeout(this.#timers.get(key));
    this.#timers.delete(key);
    this.#queue.add(key);
  }

  /** Works until the signal; resolves once no call is under way any more. */
  async run(signal: AbortSignal): Promise<void> {
    const stop = () => {
      for (const timer of this.#timers.values()) clearTimeout(timer);
      this.#timers.clear();
    };
    signal.addEventListener("abort", stop, { once: true });
    await this.#queue.run(signal);
  }

  async #work(key: string, signal: AbortSignal): Promise<void> {
    try {
      await this.#options.reconcile(key);
      this.#failures.delete(key);
    } catch (error) {
      if (!signal.aborted) this.#retry(key, error);
    }
  }

  #retry(key: string, error: unknown): void {
    const { log, random = Math.random } = this.#options, failures = this.#failures.get(key) ?? 0;
    this.#failures.set(key, failures + 1);
    const backoffMs = Math.min(RETRY_FIRST_MS * 2 ** Math.min(failures, 20), RETRY_MAX_MS);
    const delayMs = backoffMs * (0.8 + 0.4 * random()) + this.#paceMs();
    const level = failures === 0 || backoffMs === RETRY_MAX_MS ? "warn" : "debug"; // Once, and then every few seconds.
    log[level]("pod tried again", { pod: key, attempt: failures + 1, error: chain(error) });
    this.#timers.set(
      key,
      setTimeout(() => {
        this.#timers.delete(key);
        this.add(key);
      }, delayMs),
    );
  }

  /** How long a retry waits for its turn among all of the node's. */
  #paceMs(): number {
    const nowMs = performance.now();
    this.#tokens = Math.min(BURST, this.#tokens + (nowMs - this.#refilledMs) / 1_000 * PER_SECOND);
    this.#refilledMs = nowMs;
    this.#tokens--;
    return this.#tokens >= 0 ? 0 : -this.#tokens / PER_SECOND * 1_000;
  }
}
