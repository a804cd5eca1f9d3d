/** Gives back the memory that a change of the mesh needed for a moment: messages, decoded and encoded, are megabytes. */
import { returnFreeMemory } from "../../os/allocator.ts";

const DELAY_MS = 2_000; // Changes follow each other; and workers are busy with this one first.

export class MemoryTrim {
  #timer: ReturnType<typeof setTimeout> | undefined;
  #stopped = false;

  /** Something large was done. */
  readonly soon = (): void => {
    if (!this.#stopped) this.#timer ??= setTimeout(() => this.#trim(), DELAY_MS);
  };

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
  }

  #trim(): void {
    this.#timer = undefined;
    returnFreeMemory();
  }
}
