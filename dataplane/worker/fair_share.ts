/** What the pods of a node have in common: none may take so much of it that the others have nothing. */

/**
 * A pod may have this many times as much as is left for all. One that takes what it can gets three quarters, and the rest
 * stays for others; two get three sevenths each. As long as there is plenty nobody is held to anything.
 */
const LEFT_TIMES = 3;

/** One thing that a worker has a number of, and how many each pod has. */
export class FairShare {
  readonly limit: number;
  #taken = 0;
  readonly #byPod: number[] = [];

  constructor(limit: number) {
    this.limit = limit;
  }

  get taken(): number {
    return this.#taken;
  }

  /** Whether the pod in this row may have one more, or one piece more. */
  mayTake(podRow: number): boolean {
    return (this.#byPod[podRow] ?? 0) < LEFT_TIMES * (this.limit - this.#taken);
  }

  /** Takes, also what could not be helped: who was let in elsewhere stays in. */
  take(podRow: number, amount = 1): void {
    while (this.#byPod.length <= podRow) this.#byPod.push(0);
    this.#byPod[podRow]! += amount;
    this.#taken += amount;
  }

  give(podRow: number, amount = 1): void {
    this.#byPod[podRow]! -= amount;
    this.#taken -= amount;
  }
}
