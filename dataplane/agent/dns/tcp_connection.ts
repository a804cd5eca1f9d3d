/** One client's connection: messages with their length before them, in and out, in bounded buffers. */
import { readUint16 } from "../../../wire/bytes.ts";
import { withLength } from "../../../wire/dns/message_writer.ts";
import * as libc from "../../../os/libc_cold.ts";
import { type Poller, READABLE, type Watched, WRITABLE } from "../../../os/poller.ts";
import { closeFd } from "../../../os/sockets.ts";
import { isPromise, type Respond } from "./responder.ts";

/** ZT-176. */
export const TCP_IDLE_MS = 5_000;
const QUERY_BYTES_MAX = 4_096;
/** Queries of a connection that wait for their answers; it is not read further meanwhile. */
const WAITING_MAX = 4;
/** Answers not taken yet; above it the connection is not read. */
const OUTPUT_BYTES_HIGH = 128 * 1024;
const POLL_FAILED = libc.POLL.ERR | libc.POLL.HUP;

export interface TcpConnectionOptions {
  readonly poller: Poller;
  readonly respond: Respond;
  /** Milliseconds that only grow. */
  readonly now: () => number;
  /** Shared with the listener's other connections. */
  readonly budget: { pendingBytes: number; readonly pendingBytesMax: number };
  readonly onClose: () => void;
}

/** Owns its descriptor from the start; `onClose` is called once. */
export class TcpConnection {
  readonly #fd: number;
  readonly #options: TcpConnectionOptions;
  readonly #watched: Watched;
  readonly #input = new Uint8Array(2 + QUERY_BYTES_MAX);
  #inputBytes = 0;
  #output: Uint8Array<ArrayBuffer>[] = [];
  #outputBytes = 0;
  #waiting = 0;
  #ended = false;
  #closed = false;
  /** When a query was complete or an answer moved: bytes that complete nothing keep nobody alive. */
  #progressAtMs: number;

  constructor(fd: number, options: TcpConnectionOptions) {
    this.#fd = fd;
    this.#options = options;
    this.#progressAtMs = options.now();
    this.#watched = options.poller.watch(fd, READABLE, (events) => this.#ready(events));
  }

  /** Whether an answer is to come, or has not been taken yet. */
  get busy(): boolean {
    return this.#waiting > 0 || this.#outputBytes > 0;
  }

  /** Reads what has come, and nothing after it: ends once all of that is answered. */
  finish(): void {
    if (this.#closed) return;
    this.#read();
    this.#ended = true;
    this.#settle();
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#options.budget.pendingBytes -= this.#outputBytes;
    this.#output = [];
    this.#watched.end();
    closeFd(this.#fd);
    this.#options.onClose();
  }

  /** Closes if nothing was completed for too long. What waits for an upstream has its own time limit. */
  sweep(): void {
    if (this.#waiting === 0 && this.#options.now() - this.#progressAtMs > TCP_IDLE_MS) this.close();
  }

  #ready(events: number): void {
    if ((events & POLL_FAILED) !== 0) return this.close();
    if ((events & WRITABLE) !== 0) this.#flush();
    if ((events & READABLE) !== 0 && !this.#closed && !this.#ended) this.#read();
    this.#settle();
  }

  #read(): void {
    const room = this.#input.subarray(this.#inputBytes);
    if (room.length === 0) return;
    const count = libc.receive(this.#fd, room);
    if (count === -libc.Errno.EAGAIN || count === -libc.Errno.EINTR) return;
    if (count < 0) return this.close();
    if (count === 0) this.#ended = true; // It may still wait for answers.
    this.#inputBytes += count;
    this.#serve();
  }

  /** Answers the complete messages of the input, as far as they may wait. */
  #serve(): void {
    let at = 0;
    while (!this.#closed && this.#readable() && this.#inputBytes - at >= 2) {
      const length = readUint16(this.#input, at);
      if (length === 0 || length > QUERY_BYTES_MAX) return this.close();
      if (this.#inputBytes - at < 2 + length) break;
      this.#answer(this.#input.slice(at + 2, at + 2 + length));
      at += 2 + length;
    }
    this.#input.copyWithin(0, at, this.#inputBytes);
    this.#inputBytes -= at;
  }

  #answer(query: Uint8Array): void {
    this.#progressAtMs = this.#options.now();
    const answer = this.#options.respond(query, true);
    if (!isPromise(answer)) return this.#send(answer);
    this.#waiting++;
    answer.then((bytes) => this.#send(bytes)).finally(() => {
      this.#waiting--;
      if (this.#closed) return;
      this.#serve(); // What came meanwhile.
      this.#settle();
    });
  }

  #send(answer: Uint8Array | undefined): void {
    if (answer === undefined || this.#closed) return;
    const framed = withLength(answer), { budget } = this.#options;
    if (budget.pendingBytes + framed.length > budget.pendingBytesMax) return this.close();
    this.#output.push(framed);
    this.#outputBytes += framed.length;
    budget.pendingBytes += framed.length;
    this.#flush();
  }

  #flush(): void {
    while (!this.#closed && this.#output.length > 0) {
      const first = this.#output[0]!, count = libc.send(this.#fd, first);
      if (count === -libc.Errno.EAGAIN || count === -libc.Errno.EINTR) return;
      if (count < 0) return this.close();
      this.#progressAtMs = this.#options.now();
      this.#outputBytes -= count;
      this.#options.budget.pendingBytes -= count;
      if (count === first.length) this.#output.shift();
      else this.#output[0] = first.subarray(count);
    }
  }

  #readable(): boolean {
    return this.#waiting < WAITING_MAX && this.#outputBytes < OUTPUT_BYTES_HIGH;
  }

  /** Waits for what can go on, or closes when there is nothing left to do. */
  #settle(): void {
    if (this.#closed) return;
    if (this.#ended && this.#waiting === 0 && this.#outputBytes === 0) return this.close();
    const read = !this.#ended && this.#readable() && this.#inputBytes < this.#input.length;
    this.#watched.want((read ? READABLE : 0) | (this.#outputBytes > 0 ? WRITABLE : 0));
  }
}
