/** Cuts what a stream carries into gRPC messages (gRPC over HTTP/2, "Length-Prefixed-Message"), however it arrives. */
import { readUint32, writeUint32 } from "../bytes.ts";
import type { StatusName } from "./status.ts";

/** Octets before each message: whether it is compressed, and its length. */
export const MESSAGE_PREFIX_BYTES = 5;

/** Memory for a message grows with what has come of it: an announced length alone costs nothing. */
const FIRST_BYTES = 1_024;

/** The prefix of a message of this length, not compressed. */
export function messagePrefix(bytes: number): Uint8Array {
  const prefix = new Uint8Array(MESSAGE_PREFIX_BYTES);
  writeUint32(prefix, 1, bytes);
  return prefix;
}

/** Why what came is no message that is taken. */
export interface MessageProblem {
  readonly status: StatusName;
  readonly details: string;
}

/** The state of one stream's messages between two pieces. */
export class MessageReader {
  readonly #bytesMax: number;
  readonly #prefix = new Uint8Array(MESSAGE_PREFIX_BYTES);
  #prefixBytes = 0;
  #body = new Uint8Array(0);
  #bodyBytes = 0;
  #wanted = 0;

  /** @param bytesMax a longer message is refused as soon as its length is known. */
  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  /** Whether what came ends with a whole message. */
  get betweenMessages(): boolean {
    return this.#prefixBytes === 0;
  }

  /**
   * Takes bytes[at..end). Each message is handed on as bytes borrowed for the call; `onMessage` returns whether more are
   * wanted.
   * @returns What is wrong, after which nothing may be given to it any more.
   */
  receive(
    bytes: Uint8Array,
    at: number,
    end: number,
    onMessage: (message: Uint8Array) => boolean,
  ): MessageProblem | undefined {
    while (at < end) {
      if (this.#prefixBytes < MESSAGE_PREFIX_BYTES) {
        this.#prefix[this.#prefixBytes++] = bytes[at++]!;
        if (this.#prefixBytes < MESSAGE_PREFIX_BYTES) continue;
        const problem = this.#begin();
        if (problem !== undefined) return problem;
      }
      if (this.#bodyBytes === 0 && end - at >= this.#wanted) { // Whole, as most are: nothing to gather.
        const message = bytes.subarray(at, at + this.#wanted);
        at += this.#wanted;
        this.#prefixBytes = 0;
        if (!onMessage(message)) return undefined;
        continue;
      }
      const piece = Math.min(this.#wanted - this.#bodyBytes, end - at);
      this.#append(bytes, at, piece);
      at += piece;
      if (this.#bodyBytes < this.#wanted) continue;
      const message = this.#body.subarray(0, this.#wanted);
      this.#body = new Uint8Array(0);
      this.#bodyBytes = 0;
      this.#prefixBytes = 0;
      if (!onMessage(message)) return undefined;
    }
    return undefined;
  }

  #begin(): MessageProblem | undefined {
    this.#wanted = readUint32(this.#prefix, 1);
    // What a call's encoding is was judged with its head: none is taken, so that no message can be compressed.
    if (this.#prefix[0] !== 0) return { status: "INTERNAL", details: "a compressed message without grpc-encoding" };
    if (this.#wanted <= this.#bytesMax) return undefined;
    return {
      status: "RESOURCE_EXHAUSTED",
      details: `received message larger than max (${this.#wanted} vs. ${this.#bytesMax})`,
    };
  }

  #append(bytes: Uint8Array, at: number, count: number): void {
    const needed = this.#bodyBytes + count;
    if (needed > this.#body.length) {
      const grown = new Uint8Array(Math.min(this.#wanted, Math.max(needed, FIRST_BYTES, 2 * this.#body.length)));
      grown.set(this.#body.subarray(0, this.#bodyBytes));
      this.#body = grown;
    }
    this.#body.set(bytes.subarray(at, at + count), this.#bodyBytes);
    this.#bodyBytes = needed;
  }
}
