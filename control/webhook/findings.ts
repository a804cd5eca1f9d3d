/** What is found of an object on its way into the cluster: reasons to refuse it, and what its author should know. */
import { type Field, FieldRefusal, formatPath } from "../decode/field.ts";

/** Collected over all checks, so that an author hears of everything at once. */
export class Findings {
  readonly problems: string[] = [];
  readonly warnings: string[] = [];

  /** Refuses the object. */
  refuse(field: Field, wrong: string): void {
    this.problems.push(`${formatPath(field.path)}: ${wrong}`);
  }

  refuseIf(wrong: boolean, field: Field, why: string): void {
    if (wrong) this.refuse(field, why);
  }

  warn(field: Field, what: string): void {
    this.warnings.push(`${formatPath(field.path)}: ${what}`);
  }

  /** Runs what throws at the first thing that is wrong. @returns its result, or undefined if it refused. */
  attempt<T>(check: () => T): T | undefined {
    try {
      return check();
    } catch (error) {
      if (!(error instanceof FieldRefusal)) throw error;
      const problem = `${formatPath(error.path)}: ${error.message}`;
      if (!this.problems.includes(problem)) this.problems.push(problem);
      return undefined;
    }
  }
}
