/** Many descriptors, one waiting thread: an epoll instance for asynchronous code (epoll(7)). */
import { assert } from "../base/assert.ts";
import { MeshError } from "../base/errors.ts";
import * as libc from "./libc_cold.ts";
import { closeFd, createEventFd, signalEventFd } from "./sockets.ts";

const library = Deno.dlopen("libc.so.6", {
  epoll_create1: { parameters: ["i32"], result: "i32" }, // int flags
  epoll_ctl: { parameters: ["i32", "i32", "i32", "buffer"], result: "i32" }, // int epfd, int op, int fd, struct epoll_event *
  epoll_wait: { parameters: ["i32", "buffer", "i32", "i32"], result: "i32" }, // int epfd, struct epoll_event *, int max, int timeout
}).symbols;

const EPOLL_CLOEXEC = 0o2000000, EPOLL_CTL_ADD = 1, EPOLL_CTL_DEL = 2, EPOLL_CTL_MOD = 3;
// struct epoll_event is packed on x86-64 only: uint32_t events, then 64 bits of data.
const EVENT_BYTES = Deno.build.arch === "x86_64" ? 12 : 16, DATA_AT = EVENT_BYTES - 8;
const EVENTS_MAX = 64; // A turn; what is left over is ready in the next one.
const FOR_EVER = -1;

export const READABLE = 1, WRITABLE = 4;

/** Called with the events that are ready; errors and hang-ups show as the next system call's result. */
export type OnReady = (events: number) => void;

/** One descriptor that is watched. */
export interface Watched {
  /** Sets what is waited for, `READABLE | WRITABLE` or 0. */
  want(events: number): void;
  /** Ends the watch; to be called before the descriptor is closed. May be called again. */
  end(): void;
}

/** Calls back on the main thread; waits on one thread of Deno's blocking pool. */
export class Poller implements AsyncDisposable {
  readonly #poll: number;
  readonly #wake: number;
  readonly #watched = new Map<number, OnReady>();
  readonly #event = new Uint8Array(EVENT_BYTES);
  readonly #events = new Uint8Array(EVENT_BYTES * EVENTS_MAX);
  #nextToken = 1;
  #closing = false;
  /** Settles when the poller was disposed of; rejects when a callback throws. */
  readonly done: Promise<void>;

  /** Throws AMB7060. */
  constructor() {
    this.#wake = createEventFd();
    this.#poll = library.epoll_create1(EPOLL_CLOEXEC);
    if (this.#poll < 0) {
      closeFd(this.#wake);
      throw new MeshError("AMB7060", "the kernel gives no epoll instance", {
        remedy: "Raise the limit of open files.",
      });
    }
    assert(this.#control(EPOLL_CTL_ADD, this.#wake, READABLE, 0), "an eventfd can be watched");
    this.done = this.#run();
  }

  /** Watches a descriptor, which stays the caller's. Throws AMB7060. */
  watch(fd: number, events: number, onReady: OnReady): Watched {
    const token = this.#nextToken++;
    if (!this.#control(EPOLL_CTL_ADD, fd, events, token)) {
      throw new MeshError("AMB7060", "the kernel cannot watch one more descriptor", {
        remedy: "Raise /proc/sys/fs/epoll/max_user_watches.",
      });
    }
    this.#watched.set(token, onReady);
    let wanted = events;
    return {
      want: (events) => {
        if (events === wanted || !this.#watched.has(token)) return;
        wanted = events;
        assert(this.#control(EPOLL_CTL_MOD, fd, events, token), "what is watched is open");
      },
      end: () => {
        if (this.#watched.delete(token)) this.#control(EPOLL_CTL_DEL, fd, 0, 0);
      },
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#closing) return await this.done;
    this.#closing = true;
    signalEventFd(this.#wake);
    try {
      await this.done;
    } finally {
      closeFd(this.#poll);
      closeFd(this.#wake);
    }
  }

  async #run(): Promise<void> {
    const view = new DataView(this.#events.buffer);
    while (!this.#closing) {
      await libc.waitFor(this.#poll, libc.POLL.IN, FOR_EVER);
      const count = library.epoll_wait(this.#poll, this.#events, EVENTS_MAX, 0);
      for (let at = 0; at < count * EVENT_BYTES && !this.#closing; at += EVENT_BYTES) {
        // One that an earlier callback of this turn ended is gone from the map.
        this.#watched.get(view.getUint32(at + DATA_AT, true))?.(view.getUint32(at, true));
      }
    }
  }

  #control(operation: number, fd: number, events: number, token: number): boolean {
    const view = new DataView(this.#event.buffer);
    view.setUint32(0, events, true);
    view.setUint32(DATA_AT, token, true);
    return library.epoll_ctl(this.#poll, operation, fd, this.#event) === 0;
  }
}
