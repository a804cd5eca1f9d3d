/** Operational failures: what a role reports when the outside world does not play along. */

/** A failure with a stable code, what we were doing, and a remedy that a person can follow. Its message never repeats its cause. */
export class MeshError extends Error {
  override readonly name = "MeshError";
  readonly code: string;
  readonly remedy: string;

  /** @param code stable, `AMB` and four digits; listed in docs/errors.md. @param remedy the next step, as an imperative sentence. */
  constructor(code: string, message: string, options: { remedy: string; cause?: unknown }) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.remedy = options.remedy;
  }
}

/** The message of an error and of its causes, outermost first, joined by `: `. For the one boundary that gives up. */
export function chain(error: unknown): string {
  const parts: string[] = [];
  for (let at: unknown = error, depth = 0; at !== undefined && depth < 8; depth++) {
    parts.push(at instanceof Error ? at.message : String(at));
    at = at instanceof Error ? at.cause : undefined;
  }
  return parts.join(": ");
}

/** Marks a result as dropped on purpose, and says why. */
export function ignore(_result: unknown, _why: string): void {}
