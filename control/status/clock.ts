/** Time as the controllers see it: an argument, so that a test can move it. */

export interface Clock {
  /** Milliseconds that only ever grow, whatever is done to the wall clock. Waits and ages are measured with it. */
  monotonicMs(): number;
  /** Milliseconds since the epoch, for what others read. Nothing is decided by it. */
  epochMs(): number;
  /** Resolves after that long, or as soon as the signal is aborted. Never rejects. */
  wait(ms: number, signal: AbortSignal): Promise<void>;
}

export const SYSTEM_CLOCK: Clock = Object.freeze({
  monotonicMs: () => performance.now(),
  epochMs: () => Date.now(),
  wait: (ms: number, signal: AbortSignal) =>
    new Promise<void>((resolve) => {
      if (signal.aborted) return resolve();
      const end = () => {
        clearTimeout(timer);
        signal.removeEventListener("abort", end);
        resolve();
      };
      const timer = setTimeout(end, ms);
      signal.addEventListener("abort", end, { once: true });
    }),
});

/** What the promise brings, or undefined if it takes longer than that or the signal is aborted before. */
export async function within<T>(
  promise: Promise<T>,
  ms: number,
  { clock, signal }: { clock: Clock; signal: AbortSignal },
): Promise<T | undefined> {
  const over = new AbortController();
  const stop = () => over.abort();
  if (signal.aborted) stop();
  signal.addEventListener("abort", stop, { once: true });
  try {
    return await Promise.race([promise, clock.wait(Math.max(ms, 0), over.signal).then(() => undefined)]);
  } finally {
    over.abort();
    signal.removeEventListener("abort", stop);
  }
}
