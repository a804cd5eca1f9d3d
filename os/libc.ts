/** libc for the hot path: every parameter a number, every result a count or -errno. Cold calls live in libc_cold.ts. */
import { KEEPALIVE_DEFAULT, keepaliveOptions } from "./keepalive.ts";
import { assert } from "../base/assert.ts";
import { IPV4_MAPPED_WORD, isIpv4 } from "../base/address.ts";
import type { Fd, KeepaliveTimes, Memory, Os } from "./api.ts";
import { SYS_BPF } from "./bpf/kernel.ts";
import { ORIGINAL, TUPLE } from "./bpf/shared_maps.ts";

const libc = Deno.dlopen("libc.so.6", {
  __errno_location: { parameters: [], result: "pointer" }, // int *, one per thread
  recv: { parameters: ["i32", "u32", "u32", "i32"], result: "i32" }, // int sockfd, void *buf, size_t len, int flags
  send: { parameters: ["i32", "u32", "u32", "i32"], result: "i32" }, // int sockfd, const void *buf, size_t len, int flags
  readv: { parameters: ["i32", "u32", "i32"], result: "i32" }, // int fd, const struct iovec *iov, int iovcnt
  writev: { parameters: ["i32", "u32", "i32"], result: "i32" }, // int fd, const struct iovec *iov, int iovcnt
  read: { parameters: ["i32", "u32", "u32"], result: "i32" }, // int fd, void *buf, size_t count
  write: { parameters: ["i32", "u32", "u32"], result: "i32" }, // int fd, const void *buf, size_t count
  accept4: { parameters: ["i32", "u32", "u32", "i32"], result: "i32" }, // int sockfd, struct sockaddr *, socklen_t *, int flags
  socket: { parameters: ["i32", "i32", "i32"], result: "i32" }, // int domain, int type, int protocol
  socketpair: { parameters: ["i32", "i32", "i32", "u32"], result: "i32" }, // int domain, int type, int protocol, int sv[2]
  bind: { parameters: ["i32", "u32", "u32"], result: "i32" }, // int sockfd, const struct sockaddr *, socklen_t
  connect: { parameters: ["i32", "u32", "u32"], result: "i32" }, // int sockfd, const struct sockaddr *, socklen_t
  getsockopt: { parameters: ["i32", "i32", "i32", "u32", "u32"], result: "i32" }, // int, int level, int name, void *, socklen_t *
  setsockopt: { parameters: ["i32", "i32", "i32", "u32", "u32"], result: "i32" }, // int, int level, int name, const void *, socklen_t
  getsockname: { parameters: ["i32", "u32", "u32"], result: "i32" }, // int sockfd, struct sockaddr *, socklen_t *
  getpeername: { parameters: ["i32", "u32", "u32"], result: "i32" }, // int sockfd, struct sockaddr *, socklen_t *
  shutdown: { parameters: ["i32", "i32"], result: "i32" }, // int sockfd, int how
  close: { parameters: ["i32"], result: "i32" }, // int fd
  open: { parameters: ["buffer", "i32"], result: "i32" }, // const char *pathname, int flags
  setns: { parameters: ["i32", "i32"], result: "i32" }, // int fd, int nstype
  signal: { parameters: ["i32", "usize"], result: "pointer" }, // int signum, sighandler_t
  syscall: { parameters: ["u32", "u32", "u32", "u32"], result: "i32" }, // long number, int cmd, union bpf_attr *attr, unsigned int size
  epoll_create1: { parameters: ["i32"], result: "i32" }, // int flags
  epoll_ctl: { parameters: ["i32", "i32", "i32", "u32"], result: "i32" }, // int epfd, int op, int fd, struct epoll_event *
  epoll_wait: { parameters: ["i32", "u32", "i32", "i32"], result: "i32" }, // int epfd, struct epoll_event *, int max, int timeout
}).symbols;

// Constants of Linux on x86-64 and arm64 (the same on both, asm-generic).
const AF_UNIX = 1, AF_INET = 2, AF_INET6 = 10;
const SOCK_STREAM = 1, SOCK_NONBLOCK = 0x800, SOCK_CLOEXEC = 0x80000;
const SOL_SOCKET = 1, SOL_IP = 0, SOL_TCP = 6, SOL_IPV6 = 41;
const SO_REUSEADDR = 2, SO_ERROR = 4, SO_LINGER = 13, SO_BINDTODEVICE = 25, SO_MARK = 36;
const TCP_NODELAY = 1, TCP_CONGESTION = 13;
const CONGESTION_BYTES_MAX = 15; // TCP_CA_NAME_MAX, without the end
const IP_TRANSPARENT = 19, IP_BIND_ADDRESS_NO_PORT = 24, IPV6_TRANSPARENT = 75;
const SO_ORIGINAL_DST = 80; // Both of SOL_IP and SOL_IPV6.
const MSG_NOSIGNAL = 0x4000;
const SHUT_WR = 1;
const EPOLL_CTL_ADD = 1, EPOLL_CTL_DEL = 2, EPOLL_CTL_MOD = 3, EPOLL_CLOEXEC = 0x80000;
const CLONE_NEWNET = 0x40000000;
const SIGPIPE = 13, SIG_IGN = 1n;

export const EAGAIN = 11, EINTR = 4, EINPROGRESS = 115, ECONNRESET = 104, EPIPE = 32, ENOTCONN = 107;

export const EPOLLIN = 1, EPOLLOUT = 4, EPOLLERR = 8, EPOLLHUP = 16, EPOLLRDHUP = 0x2000, EPOLLET = 0x80000000 | 0;

const OWN_NETNS = new TextEncoder().encode("/proc/thread-self/ns/net\0"), O_CLOEXEC = 0x80000;
const SOCKADDR_BYTES = 28; // sockaddr_in6, the larger of the two.
// union bpf_attr of BPF_MAP_LOOKUP_ELEM: descriptor, key, value, flags; 64 bits each. Addresses in the arena fit the lower half.
const BPF_MAP_LOOKUP = 1, LOOKUP_ATTRIBUTE_BYTES = 32, LOOKUP_KEY_POINTER = 8, LOOKUP_VALUE_POINTER = 16;
const LOOKUP_KEY = 32, LOOKUP_VALUE = 64, LOOKUP_BYTES = 96;
const LOOPBACK_NAME = 0x6f6c; // "lo", as a little-endian number

/** The real operating system on this thread; `memory` is this thread's arena. One per worker, made inside the worker. */
export class LinuxOs implements Os {
  readonly memory: Memory;
  /** Four address words and a port: the result of the calls that find an address. */
  readonly addressWords = new Uint32Array(5);
  readonly #errno: Int32Array;
  readonly #sockaddr: number;
  readonly #length: number;
  readonly #option: number;
  readonly #event: number;
  readonly #count: number;
  /** union bpf_attr of a look-up, then its key, then its value. */
  readonly #lookup: number;
  readonly #keepalive: ReturnType<typeof keepaliveOptions>;

  constructor(memory: Memory, keepalive: KeepaliveTimes = KEEPALIVE_DEFAULT) {
    // The struct epoll_event below is the packed one of x86-64; elsewhere the row would stand at another offset.
    assert(Deno.build.arch === "x86_64" && Deno.build.os === "linux", "struct layouts are those of Linux on x86-64");
    this.memory = memory;
    this.#keepalive = keepaliveOptions(keepalive);
    this.#errno = new Int32Array(Deno.UnsafePointerView.getArrayBuffer(libc.__errno_location()!, 4));
    this.#sockaddr = memory.allocate(32);
    this.#length = memory.allocate(16);
    this.#option = memory.allocate(16);
    this.#event = memory.allocate(16);
    this.#count = memory.allocate(16);
    this.#lookup = memory.allocate(LOOKUP_BYTES);
    memory.u32[(this.#lookup + LOOKUP_KEY_POINTER) >> 2] = memory.base + this.#lookup + LOOKUP_KEY;
    memory.u32[(this.#lookup + LOOKUP_VALUE_POINTER) >> 2] = memory.base + this.#lookup + LOOKUP_VALUE;
    libc.signal(SIGPIPE, SIG_IGN);
  }

  receive(fd: Fd, address: number, bytes: number): number {
    const count = libc.recv(fd, address, bytes, 0);
    return count < 0 ? -this.#errno[0]! : count;
  }

  receiveVector(fd: Fd, iovecs: number, count: number): number {
    const got = libc.readv(fd, iovecs, count);
    return got < 0 ? -this.#errno[0]! : got;
  }

  send(fd: Fd, address: number, bytes: number): number {
    const count = libc.send(fd, address, bytes, MSG_NOSIGNAL);
    return count < 0 ? -this.#errno[0]! : count;
  }

  sendVector(fd: Fd, iovecs: number, count: number): number {
    const sent = libc.writev(fd, iovecs, count);
    return sent < 0 ? -this.#errno[0]! : sent;
  }

  accept(listener: Fd): number {
    const memory = this.memory;
    memory.u32[this.#length >> 2] = SOCKADDR_BYTES;
    const fd = libc.accept4(
      listener,
      memory.base + this.#sockaddr,
      memory.base + this.#length,
      SOCK_NONBLOCK | SOCK_CLOEXEC,
    );
    if (fd < 0) return -this.#errno[0]!;
    this.#readSockaddr();
    return fd;
  }

  originalDestination(fd: Fd): number {
    const memory = this.memory, address = memory.base + this.#sockaddr, length = memory.base + this.#length;
    memory.u32[this.#length >> 2] = SOCKADDR_BYTES;
    if (libc.getsockopt(fd, SOL_IP, SO_ORIGINAL_DST, address, length) < 0) {
      memory.u32[this.#length >> 2] = SOCKADDR_BYTES;
      if (libc.getsockopt(fd, SOL_IPV6, SO_ORIGINAL_DST, address, length) < 0) return -this.#errno[0]!;
    }
    this.#readSockaddr();
    return 0;
  }

  redirectedDestination(map: Fd, cookieLow: number, cookieHigh: number): number {
    const { memory, addressWords } = this, { u8, u32, view } = memory, at = this.#lookup, key = at + LOOKUP_KEY;
    u32[at >> 2] = map;
    u32[(key + TUPLE.cookie) >> 2] = cookieLow;
    u32[(key + TUPLE.cookie + 4) >> 2] = cookieHigh;
    for (let word = 0; word < 4; word++) view.setUint32(key + TUPLE.address + 4 * word, addressWords[word]!);
    u32[(key + TUPLE.port) >> 2] = addressWords[4]!;
    if (libc.syscall(SYS_BPF, BPF_MAP_LOOKUP, memory.base + at, LOOKUP_ATTRIBUTE_BYTES) < 0) return -this.#errno[0]!;
    const value = at + LOOKUP_VALUE, port = value + ORIGINAL.port;
    for (let word = 0; word < 4; word++) {
      addressWords[word] = view.getUint32(value + ORIGINAL.address + 4 * word);
    }
    addressWords[4] = u8[port]! << 8 | u8[port + 1]!;
    return 0;
  }

  localAddress(fd: Fd): number {
    const memory = this.memory;
    memory.u32[this.#length >> 2] = SOCKADDR_BYTES;
    if (libc.getsockname(fd, memory.base + this.#sockaddr, memory.base + this.#length) < 0) return -this.#errno[0]!;
    this.#readSockaddr();
    return 0;
  }

  peerAddress(fd: Fd): number {
    const memory = this.memory;
    memory.u32[this.#length >> 2] = SOCKADDR_BYTES;
    if (libc.getpeername(fd, memory.base + this.#sockaddr, memory.base + this.#length) < 0) return -this.#errno[0]!;
    this.#readSockaddr();
    return 0;
  }

  openStream(ipv6: boolean, mark: number, keepalive: boolean): number {
    const fd = libc.socket(ipv6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return -this.#errno[0]!;
    this.#setOption(fd, SOL_TCP, TCP_NODELAY, 1);
    if (mark !== 0 && this.#setOption(fd, SOL_SOCKET, SO_MARK, mark) < 0) {
      // Without its mark the socket would be redirected to ourselves: it must not be used (ZT-173).
      const error = -this.#errno[0]!;
      libc.close(fd);
      return error;
    }
    if (keepalive) this.#setKeepalive(fd);
    return fd;
  }

  openPair(): number {
    const { u32, base } = this.memory, at = this.#option;
    if (libc.socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, base + at) < 0) return -this.#errno[0]!;
    this.addressWords[0] = u32[(at >> 2) + 1]!;
    return u32[at >> 2]!;
  }

  bindSource(fd: Fd, word0: number, word1: number, word2: number, word3: number): number {
    const v4 = isIpv4(word0, word1, word2);
    const transparent = v4
      ? this.#setOption(fd, SOL_IP, IP_TRANSPARENT, 1)
      : this.#setOption(fd, SOL_IPV6, IPV6_TRANSPARENT, 1);
    if (transparent < 0) return -this.#errno[0]!; // It allows addresses that are not ours too, as IP_FREEBIND does.
    // The port is chosen at connect, from the four-tuple: else 28,000 connections use up a source address.
    this.#setOption(fd, SOL_IP, IP_BIND_ADDRESS_NO_PORT, 1);
    const bytes = this.#writeSockaddr(word0, word1, word2, word3, 0);
    return libc.bind(fd, this.memory.base + this.#sockaddr, bytes) < 0 ? -this.#errno[0]! : 0;
  }

  bindLooped(fd: Fd, word0: number, word1: number, word2: number, word3: number, port: number): number {
    const v4 = isIpv4(word0, word1, word2);
    const transparent = v4
      ? this.#setOption(fd, SOL_IP, IP_TRANSPARENT, 1)
      : this.#setOption(fd, SOL_IPV6, IPV6_TRANSPARENT, 1);
    if (transparent < 0) return -this.#errno[0]!;
    this.#setOption(fd, SOL_SOCKET, SO_REUSEADDR, 1); // One port serves connections to several ports of the pod.
    if (this.#setOption(fd, SOL_SOCKET, SO_BINDTODEVICE, LOOPBACK_NAME) < 0) return -this.#errno[0]!;
    const bytes = this.#writeSockaddr(word0, word1, word2, word3, port);
    return libc.bind(fd, this.memory.base + this.#sockaddr, bytes) < 0 ? -this.#errno[0]! : 0;
  }

  connect(fd: Fd, word0: number, word1: number, word2: number, word3: number, port: number): number {
    const bytes = this.#writeSockaddr(word0, word1, word2, word3, port);
    return libc.connect(fd, this.memory.base + this.#sockaddr, bytes) < 0 ? -this.#errno[0]! : 0;
  }

  socketError(fd: Fd): number {
    const memory = this.memory;
    memory.i32[this.#option >> 2] = 0;
    memory.u32[this.#length >> 2] = 4;
    const address = memory.base + this.#option;
    if (libc.getsockopt(fd, SOL_SOCKET, SO_ERROR, address, memory.base + this.#length) < 0) return -this.#errno[0]!;
    return -memory.i32[this.#option >> 2]!;
  }

  setCongestionControl(fd: Fd, name: string): number {
    const { u8, base } = this.memory, at = this.#option;
    assert(name.length <= CONGESTION_BYTES_MAX, "a congestion control has a short name");
    for (let index = 0; index < name.length; index++) u8[at + index] = name.charCodeAt(index);
    const result = libc.setsockopt(fd, SOL_TCP, TCP_CONGESTION, base + at, name.length);
    return result < 0 ? -this.#errno[0]! : 0;
  }

  shutdownWrite(fd: Fd): number {
    return libc.shutdown(fd, SHUT_WR) < 0 ? -this.#errno[0]! : 0;
  }

  close(fd: Fd): number {
    return libc.close(fd) < 0 ? -this.#errno[0]! : 0;
  }

  abort(fd: Fd): number {
    const memory = this.memory, at = this.#option >> 2;
    memory.i32[at] = 1; // struct linger: on, zero seconds.
    memory.i32[at + 1] = 0;
    libc.setsockopt(fd, SOL_SOCKET, SO_LINGER, memory.base + this.#option, 8);
    return this.close(fd);
  }

  drainEvent(fd: Fd): void {
    libc.read(fd, this.memory.base + this.#count, 8); // EAGAIN: somebody else's wake-up, nothing to drop.
  }

  signalEvent(fd: Fd): void {
    const at = this.#count >> 2;
    this.memory.u32[at] = 1;
    this.memory.u32[at + 1] = 0;
    libc.write(fd, this.memory.base + this.#count, 8);
  }

  enterNetns(netns: Fd): number {
    return libc.setns(netns, CLONE_NEWNET) < 0 ? -this.#errno[0]! : 0;
  }

  ownNetns(): number {
    const fd = libc.open(OWN_NETNS, O_CLOEXEC);
    return fd < 0 ? -this.#errno[0]! : fd;
  }

  pollCreate(): number {
    const fd = libc.epoll_create1(EPOLL_CLOEXEC);
    return fd < 0 ? -this.#errno[0]! : fd;
  }

  pollAdd(poll: Fd, fd: Fd, events: number, row: number): number {
    return this.#pollControl(poll, EPOLL_CTL_ADD, fd, events, row);
  }

  pollChange(poll: Fd, fd: Fd, events: number, row: number): number {
    return this.#pollControl(poll, EPOLL_CTL_MOD, fd, events, row);
  }

  pollRemove(poll: Fd, fd: Fd): number {
    return this.#pollControl(poll, EPOLL_CTL_DEL, fd, 0, 0);
  }

  wait(poll: Fd, events: number, eventsMax: number, timeoutMs: number): number {
    const count = libc.epoll_wait(poll, events, eventsMax, timeoutMs);
    return count < 0 ? -this.#errno[0]! : count;
  }

  nowMs(): number {
    return performance.now();
  }

  unixOffsetMs(): number {
    return Date.now() - performance.now();
  }

  random32(): number {
    return (Math.random() * 0x100000000) >>> 0;
  }

  #pollControl(poll: Fd, operation: number, fd: Fd, events: number, row: number): number {
    const i32 = this.memory.i32, at = this.#event >> 2;
    i32[at] = events;
    i32[at + 1] = row;
    i32[at + 2] = 0;
    return libc.epoll_ctl(poll, operation, fd, this.memory.base + this.#event) < 0 ? -this.#errno[0]! : 0;
  }

  #setOption(fd: Fd, level: number, name: number, value: number): number {
    this.memory.i32[this.#option >> 2] = value;
    return libc.setsockopt(fd, level, name, this.memory.base + this.#option, 4);
  }

  #setKeepalive(fd: Fd): void {
    for (const [level, name, value] of this.#keepalive) this.#setOption(fd, level, name, value);
  }

  /** @returns Bytes of the structure written. */
  #writeSockaddr(word0: number, word1: number, word2: number, word3: number, port: number): number {
    const { u8, u32, view } = this.memory, at = this.#sockaddr;
    u8[at + 2] = port >> 8;
    u8[at + 3] = port & 255;
    u8[at + 1] = 0;
    if (isIpv4(word0, word1, word2)) {
      u8[at] = AF_INET;
      view.setUint32(at + 4, word3);
      u32[(at + 8) >> 2] = 0;
      u32[(at + 12) >> 2] = 0;
      return 16;
    }
    u8[at] = AF_INET6;
    u32[(at + 4) >> 2] = 0;
    view.setUint32(at + 8, word0);
    view.setUint32(at + 12, word1);
    view.setUint32(at + 16, word2);
    view.setUint32(at + 20, word3);
    u32[(at + 24) >> 2] = 0;
    return SOCKADDR_BYTES;
  }

  #readSockaddr(): void {
    const { u8, view } = this.memory, at = this.#sockaddr, words = this.addressWords;
    if (u8[at] === AF_INET) {
      words[0] = 0;
      words[1] = 0;
      words[2] = IPV4_MAPPED_WORD;
      words[3] = view.getUint32(at + 4);
    } else {
      for (let word = 0; word < 4; word++) words[word] = view.getUint32(at + 8 + word * 4);
    }
    words[4] = u8[at + 2]! << 8 | u8[at + 3]!;
  }
}
