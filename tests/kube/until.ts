/** Waiting for a state of other processes, with a deadline. */

const POLL_MS = 20;

/** Polls until the condition holds. @throws Error after `ms`. */
export async function until(condition: () => boolean | Promise<boolean>, what: string, ms: number): Promise<void> {
  const deadlineMs = performance.now() + ms;
  while (!await condition()) {
    if (performance.now() > deadlineMs) throw new Error(`not within ${ms} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}
