/** Assertions that stay on in production: a failed claim is our own mistake, never a condition of the outside world. */

/** Our own mistake. Never caught except by a role's outermost boundary, which reports it and ends. */
export class AssertionError extends Error {
  override readonly name = "AssertionError";
}

/** Ends the worker or role when `condition` does not hold. `claim` says what should have been true. */
export function assert(condition: boolean, claim: string): asserts condition {
  if (!condition) throw new AssertionError(claim);
}

/** For the branch that the type system knows cannot be reached. */
export function unreachable(value: never): never {
  throw new AssertionError(`unreachable value ${String(value)}`);
}
