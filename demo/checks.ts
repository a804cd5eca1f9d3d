/** Claims that a run puts to the test, with what was found. */
import { chain } from "../base/errors.ts";

export interface CheckResult {
  readonly name: string;
  readonly ok: boolean;
  /** What was found: figures where it holds, the reason where it does not. */
  readonly detail: string;
}

/** What a check found; or thrown: that it could not even be made. */
export interface Finding {
  readonly ok: boolean;
  readonly detail: string;
}

/** What makes checks. */
export interface CheckMaker {
  /** Makes a check. What `find` throws is a check that does not hold. */
  check(name: string, find: () => Finding | Promise<Finding>): Promise<boolean>;
}

export class Checks implements CheckMaker {
  readonly results: CheckResult[] = [];
  readonly #onResult: (result: CheckResult) => void;

  constructor(onResult: (result: CheckResult) => void = () => {}) {
    this.#onResult = onResult;
  }

  /** Whether there are results, and all of them hold. */
  get ok(): boolean {
    return this.results.length > 0 && this.results.every((result) => result.ok);
  }

  /** The same checks for work that may be stopped: from then on they reject, and a check under way says nothing more. */
  until(signal: AbortSignal): CheckMaker {
    return { check: (name, find) => this.check(name, find, signal) };
  }

  async check(name: string, find: () => Finding | Promise<Finding>, signal?: AbortSignal): Promise<boolean> {
    signal?.throwIfAborted();
    let finding: Finding;
    try {
      finding = await find();
    } catch (error) {
      finding = { ok: false, detail: chain(error) };
    }
    signal?.throwIfAborted();
    const result = { name, ok: finding.ok, detail: finding.detail };
    this.results.push(result);
    this.#onResult(result);
    return finding.ok;
  }

  /** The one line of `-o json`. */
  toJson(): string {
    return JSON.stringify({ checks: this.results, ok: this.ok });
  }
}
