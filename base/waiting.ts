/** Waiting that a signal ends. */

/** @returns True after the time; false as soon as the signal is aborted. */
export async function pause(ms: number, signal: AbortSignal): Promise<boolean> {
  if (signal.aborted) return false;
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const timer = setTimeout(() => resolve(true), ms);
  const stop = () => {
    clearTimeout(timer);
    resolve(false);
  };
  signal.addEventListener("abort", stop, { once: true });
  const result = await promise;
  signal.removeEventListener("abort", stop);
  return result;
}

/** Resolves as soon as the signal is aborted. */
export async function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return;
  await new Promise((resolve) => signal.addEventListener("abort", resolve, { once: true }));
}
