/** Cuts a stream of bytes into lines, wherever it is cut itself; none may be longer than a bound. */

const NEWLINE = 0x0a;
/** The engine's own: that of a Buffer, which is what sockets give, is written in JavaScript here, and three times slower. */
const { indexOf } = Uint8Array.prototype;

export class LineCutter {
  readonly #lineBytesMax: number;
  readonly #decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  #parts: Uint8Array[] = [];
  #partBytes = 0;

  constructor(lineBytesMax: number) {
    this.#lineBytesMax = lineBytesMax;
  }

  /** How many bytes wait for the end of their line. */
  get pendingBytes(): number {
    return this.#partBytes;
  }

  /** The lines that these bytes complete. @throws RangeError if a line is too long, TypeError if one is no UTF-8. */
  *push(bytes: Uint8Array): Generator<string> {
    let at = 0;
    for (let end = indexOf.call(bytes, NEWLINE); end >= 0; end = indexOf.call(bytes, NEWLINE, at)) {
      this.#bound(end - at);
      const line = this.#parts.length === 0 ? bytes.subarray(at, end) : this.#join(bytes.subarray(at, end));
      at = end + 1;
      yield this.#decoder.decode(line);
    }
    if (at === bytes.length) return;
    this.#bound(bytes.length - at);
    this.#parts.push(bytes.slice(at)); // A copy: whoever reads may use the buffer again.
    this.#partBytes += bytes.length - at;
  }

  #bound(more: number): void {
    if (this.#partBytes + more > this.#lineBytesMax) {
      throw new RangeError(`a line is longer than ${this.#lineBytesMax} bytes`);
    }
  }

  #join(last: Uint8Array): Uint8Array {
    const line = new Uint8Array(this.#partBytes + last.length);
    let at = 0;
    for (const part of this.#parts) {
      line.set(part, at);
      at += part.length;
    }
    line.set(last, at);
    this.#parts = [];
    this.#partBytes = 0;
    return line;
  }
}
