/** How long a client that enforces policies is waited for, until it has asked for policies and for addresses both (CP-427). */

/** What is cut short when the client leaves. */
export interface Waiting {
  cancel(): void;
}

// Such clients ask for both in their first messages. The time passes in slices, so that a process which stood still for
// longer than all of it still reads what has come in between before it gives up.
const SLICE_MS = 100;
const SLICES = 10;

/** Calls back when the time is over, unless the client has asked for both by then. */
export function awaitBoth(
  expects: () => boolean,
  onGivenUp: () => void,
  schedule: (callback: () => void, ms: number) => () => void,
): Waiting {
  let slices = 0, cancel = schedule(wake, SLICE_MS);
  function wake(): void {
    if (!expects()) return;
    if (++slices === SLICES) return onGivenUp();
    cancel = schedule(wake, SLICE_MS);
  }
  return { cancel: () => cancel() };
}
