/** Takes queries by TCP: several on a connection, answered in the order they become known (RFC 7766 §6.2.1.1, ZT-176). */
import { MeshError } from "../../../base/errors.ts";
import * as libc from "../../../os/libc_cold.ts";
import { type Poller, READABLE, type Watched } from "../../../os/poller.ts";
import { closeFd } from "../../../os/sockets.ts";
import type { Respond } from "./responder.ts";
import { TcpConnection } from "./tcp_connection.ts";

/** Open connections a listener has at most; further ones wait for one to end, and are closed where none does. */
export const TCP_CONNECTIONS_MAX = 64;
/** Bytes of answers that a listener's clients have not taken yet; who would exceed it is closed. */
export const PENDING_BYTES_MAX = 4 * 1024 * 1024;
const BATCH = 16; // Accepts a turn.
const REFUSALS = 64; // A sweep.
/** Sweeps without a connection taken until who waits is refused. One may come late, before what happened meanwhile is seen. */
const STILL_SWEEPS = 2;

/** One listening socket and its connections; owns their descriptors. */
export class TcpListener implements Disposable {
  readonly #fd: number;
  readonly #options: { readonly poller: Poller; readonly respond: Respond; readonly now: () => number };
  readonly #watched: Watched;
  readonly #connections = new Set<TcpConnection>();
  #finished = false;
  /** Sweeps since the last connection was taken. */
  #sweeps = 0;
  readonly #budget = { pendingBytes: 0, pendingBytesMax: PENDING_BYTES_MAX };

  constructor(
    fd: number,
    options: { readonly poller: Poller; readonly respond: Respond; readonly now: () => number },
  ) {
    this.#fd = fd;
    this.#options = options;
    this.#watched = options.poller.watch(fd, READABLE, () => this.#accept());
  }

  /** For whoever else may accept there. */
  get fd(): number {
    return this.#fd;
  }

  /** Whether a client waits for an answer. */
  get busy(): boolean {
    for (const connection of this.#connections) if (connection.busy) return true;
    return false;
  }

  /** Takes nobody any more; a connection ends once what was asked on it is answered. */
  finish(): void {
    this.#finished = true;
    this.#watched.end();
    for (const connection of this.#connections) connection.finish();
  }

  get connectionCount(): number {
    return this.#connections.size;
  }

  /**
   * Closes connections that were idle for too long, then those for which there has been no room for a while: a crowd that
   * moves up is served. Accepts again after a want of descriptors.
   */
  sweep(): void {
    for (const connection of this.#connections) connection.sweep();
    if (this.#finished) return; // Who waits is another's now.
    const stands = ++this.#sweeps > STILL_SWEEPS;
    for (let left = REFUSALS; stands && left > 0 && this.#connections.size >= TCP_CONNECTIONS_MAX; left--) {
      const fd = libc.accept(this.#fd);
      if (fd < 0) break;
      closeFd(fd);
    }
    this.#watched.want(READABLE);
  }

  [Symbol.dispose](): void {
    this.#watched.end();
    closeFd(this.#fd);
    for (const connection of this.#connections) connection.close();
  }

  #accept(): void {
    for (let left = BATCH; left > 0; left--) {
      // A crowd that waited for us is served one after the other.
      if (this.#connections.size >= TCP_CONNECTIONS_MAX) return this.#watched.want(0);
      const fd = libc.accept(this.#fd);
      if (fd === -libc.Errno.EAGAIN) return;
      // Without descriptors left it would be ready for ever; the sweep tries again.
      if (fd < 0) return this.#watched.want(0);
      this.#open(fd);
    }
  }

  #open(fd: number): void {
    try {
      const connection: TcpConnection = new TcpConnection(fd, {
        ...this.#options,
        budget: this.#budget,
        onClose: () => {
          this.#connections.delete(connection);
          this.#watched.want(READABLE);
        },
      });
      this.#connections.add(connection);
      this.#sweeps = 0;
    } catch (error) {
      if (!(error instanceof MeshError)) throw error;
      closeFd(fd); // The kernel watches no more descriptors: one client less.
    }
  }
}
