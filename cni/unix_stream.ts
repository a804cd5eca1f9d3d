/**
 * A unix socket's connection as a stream of Node's. The runtime's own (`node:net` on a path) closes each descriptor twice; the
 * second time it may be another thread's, such as a pod's namespace.
 */
import { Duplex } from "node:stream";

const READ_BYTES = 16 * 1024;

export class UnixStream extends Duplex {
  readonly #connection: Deno.UnixConn;
  readonly #buffer = new Uint8Array(READ_BYTES);

  constructor(connection: Deno.UnixConn) {
    super();
    this.#connection = connection;
  }

  override _read(): void {
    this.#connection.read(this.#buffer).then(
      (count) => this.push(count === null ? null : this.#buffer.slice(0, count)),
      (error) => this.destroy(error),
    );
  }

  override _write(chunk: Uint8Array, _encoding: string, done: (error?: Error | null) => void): void {
    this.#writeAll(chunk).then(() => done(), done);
  }

  override _final(done: (error?: Error | null) => void): void {
    this.#connection.closeWrite().then(() => done(), done);
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    this.#connection.close();
    done(error);
  }

  async #writeAll(bytes: Uint8Array): Promise<void> {
    for (let at = 0; at < bytes.length;) at += await this.#connection.write(bytes.subarray(at));
  }
}
