/** Takes queries by UDP and sends the answers back (ZT-176). */
import { ignore } from "../../../base/errors.ts";
import * as libc from "../../../os/libc_cold.ts";
import { receiveFrom, sendTo } from "../../../os/inet.ts";
import { type Poller, READABLE, type Watched } from "../../../os/poller.ts";
import { closeFd } from "../../../os/sockets.ts";
import { isPromise, type Respond } from "./responder.ts";

/** EDNS lets a query be longer than 512 bytes; none is anywhere near this. Longer ones are dropped. */
const QUERY_BYTES_MAX = 4_096;
const BATCH = 32; // Datagrams a turn, so that one pod's flood does not keep the others waiting.
/** Queries that wait for an upstream; further ones are dropped, and asked again by the resolver's own time-out. */
const WAITING_MAX = 512;

/** One socket; owns its descriptor. */
export class UdpListener implements Disposable {
  readonly #fd: number;
  readonly #port: number;
  readonly #respond: Respond;
  readonly #watched: Watched;
  readonly #target = new Uint8Array(QUERY_BYTES_MAX);
  #waiting = 0;
  #closed = false;

  constructor(fd: number, port: number, options: { readonly poller: Poller; readonly respond: Respond }) {
    this.#fd = fd;
    this.#port = port;
    this.#respond = options.respond;
    this.#watched = options.poller.watch(fd, READABLE, () => this.#read());
  }

  /** For whoever else may read it: a socket that is passed on loses no datagram. */
  get fd(): number {
    return this.#fd;
  }

  /** Whether answers are still to come. */
  get busy(): boolean {
    return this.#waiting > 0;
  }

  /** Takes no further query; what waits for its answer gets it. */
  finish(): void {
    this.#watched.end();
  }

  [Symbol.dispose](): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#watched.end();
    closeFd(this.#fd);
  }

  #read(): void {
    for (let left = BATCH; left > 0 && !this.#closed; left--) {
      const { count, source, sourcePort } = receiveFrom(this.#fd, this.#target);
      if (count === -libc.Errno.EAGAIN) return;
      if (count < 0 || count > QUERY_BYTES_MAX) continue;
      // A datagram in our own name would be answered to ourselves, for ever; and nobody listens at port 0.
      if (sourcePort === this.#port || sourcePort === 0) continue;
      this.#answer(this.#target.slice(0, count), source);
    }
  }

  #answer(query: Uint8Array, source: Uint8Array<ArrayBuffer>): void {
    if (this.#waiting >= WAITING_MAX) return;
    const answer = this.#respond(query, false);
    if (!isPromise(answer)) return this.#send(answer, source);
    this.#waiting++;
    answer.then((bytes) => this.#send(bytes, source)).finally(() => this.#waiting--);
  }

  #send(answer: Uint8Array<ArrayBuffer> | undefined, target: Uint8Array<ArrayBuffer>): void {
    if (answer === undefined || this.#closed) return;
    ignore(sendTo(this.#fd, answer, target), "an answer that does not get through is asked for again");
  }
}
