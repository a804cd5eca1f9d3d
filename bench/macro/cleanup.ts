/** What has to be undone when a run ends, however it ends: synchronous, so that a signal can do it too. */

/** Undo steps, run last in, first out, each at most once. One that fails does not keep the others from running. */
export class Cleanup {
  #steps: { name: string; undo: () => void }[] = [];
  readonly failures: string[] = [];

  /** @returns A function that undoes this step now, and takes it off the list. */
  add(name: string, undo: () => void): () => void {
    const step = { name, undo };
    this.#steps.push(step);
    return () => {
      const at = this.#steps.indexOf(step);
      if (at < 0) return;
      this.#steps.splice(at, 1);
      this.#run(step);
    };
  }

  /** Undoes everything that is left. */
  run(): void {
    for (let step = this.#steps.pop(); step !== undefined; step = this.#steps.pop()) this.#run(step);
  }

  #run(step: { name: string; undo: () => void }): void {
    try {
      step.undo();
    } catch (error) {
      this.failures.push(`${step.name}: ${error instanceof Error ? error.message : String(error)}`);
    }
  }
}
