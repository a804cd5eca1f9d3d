/** Lines on their way to an output: written together, soon, so that a busy log costs few system calls. */

/** The writing end of a file; Deno.stdout is one. */
export interface SyncWriter {
  writeSync(bytes: Uint8Array): number;
}

const FLUSH_MS = 20;
const LINES_MAX = 10_000; // What waits at most (ZT-200); then the caller writes it out itself.

export class LineBuffer {
  readonly #writer: SyncWriter;
  readonly #encoder = new TextEncoder();
  #lines: string[] = [];
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(writer: SyncWriter) {
    this.#writer = writer;
  }

  /** Takes one line without its end. */
  readonly write = (line: string): void => {
    this.#lines.push(line);
    if (this.#lines.length >= LINES_MAX) this.flush();
    else this.#timer ??= setTimeout(() => this.flush(), FLUSH_MS);
  };

  /** Writes out what waits. */
  flush(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (this.#lines.length === 0) return;
    const bytes = this.#encoder.encode(this.#lines.join("\n") + "\n");
    this.#lines = [];
    for (let at = 0; at < bytes.length;) at += this.#writer.writeSync(bytes.subarray(at));
  }
}
