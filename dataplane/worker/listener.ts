/** The sockets that pods' connections arrive on, and connections that must wait before anything can be decided. */
import { Deadline } from "../../base/timer_wheel.ts";
import { POLL_IN, type Pollable } from "./reactor.ts";
import type { Pod } from "./pod.ts";
import type { Shard } from "./shard.ts";

/** What a listener is for; also the word that a hand-over carries. */
export const ListenerKind = { OUTBOUND: 0, HBONE: 1, PLAINTEXT: 2, SOCKS: 3 } as const;
export type ListenerKind = (typeof ListenerKind)[keyof typeof ListenerKind];

/** Accepts per turn: a flood at one pod leaves the others their share. */
const ACCEPTS_MAX = 64;
/** Connections that a closing listener still takes: its backlog, and those that come meanwhile. */
const LAST_ACCEPTS_MAX = 1024;
const EAGAIN = 11, ECONNABORTED = 103;
/** Without descriptors the backlog stays readable: looking away for a while keeps it from taking every turn. */
const SHORTAGE_PAUSE_MS = 100;

export class Listener implements Pollable {
  readonly #shard: Shard;
  readonly pod: Pod;
  readonly fd: number;
  readonly kind: ListenerKind;
  #row = -1;
  readonly #shortage = new Deadline(() => this.#shard.reactor.change(this.fd, POLL_IN, this.#row));

  constructor(shard: Shard, pod: Pod, fd: number, kind: ListenerKind) {
    this.#shard = shard;
    this.pod = pod;
    this.fd = fd;
    this.kind = kind;
  }

  /** @returns false if the kernel refuses to watch it. */
  watch(): boolean {
    this.#row = this.#shard.reactor.watch(this.fd, POLL_IN, this);
    return this.#row >= 0;
  }

  onEvents(_events: number): void {
    const shard = this.#shard, os = shard.os;
    for (let count = 0; count < ACCEPTS_MAX; count++) {
      const fd = os.accept(this.fd);
      if (fd < 0) {
        if (fd === -EAGAIN) return;
        if (fd === -ECONNABORTED) continue; // Gone before we came to it.
        shard.countGlitch();
        shard.reactor.change(this.fd, 0, this.#row);
        shard.reactor.timers.set(this.#shortage, SHORTAGE_PAUSE_MS, shard.reactor.nowMs);
        return;
      }
      shard.place(this.pod, fd, this.kind);
    }
  }

  /** Takes whom the kernel has connected already, since closing would reset them. All stay with this worker. */
  acceptLast(): void {
    const shard = this.#shard;
    for (let count = 0; count < LAST_ACCEPTS_MAX; count++) {
      const fd = shard.os.accept(this.fd);
      if (fd >= 0) shard.take(this.pod, fd, this.kind);
      else if (fd !== -ECONNABORTED) return;
    }
  }

  /** Accepts nothing for now: who connects waits in the kernel's queue. */
  pause(): void {
    this.#shard.reactor.timers.cancel(this.#shortage);
    if (this.#row >= 0) this.#shard.reactor.change(this.fd, 0, this.#row);
  }

  /** Accepts again. */
  resume(): void {
    if (this.#row >= 0) this.#shard.reactor.change(this.fd, POLL_IN, this.#row);
  }

  /** Closes our descriptor. A successor or the node agent may hold another of the same socket: epoll forgets it by name only. */
  close(): void {
    this.#shard.reactor.timers.cancel(this.#shortage);
    if (this.#row >= 0) this.#shard.reactor.release(this.fd, this.#row);
    this.#row = -1;
    this.#shard.os.close(this.fd);
  }
}

/** An accepted connection that waits for its workload or certificate (ZT-016, ZT-082). Nothing is read from it meanwhile. */
export class Parked {
  readonly fd: number;
  readonly kind: ListenerKind;
  /** When it began to wait. */
  readonly sinceMs: number;
  readonly deadline: Deadline;

  constructor(fd: number, kind: ListenerKind, sinceMs: number, onTimeout: (parked: Parked) => void) {
    this.fd = fd;
    this.kind = kind;
    this.sinceMs = sinceMs;
    this.deadline = new Deadline(() => onTimeout(this));
  }
}
