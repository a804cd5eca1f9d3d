/**
 * What open streams have carried, and which of them has to make room. The runtime's HTTP/2 keeps every byte that was written
 * to a stream until the stream ends (seen in Deno 2.8 to 2.9): a stream that was sent the mesh weighs as much for as long
 * as it lives. One that ends comes back with what it holds, and then weighs next to nothing.
 */
export class CarriedBytes<S> {
  readonly #bytesMax: number;
  readonly #byStream = new Map<S, number>();
  #total = 0;

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  get total(): number {
    return this.#total;
  }

  add(stream: S, bytes: number): void {
    this.#byStream.set(stream, (this.#byStream.get(stream) ?? 0) + bytes);
    this.#total += bytes;
  }

  forget(stream: S): void {
    this.#total -= this.#byStream.get(stream) ?? 0;
    this.#byStream.delete(stream);
  }

  /** Whether all streams together have carried too much, and this one more than its even share of what is allowed. */
  isTooMuch(stream: S): boolean {
    return this.#total > this.#bytesMax && (this.#byStream.get(stream) ?? 0) > this.#bytesMax / this.#byStream.size;
  }
}
