/** For tests: a port that is nobody else's, whether somebody listens on it at the moment or not. */
import { assert } from "../base/assert.ts";
import { parseIp } from "../base/address.ts";
import { socketAddress } from "./inet.ts";
import * as libc from "./libc_cold.ts";

const SOL_SOCKET = 1, SO_REUSEADDR = 2;
const LOOPBACK = "127.0.0.1", SOCKADDR_IN_BYTES = 16;

/**
 * A TCP port of the loopback address. A socket that is bound to it and listens not keeps it: the kernel gives the port to
 * nobody who asks for any port, and to no outgoing connection; who names it may listen, as often as he likes, for the
 * runtimes of the programs that we test set SO_REUSEADDR as well. A port that was free a moment ago is another's the next.
 */
export class HeldPort implements Disposable {
  readonly port: number;
  readonly #fd: number;

  constructor() {
    const fd = libc.socket(libc.AF.INET, libc.SOCK.STREAM, 0), bound = new Uint8Array(SOCKADDR_IN_BYTES);
    assert(fd >= 0, "there is room for a socket");
    this.#fd = fd;
    assert(libc.setSocketFlag(fd, SOL_SOCKET, SO_REUSEADDR, 1) >= 0, "the port can be shared");
    assert(libc.bind(fd, socketAddress(parseIp(LOOPBACK)!, 0)) >= 0, "the loopback address has a port to give");
    assert(libc.socketName(fd, bound, false) >= 0, "the kernel says which");
    this.port = new DataView(bound.buffer).getUint16(2);
  }

  [Symbol.dispose](): void {
    libc.close(this.#fd);
  }
}
