/** Lines on their way to an output that may be slow: written together and soon, and nobody waits for it (ZT-200). */

/** The writing end of a file that does not hold up the caller; Deno.stdout is one. */
export interface Writer {
  write(bytes: Uint8Array): Promise<number>;
}

const FLUSH_MS = 20; // A busy log costs few system calls.
const LINES_MAX = 10_000; // What waits at most; further ones are dropped and counted.
const BATCH_LINES_MAX = 500; // Of a write: a slow reader makes room in small steps.

export class LineBuffer {
  readonly #writer: Writer;
  readonly #onDropped: (count: number) => void;
  readonly #encoder = new TextEncoder();
  #lines: string[] = [];
  #writingCount = 0;
  #droppedCount = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #writing: Promise<void> | undefined;

  /** @param onDropped is told how many were dropped, once there is room again; it may write a line. */
  constructor(writer: Writer, onDropped: (count: number) => void) {
    this.#writer = writer;
    this.#onDropped = onDropped;
  }

  /** Takes one line without its end, or drops it if too many wait. */
  readonly write = (line: string): void => {
    if (this.#lines.length + this.#writingCount >= LINES_MAX) {
      this.#droppedCount++;
      return;
    }
    this.#lines.push(line);
    if (this.#writing === undefined) this.#timer ??= setTimeout(() => void this.flush(), FLUSH_MS);
  };

  /** Resolves when all that waits is written; never if nobody reads it. Never rejects. */
  flush(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    return this.#writing ??= this.#writeAll().finally(() => this.#writing = undefined);
  }

  /** One batch after the other, so that the order stays. */
  async #writeAll(): Promise<void> {
    while (this.#lines.length > 0) {
      const batch = this.#lines.splice(0, BATCH_LINES_MAX);
      this.#writingCount = batch.length;
      const written = await this.#writeWhole(this.#encoder.encode(batch.join("\n") + "\n"));
      this.#writingCount = 0;
      if (!written) this.#droppedCount += batch.length;
      else if (this.#droppedCount > 0) {
        const count = this.#droppedCount;
        this.#droppedCount = 0;
        this.#onDropped(count);
      }
    }
  }

  /** @returns false if the output is gone: there is nobody to tell, until it takes something again. */
  async #writeWhole(bytes: Uint8Array): Promise<boolean> {
    for (let at = 0; at < bytes.length;) {
      try {
        at += await this.#writer.write(bytes.subarray(at));
      } catch (error) {
        if (!(error instanceof Deno.errors.WouldBlock)) return false; // A pipe without its reader, a full disk.
        await new Promise((resolve) => setTimeout(resolve, FLUSH_MS)); // Whoever gave us the output made it so.
      }
    }
    return true;
  }
}
