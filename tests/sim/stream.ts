/** The simulated wire: TCP connections with latency, bounded buffers, ends, resets and lost links, driven by one clock. */
import type { IpWords } from "../../base/address.ts";
import type { Chance } from "./chance.ts";
import { POLL_ERROR, POLL_HANGUP, POLL_IN, POLL_OUT, POLL_READ_HANGUP } from "../../dataplane/worker/reactor.ts";
import type { Kernel, Namespace } from "./kernel.ts";

export const Errno = {
  NOENT: 2,
  BADF: 9,
  AGAIN: 11,
  MFILE: 24,
  NOSPC: 28,
  PIPE: 32,
  HOSTUNREACH: 113,
  CONNRESET: 104,
  NOTCONN: 107,
  TIMEDOUT: 110,
  CONNREFUSED: 111,
  INPROGRESS: 115,
} as const;

/** Something that an epoll instance can watch. */
export abstract class SimFile {
  /** Told of every change that is an edge. */
  readonly watchers: (() => void)[] = [];
  /** Descriptors of it besides the first: it is closed with the last. */
  duplicates = 0;
  abstract readiness(): number;

  changed(): void {
    for (const watcher of this.watchers) watcher();
  }
}

export class EventCounter extends SimFile {
  count = 0;
  override readiness(): number {
    return this.count > 0 ? POLL_IN : 0;
  }
}

/** A descriptor that stands for a network namespace. */
export class NetnsHandle extends SimFile {
  readonly namespace: Namespace;
  constructor(namespace: Namespace) {
    super();
    this.namespace = namespace;
  }
  override readiness(): number {
    return 0;
  }
}

export class SimListener extends SimFile {
  readonly namespace: Namespace;
  readonly port: number;
  readonly backlog: SimSocket[] = [];
  open = true;

  constructor(namespace: Namespace, port: number) {
    super();
    this.namespace = namespace;
    this.port = port;
  }

  override readiness(): number {
    return this.backlog.length > 0 ? POLL_IN : 0;
  }
}

/** One way of a connection. */
class Way {
  capacity: number;
  /** Arrived, unread. */
  readonly chunks: Uint8Array[] = [];
  head = 0;
  arrived = 0;
  underWay = 0;
  finArrived = false;
  /** What has not arrived, in order. */
  readonly onTheWay: (() => void)[] = [];
  /** What was sent last arrives no earlier than what was sent before. */
  lastArrivalMs = 0;

  constructor(capacity: number) {
    this.capacity = capacity;
  }
}

export type SocketState = "new" | "connecting" | "open" | "failed" | "closed";

export interface SimAddress {
  readonly ip: IpWords;
  readonly port: number;
}

let nextSerial = 0;

/** Numbers sockets from one again. */
export function restartSerials(): void {
  nextSerial = 0;
}

export class SimSocket extends SimFile {
  readonly kernel: Kernel;
  readonly serial = nextSerial++;
  /** Whether the proxy made or accepted it, else an application. */
  readonly proxy: boolean;
  namespace: Namespace;
  state: SocketState = "new";
  peer: SimSocket | undefined = undefined;
  local: SimAddress = { ip: [0, 0, 0xffff, 0], port: 0 };
  remote: SimAddress = { ip: [0, 0, 0xffff, 0], port: 0 };
  /** What SO_ORIGINAL_DST says. */
  original: SimAddress | undefined = undefined;
  /** The pending error, told once. */
  error = 0;
  broken = false;
  writeShut = false;
  /** The port that was dialled to get here: what the connection is for. */
  servicePort = 0;
  #wantsSpace = false;
  readonly incoming: Way;

  constructor(kernel: Kernel, namespace: Namespace, proxy: boolean) {
    super();
    this.kernel = kernel;
    this.namespace = namespace;
    this.proxy = proxy;
    this.incoming = new Way(kernel.bufferBytes());
  }

  /** socketpair(2): two ends that no network lies between. */
  static pair(kernel: Kernel, namespace: Namespace): readonly [SimSocket, SimSocket] {
    const one = new SimSocket(kernel, namespace, true), other = new SimSocket(kernel, namespace, true);
    one.state = other.state = "open";
    one.peer = other;
    other.peer = one;
    return [one, other];
  }

  get #chance(): Chance {
    return this.kernel.chance;
  }

  get readable(): boolean {
    return this.incoming.arrived > 0 || this.incoming.finArrived || this.broken;
  }

  /** Bytes that may be sent now. */
  get space(): number {
    const way = this.peer?.incoming;
    return way === undefined ? 0 : Math.max(way.capacity, this.kernel.bufferBytesMin) - way.arrived - way.underWay;
  }

  override readiness(): number {
    if (this.state === "connecting") return 0;
    if (this.state === "new") return POLL_OUT | POLL_HANGUP;
    let mask = 0;
    if (this.readable) mask |= POLL_IN;
    if (this.incoming.finArrived || this.broken) mask |= POLL_READ_HANGUP;
    if (this.broken) mask |= POLL_HANGUP | POLL_OUT;
    if (this.error !== 0) mask |= POLL_ERROR;
    if (this.incoming.finArrived && this.writeShut) mask |= POLL_HANGUP;
    if (this.state === "open" && this.space > 0) mask |= POLL_OUT;
    return mask;
  }

  /** recv(2). */
  receive(target: Uint8Array, at: number, bytesMax: number): number {
    const way = this.incoming;
    if (this.state === "connecting") return -Errno.AGAIN;
    if (way.arrived === 0) {
      if (this.error !== 0) {
        const error = this.error;
        this.error = 0;
        return -error;
      }
      if (way.finArrived || this.broken) return 0;
      return this.state === "open" ? -Errno.AGAIN : -Errno.NOTCONN;
    }
    if (this.kernel.contrary()) { // As if the bytes came a moment later: with an edge of their own.
      this.kernel.after(this.#chance.below(3), () => this.changed());
      return -Errno.AGAIN;
    }
    let count = Math.min(way.arrived, bytesMax);
    if (count > 1 && this.kernel.contrary()) {
      count = this.#chance.between(1, count);
      this.kernel.after(0, () => this.changed());
    }
    for (let left = count; left > 0;) {
      const chunk = way.chunks[0]!, piece = Math.min(left, chunk.length - way.head);
      target.set(chunk.subarray(way.head, way.head + piece), at);
      at += piece;
      left -= piece;
      way.head += piece;
      if (way.head < chunk.length) continue;
      way.chunks.shift();
      way.head = 0;
    }
    way.arrived -= count;
    this.peer?.spaceCame();
    return count;
  }

  /** The other side has read: whoever waits for space learns it. */
  spaceCame(): void {
    if (!this.#wantsSpace) return;
    this.#wantsSpace = false;
    this.kernel.after(this.kernel.latency(this, this.peer), () => this.changed());
  }

  /** send(2). */
  send(bytes: Uint8Array): number {
    if (this.state === "connecting") return -Errno.AGAIN;
    if (this.broken) {
      const error = this.error;
      this.error = 0;
      return -(error !== 0 ? error : Errno.PIPE);
    }
    if (this.writeShut) return -Errno.PIPE;
    if (this.state !== "open") return -Errno.NOTCONN;
    if (bytes.length === 0) return 0;
    let count = Math.min(bytes.length, this.space);
    if (count <= 0) {
      this.#wantsSpace = true;
      return -Errno.AGAIN;
    }
    if (this.kernel.contrary()) {
      count = this.#chance.below(count);
      this.kernel.after(this.#chance.below(3), () => this.changed());
      if (count === 0) return -Errno.AGAIN;
    } else if (count < bytes.length) this.#wantsSpace = true;
    const sent = bytes.slice(0, count);
    this.kernel.onWire(this, sent);
    const peer = this.peer!, way = peer.incoming;
    way.underWay += count;
    this.#deliver(() => {
      way.underWay -= count;
      if (peer.state === "closed") {
        this.kernel.after(this.kernel.latency(this, peer), () => this.breakOff(Errno.CONNRESET));
        return;
      }
      if (peer.broken) return;
      way.chunks.push(sent);
      way.arrived += count;
      peer.changed();
    });
    return count;
  }

  /** Something to the other side, behind all that was sent before. */
  #deliver(arrive: () => void): void {
    const peer = this.peer!, way = peer.incoming, { kernel } = this;
    way.lastArrivalMs = Math.max(way.lastArrivalMs, kernel.nowMs + kernel.latency(this, peer));
    way.onTheWay.push(arrive);
    const attempt = () => {
      const healsAtMs = kernel.cutUntil(this, peer);
      if (healsAtMs <= kernel.nowMs) {
        way.onTheWay.shift()!(); // The first, whosever time it is: what waited for the link comes before what did not.
        return;
      }
      way.lastArrivalMs = Math.max(way.lastArrivalMs, healsAtMs);
      kernel.at(healsAtMs, attempt); // Sent again once the link is there.
    };
    kernel.at(way.lastArrivalMs, attempt);
  }

  shutdownWrite(): number {
    if (this.state !== "open" || this.broken) return -Errno.NOTCONN;
    if (this.writeShut) return 0;
    this.writeShut = true;
    const peer = this.peer!;
    this.#deliver(() => {
      if (peer.broken) return;
      peer.incoming.finArrived = true;
      peer.changed();
    });
    return 0;
  }

  /** close(2): a reset if something was left unread, else an end. */
  close(): void {
    if (this.state === "closed") return;
    const was = this.state, unread = this.incoming.arrived > 0;
    this.state = "closed";
    if (was !== "open" || this.broken) return;
    if (unread) this.#sendReset();
    else if (!this.writeShut) {
      this.writeShut = true;
      const peer = this.peer!;
      this.#deliver(() => {
        if (peer.broken) return;
        peer.incoming.finArrived = true;
        peer.changed();
      });
    }
  }

  /** close(2) with SO_LINGER 0. */
  abort(): void {
    const open = this.state === "open" && !this.broken;
    this.state = "closed";
    if (open) this.#sendReset();
  }

  #sendReset(): void {
    const peer = this.peer!;
    this.#deliver(() => peer.breakOff(Errno.CONNRESET));
  }

  /** A reset came, or the link gave up. What has arrived stays readable. */
  breakOff(errno: number): void {
    if (this.broken || this.state === "closed" || this.state === "failed") return;
    this.broken = true;
    this.error = errno;
    this.changed();
  }

  /** The connect came to nothing. */
  fail(errno: number): void {
    if (this.state !== "connecting") return;
    this.state = "failed";
    this.broken = true;
    this.error = errno;
    this.changed();
  }
}
