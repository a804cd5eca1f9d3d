/** Cuts a stream of bytes into frames, each behind its length in four bytes: how a watch comes in protobuf. */

const LENGTH_BYTES = 4;
const KEPT_BYTES = 64 * 1024; // One large object must not hold its bytes for ever.

export class FrameCutter {
  readonly #frameBytesMax: number;
  /** What has come of a frame that is not whole. */
  #rest = new Uint8Array(0);
  #restBytes = 0;

  constructor(frameBytesMax: number) {
    this.#frameBytesMax = frameBytesMax;
  }

  /** How many bytes wait for the end of their frame. */
  get pendingBytes(): number {
    return this.#restBytes;
  }

  /** The frames that these bytes complete, borrowed until the next is asked for. @throws RangeError if one is too long. */
  *push(bytes: Uint8Array): Generator<Uint8Array> {
    let at = 0;
    if (this.#restBytes > 0) {
      at = this.#fill(bytes, 0, LENGTH_BYTES);
      if (this.#restBytes < LENGTH_BYTES) return;
      const end = LENGTH_BYTES + this.#lengthAt(this.#rest, 0);
      at = this.#fill(bytes, at, end);
      if (this.#restBytes < end) return;
      const frame = this.#rest.subarray(LENGTH_BYTES, end);
      this.#restBytes = 0;
      if (this.#rest.length > KEPT_BYTES) this.#rest = new Uint8Array(0);
      yield frame;
    }
    while (bytes.length - at >= LENGTH_BYTES) {
      const start = at + LENGTH_BYTES, end = start + this.#lengthAt(bytes, at);
      if (end > bytes.length) break;
      at = end;
      yield bytes.subarray(start, end);
    }
    this.#fill(bytes, at, bytes.length - at);
  }

  #lengthAt(bytes: Uint8Array, at: number): number {
    const length = bytes[at]! * 2 ** 24 + (bytes[at + 1]! << 16 | bytes[at + 2]! << 8 | bytes[at + 3]!);
    if (length > this.#frameBytesMax) throw new RangeError(`a frame is longer than ${this.#frameBytesMax} bytes`);
    return length;
  }

  /** Keeps a copy of what is missing until `needed` bytes are there. @returns Where it stopped taking. */
  #fill(bytes: Uint8Array, at: number, needed: number): number {
    const take = Math.max(0, Math.min(needed - this.#restBytes, bytes.length - at));
    const total = this.#restBytes + take;
    if (total > this.#rest.length) {
      // Grown by what comes, not by what a length says will come.
      const grown = new Uint8Array(Math.min(Math.max(total, 2 * this.#rest.length), Math.max(total, needed)));
      grown.set(this.#rest.subarray(0, this.#restBytes));
      this.#rest = grown;
    }
    this.#rest.set(bytes.subarray(at, at + take), this.#restBytes);
    this.#restBytes = total;
    return at + take;
  }
}
