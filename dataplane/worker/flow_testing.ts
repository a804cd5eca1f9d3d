/** A stream of bytes that tests send through tunnels and check at the other end. */
import type { Socket } from "./loopback_testing.ts";

/** Bytes that depend on their position and on who sends them, so that none can be lost, doubled or mixed up. */
export class Flow {
  readonly #state: { sent: number; got: number } = { sent: 0, got: 0 };
  readonly #salt: number;
  readonly #from: Socket;
  readonly #to: Socket;
  readonly #bytes: number;
  readonly #random: (below: number) => number;

  constructor(from: Socket, to: Socket, salt: number, bytes: number, random: (below: number) => number) {
    this.#from = from;
    this.#to = to;
    this.#salt = salt;
    this.#bytes = bytes;
    this.#random = random;
  }

  #fill(at: number, bytes: number): Uint8Array<ArrayBuffer> {
    const words = new Uint32Array(Math.ceil(bytes / 4) + 1), first = at >>> 2;
    for (let index = 0; index < words.length; index++) words[index] = Math.imul(first + index + this.#salt, 0x9e3779b1);
    return new Uint8Array(words.buffer, at & 3, bytes);
  }

  /** Sends and receives a random piece each. */
  step(): void {
    this.send();
    this.#receive();
  }

  /** Sends a random piece, as far as the socket takes it; the last is followed by the end. */
  send(): void {
    const state = this.#state, random = this.#random;
    if (state.sent < this.#bytes) {
      const size = Math.min(this.#bytes - state.sent, random(8) === 0 ? 1 + random(200) : 1 + random(600_000));
      state.sent += this.#from.write(this.#fill(state.sent, size));
      if (state.sent === this.#bytes) this.#from.finish();
    }
  }

  #receive(): void {
    const state = this.#state, random = this.#random;
    if (random(4) === 0) return; // A slow reader.
    const got = this.#to.read(1 + random(400_000));
    if (got.length === 0) return;
    const expected = this.#fill(state.got, got.length);
    for (let at = 0; at < got.length; at++) {
      if (got[at] !== expected[at]) throw new Error(`byte ${state.got + at} of flow ${this.#salt} is another`);
    }
    state.got += got.length;
  }

  get done(): boolean {
    return this.#state.got === this.#bytes && this.#to.ended;
  }
}
