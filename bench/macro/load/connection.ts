/** A downstream connection of the load generator: connects, tells its user of events, closes once. */
import { formatIp, IPV4_MAPPED_WORD, parseIp } from "../../../base/address.ts";
import { assert } from "../../../base/assert.ts";
import { EAGAIN, EINPROGRESS, EPOLLIN, EPOLLOUT } from "../../../os/libc.ts";
import { errnoName, setSocketFlag } from "../../../os/libc_cold.ts";
import type { Counters } from "./counters.ts";
import type { Reactor, Waiter } from "./reactor.ts";

const SOL_TCP = 6, TCP_NODELAY = 1;

/** Answers of {@link Connection.receive} below zero. */
export const NOTHING_YET = -1, ENDED = -2;

export interface Target {
  readonly word3: number;
  readonly port: number;
  /** SO_MARK, 0 for none. */
  readonly mark: number;
}

/** Takes an IPv4 address apart for connect. */
export function targetOf(ip: string, port: number, mark = 0): Target {
  const words = parseIp(ip);
  assert(words !== undefined && words[2] === IPV4_MAPPED_WORD, "the topology's addresses are IPv4");
  return { word3: words[3], port, mark };
}

/** What the user of a connection does; called with what it opened. */
export interface User {
  onOpen(connection: Connection): void;
  onReadable(connection: Connection): void;
  onWritable(connection: Connection): void;
  /** It failed, or ended before its user closed it; it is closed already. */
  onLost(connection: Connection, why: string): void;
}

export class Connection implements Waiter {
  /** A number that its user may use. */
  mark = 0;
  readonly fd: number;
  readonly #reactor: Reactor;
  readonly #counters: Counters;
  readonly #user: User;
  #row = -1;
  #events = EPOLLOUT;
  #connecting: boolean;
  #target: Target | undefined;

  private constructor(reactor: Reactor, counters: Counters, user: User, fd: number, target?: Target) {
    this.fd = fd;
    this.#reactor = reactor;
    this.#counters = counters;
    this.#user = user;
    this.#target = target;
    this.#connecting = target !== undefined;
    this.#events = this.#connecting ? EPOLLOUT : EPOLLIN;
    this.#row = reactor.add(fd, this.#events, this);
  }

  /** Starts to connect; `onOpen` or `onLost` follows, never from within this call. Throws when the kernel refuses at once. */
  static connect(reactor: Reactor, counters: Counters, user: User, target: Target): Connection {
    const os = reactor.os, fd = os.openStream(false, target.mark, false);
    assert(fd >= 0, `sockets can be had (${errnoName(fd)})`);
    const result = os.connect(fd, 0, 0, IPV4_MAPPED_WORD, target.word3, target.port);
    assert(result === 0 || result === -EINPROGRESS, `connect starts (${errnoName(result)})`);
    return new Connection(reactor, counters, user, fd, target);
  }

  /** Wraps a descriptor that accept gave. */
  static accepted(reactor: Reactor, counters: Counters, user: User, fd: number): Connection {
    setSocketFlag(fd, SOL_TCP, TCP_NODELAY, 1);
    return new Connection(reactor, counters, user, fd);
  }

  /** Waits for readable, for writable, or for both. */
  want(readable: boolean, writable: boolean): void {
    const events = (readable ? EPOLLIN : 0) | (writable ? EPOLLOUT : 0);
    if (events === this.#events || this.closed) return;
    this.#events = events;
    this.#reactor.change(this.fd, events, this.#row);
  }

  get closed(): boolean {
    return this.#row < 0;
  }

  /** Reads into the scratch buffer. @returns Bytes, NOTHING_YET, or ENDED: then it is closed, and lost if failed. */
  receive(bytesMax: number): number {
    const count = this.#reactor.os.receive(this.fd, this.#reactor.scratch, bytesMax);
    if (count > 0) {
      this.#counters.receivedBytes += count;
      return count;
    }
    if (count === -EAGAIN) return NOTHING_YET;
    if (count < 0) this.lose(`recv: ${errnoName(count)}`);
    return ENDED;
  }

  /** Writes from the scratch buffer. @returns Bytes taken, 0 when none are now, or ENDED: then it is lost. */
  send(bytes: number): number {
    const count = this.#reactor.os.send(this.fd, this.#reactor.scratch, bytes);
    if (count >= 0) return count;
    if (count === -EAGAIN) return 0;
    this.lose(`send: ${errnoName(count)}`);
    return ENDED;
  }

  close(): void {
    if (this.closed) return;
    this.#reactor.drop(this.#row);
    this.#row = -1;
    this.#reactor.os.close(this.fd);
  }

  /** Closes with a reset, which leaves no TIME_WAIT behind. */
  reset(): void {
    if (this.closed) return;
    this.#reactor.drop(this.#row);
    this.#row = -1;
    this.#reactor.os.abort(this.fd);
  }

  /** Closes, counts a failure and tells the user. */
  lose(why: string): void {
    if (this.closed) return;
    this.close();
    this.#counters.fail(why);
    this.#user.onLost(this, why);
  }

  onEvents(events: number): void {
    if (this.#connecting) return this.#finishConnect();
    if (events & ~EPOLLOUT) this.#user.onReadable(this); // EPOLLIN, EPOLLERR and EPOLLHUP alike: reading tells which.
    if (events & EPOLLOUT && !this.closed) this.#user.onWritable(this);
  }

  #finishConnect(): void {
    const error = this.#reactor.os.socketError(this.fd);
    if (error !== 0) {
      const { word3, port } = this.#target!;
      return this.lose(`connect to ${formatIp(0, 0, IPV4_MAPPED_WORD, word3)}:${port}: ${errnoName(error)}`);
    }
    this.#connecting = false;
    this.want(true, false);
    this.#user.onOpen(this);
  }
}
