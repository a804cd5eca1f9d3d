/** Waiting for a state, with a deadline. */
import { MeshError } from "../../base/errors.ts";

const POLL_MS = 20;

/** A moment, for loops that poll. */
export const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

/** Thrown by a question to say that waiting on is of no use. */
export class Hopeless extends Error {}

/**
 * Asks again and again until the answer is neither undefined nor false, and returns it. Throws AMB9101 at the deadline,
 * or when `ask` throws {@link Hopeless}; any other exception of it counts as "not yet" and becomes the cause.
 */
export async function until<T>(
  what: string,
  timeoutMs: number,
  ask: () => T | undefined | false | Promise<T | undefined | false>,
): Promise<T> {
  const deadlineMs = performance.now() + timeoutMs;
  let cause: unknown;
  while (true) {
    try {
      const answer = await ask();
      if (answer !== undefined && answer !== false) return answer;
      cause = undefined;
    } catch (error) {
      cause = error;
    }
    if (cause instanceof Hopeless || performance.now() > deadlineMs) {
      const limit = cause instanceof Hopeless ? "" : ` within ${timeoutMs} ms`;
      throw new MeshError("AMB9101", `${what} did not come about${limit}`, {
        remedy: "Read the roles' logs; on a machine with much else to do, try again.",
        cause,
      });
    }
    await pause(POLL_MS);
  }
}
