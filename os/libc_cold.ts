/** C library calls off the hot path: namespaces, mounts, netlink and descriptor passing. Results are numbers, `-errno` on failure. */
import { assert } from "../base/assert.ts";

assert(
  new Uint8Array(Uint32Array.of(1).buffer)[0] === 1 && (Deno.build.arch === "x86_64" || Deno.build.arch === "aarch64"),
  "struct layouts below are those of 64-bit little-endian Linux",
);

const library = Deno.dlopen("libc.so.6", {
  open: { parameters: ["buffer", "i32", "u32"], result: "i32" }, // const char *pathname, int flags, mode_t mode
  close: { parameters: ["i32"], result: "i32" }, // int fd
  read: { parameters: ["i32", "buffer", "u32"], result: "i32" }, // int fd, void *buf, size_t count
  write: { parameters: ["i32", "buffer", "u32"], result: "i32" }, // int fd, const void *buf, size_t count
  unlink: { parameters: ["buffer"], result: "i32" }, // const char *pathname
  ioctl: { parameters: ["i32", "u64", "u64"], result: "i32" }, // int fd, unsigned long request, long argument
  fcntl: { parameters: ["i32", "i32", "i32"], result: "i32" }, // int fd, int command, int argument
  setns: { parameters: ["i32", "i32"], result: "i32" }, // int fd, int nstype
  unshare: { parameters: ["i32"], result: "i32" }, // int flags
  mount: { parameters: ["buffer", "buffer", "buffer", "u64", "pointer"], result: "i32" }, // source, target, type, flags, data
  umount2: { parameters: ["buffer", "i32"], result: "i32" }, // const char *target, int flags
  socket: { parameters: ["i32", "i32", "i32"], result: "i32" }, // int domain, int type, int protocol
  socketpair: { parameters: ["i32", "i32", "i32", "buffer"], result: "i32" }, // int domain, int type, int protocol, int sv[2]
  bind: { parameters: ["i32", "buffer", "u32"], result: "i32" }, // int sockfd, const struct sockaddr *addr, socklen_t addrlen
  connect: { parameters: ["i32", "buffer", "u32"], result: "i32" }, // same
  listen: { parameters: ["i32", "i32"], result: "i32" }, // int sockfd, int backlog
  accept4: { parameters: ["i32", "pointer", "pointer", "i32"], result: "i32" }, // int sockfd, addr, addrlen, int flags
  shutdown: { parameters: ["i32", "i32"], result: "i32" }, // int sockfd, int how
  setsockopt: { parameters: ["i32", "i32", "i32", "buffer", "u32"], result: "i32" }, // sockfd, level, optname, optval, optlen
  getsockopt: { parameters: ["i32", "i32", "i32", "buffer", "buffer"], result: "i32" }, // sockfd, level, optname, optval, *optlen
  getsockname: { parameters: ["i32", "buffer", "buffer"], result: "i32" }, // int sockfd, struct sockaddr *addr, socklen_t *addrlen
  getpeername: { parameters: ["i32", "buffer", "buffer"], result: "i32" }, // same
  send: { parameters: ["i32", "buffer", "u32", "i32"], result: "i32" }, // int sockfd, const void *buf, size_t len, int flags
  recv: { parameters: ["i32", "buffer", "u32", "i32"], result: "i32" }, // int sockfd, void *buf, size_t len, int flags
  sendmsg: { parameters: ["i32", "buffer", "i32"], result: "i32" }, // int sockfd, const struct msghdr *msg, int flags
  recvmsg: { parameters: ["i32", "buffer", "i32"], result: "i32" }, // int sockfd, struct msghdr *msg, int flags
  poll: { parameters: ["buffer", "u32", "i32"], result: "i32", nonblocking: true }, // struct pollfd *fds, nfds_t nfds, int timeout
  geteuid: { parameters: [], result: "u32" },
  abort: { parameters: [], result: "void" },
  __errno_location: { parameters: [], result: "pointer" }, // int *, one per thread
}).symbols;

const errno = new Int32Array(Deno.UnsafePointerView.getArrayBuffer(library.__errno_location()!, 4));
const encoder = new TextEncoder();

/** The numbers of `errno.h` that this repository names, equal on x86-64 and arm64. */
export const Errno = {
  EPERM: 1,
  ENOENT: 2,
  ESRCH: 3,
  EINTR: 4,
  EBADF: 9,
  EAGAIN: 11,
  ENOMEM: 12,
  EACCES: 13,
  EBUSY: 16,
  EEXIST: 17,
  ENODEV: 19,
  ENOTDIR: 20,
  EINVAL: 22,
  EMFILE: 24,
  EPIPE: 32,
  ENAMETOOLONG: 36,
  ELOOP: 40,
  EMSGSIZE: 90,
  EPROTONOSUPPORT: 93,
  EOPNOTSUPP: 95,
  EAFNOSUPPORT: 97,
  EADDRINUSE: 98,
  ENETUNREACH: 101,
  ENOBUFS: 105,
  ETIMEDOUT: 110,
  ECONNREFUSED: 111,
} as const;

const NAMES = new Map<number, string>(Object.entries(Errno).map(([name, number]) => [number, name]));

/** `EPERM` for 1 or -1; `errno 123` for a number without a name here. */
export function errnoName(number: number): string {
  return NAMES.get(Math.abs(number)) ?? `errno ${Math.abs(number)}`;
}

/** A zero-terminated copy. Asserts that the text has no zero byte itself, which would silently cut it. */
export function cString(text: string): Uint8Array<ArrayBuffer> {
  assert(!text.includes("\0"), "a C string holds no zero character");
  return encoder.encode(text + "\0");
}

/** `result`, or `-errno`. Nothing may come between the call and this read. */
function outcome(result: number): number {
  return result < 0 ? -errno[0]! : result;
}

export const O = {
  RDONLY: 0,
  WRONLY: 1,
  RDWR: 2,
  CREAT: 0o100,
  EXCL: 0o200,
  TRUNC: 0o1000,
  NONBLOCK: 0o4000,
  CLOEXEC: 0o2000000,
} as const;

/** open(2). `O_CLOEXEC` is always added. @returns A descriptor that the caller closes, or -errno. */
export function open(path: string, flags: number, mode = 0): number {
  return outcome(library.open(cString(path), flags | O.CLOEXEC, mode));
}

/** close(2). Never fails in a way that matters: on Linux the descriptor is gone whatever the result. */
export function close(fd: number): void {
  library.close(fd);
}

/** read(2). @returns Bytes, 0 at the end, or -errno. */
export function read(fd: number, target: Uint8Array<ArrayBuffer>): number {
  return outcome(library.read(fd, target, target.byteLength));
}

/** write(2). @returns Bytes written, or -errno. */
export function write(fd: number, source: Uint8Array<ArrayBuffer>): number {
  return outcome(library.write(fd, source, source.byteLength));
}

/** unlink(2). @returns 0 or -errno. */
export function unlink(path: string): number {
  return outcome(library.unlink(cString(path)));
}

/** ioctl(2) with an integer argument. @returns What the request answers, or -errno. */
export function ioctl(fd: number, request: number, argument = 0): number {
  return outcome(library.ioctl(fd, BigInt(request), BigInt(argument)));
}

/** fcntl(2). @returns What the command answers, or -errno. */
export function fcntl(fd: number, command: number, argument = 0): number {
  return outcome(library.fcntl(fd, command, argument));
}

export const CLONE_NEWNET = 0x40000000;
export const CLONE_NEWNS = 0x20000;

/** setns(2): moves the calling thread. @returns 0 or -errno. */
export function setns(fd: number, type: number): number {
  return outcome(library.setns(fd, type));
}

/** unshare(2): gives the calling thread namespaces of its own. @returns 0 or -errno. */
export function unshare(flags: number): number {
  return outcome(library.unshare(flags));
}

export const MS = { BIND: 0x1000, REC: 0x4000, PRIVATE: 0x40000, SLAVE: 0x80000, SHARED: 0x100000 } as const;
export const MNT_DETACH = 2;

/** mount(2) without data. @returns 0 or -errno. */
export function mount(source: string, target: string, type: string, flags: number): number {
  return outcome(library.mount(cString(source), cString(target), cString(type), BigInt(flags), null));
}

/** umount2(2). @returns 0 or -errno. */
export function unmount(target: string, flags: number): number {
  return outcome(library.umount2(cString(target), flags));
}

export const AF = { UNIX: 1, INET: 2, INET6: 10, NETLINK: 16 } as const;
export const SOCK = { STREAM: 1, DGRAM: 2, RAW: 3, SEQPACKET: 5, NONBLOCK: 0o4000, CLOEXEC: 0o2000000 } as const;
export const MSG = {
  PEEK: 2,
  CTRUNC: 8,
  TRUNC: 0x20,
  DONTWAIT: 0x40,
  NOSIGNAL: 0x4000,
  CMSG_CLOEXEC: 0x40000000,
} as const;

/** socket(2), always with `SOCK_CLOEXEC`. @returns A descriptor that the caller closes, or -errno. */
export function socket(domain: number, type: number, protocol: number): number {
  return outcome(library.socket(domain, type | SOCK.CLOEXEC, protocol));
}

/** socketpair(2), always with `SOCK_CLOEXEC`. @returns Two descriptors, or -errno. */
export function socketpair(domain: number, type: number): readonly [number, number] | number {
  const pair = new Int32Array(2);
  const result = outcome(library.socketpair(domain, type | SOCK.CLOEXEC, 0, pair));
  return result < 0 ? result : [pair[0]!, pair[1]!];
}

/** bind(2). @returns 0 or -errno. */
export function bind(fd: number, address: Uint8Array<ArrayBuffer>): number {
  return outcome(library.bind(fd, address, address.byteLength));
}

/** connect(2). @returns 0 or -errno. */
export function connect(fd: number, address: Uint8Array<ArrayBuffer>): number {
  return outcome(library.connect(fd, address, address.byteLength));
}

/** listen(2). @returns 0 or -errno. */
export function listen(fd: number, backlog: number): number {
  return outcome(library.listen(fd, backlog));
}

/** accept4(2) with `SOCK_CLOEXEC | SOCK_NONBLOCK`. @returns A descriptor that the caller closes, or -errno. */
export function accept(fd: number): number {
  return outcome(library.accept4(fd, null, null, SOCK.CLOEXEC | SOCK.NONBLOCK));
}

/** shutdown(2) of both directions: whoever waits on the socket wakes. @returns 0 or -errno. */
export function shutdown(fd: number): number {
  return outcome(library.shutdown(fd, 2));
}

/** setsockopt(2). @returns 0 or -errno. */
export function setSocketOption(fd: number, level: number, name: number, value: Uint8Array<ArrayBuffer>): number {
  return outcome(library.setsockopt(fd, level, name, value, value.byteLength));
}

/** setsockopt(2) with an int. @returns 0 or -errno. */
export function setSocketFlag(fd: number, level: number, name: number, value: number): number {
  return setSocketOption(fd, level, name, new Uint8Array(Int32Array.of(value).buffer));
}

/** getsockopt(2) into `target`. @returns The value's length, or -errno. */
export function getSocketOption(fd: number, level: number, name: number, target: Uint8Array<ArrayBuffer>): number {
  const length = Uint32Array.of(target.byteLength);
  const result = outcome(library.getsockopt(fd, level, name, target, length));
  return result < 0 ? result : length[0]!;
}

/** getsockname(2) or, with `peer`, getpeername(2). @returns The address's length, or -errno. */
export function socketName(fd: number, target: Uint8Array<ArrayBuffer>, peer: boolean): number {
  const length = Uint32Array.of(target.byteLength);
  const result = outcome((peer ? library.getpeername : library.getsockname)(fd, target, length));
  return result < 0 ? result : Math.min(length[0]!, target.byteLength);
}

/** send(2) with `MSG_NOSIGNAL`. @returns Bytes, or -errno. */
export function send(fd: number, source: Uint8Array<ArrayBuffer>, flags = 0): number {
  return outcome(library.send(fd, source, source.byteLength, flags | MSG.NOSIGNAL));
}

/** recv(2). @returns Bytes (with `MSG_TRUNC`: what the datagram had), or -errno. */
export function receive(fd: number, target: Uint8Array<ArrayBuffer>, flags = 0): number {
  return outcome(library.recv(fd, target, target.byteLength, flags));
}

const MESSAGE_HEADER_BYTES = 56; // struct msghdr: name, namelen, iov, iovlen, control, controllen, flags; 8 bytes each
const addressOf = (bytes: Uint8Array<ArrayBuffer>) => Deno.UnsafePointer.value(Deno.UnsafePointer.of(bytes));

function messageHeader(data: Uint8Array<ArrayBuffer>, control: Uint8Array<ArrayBuffer>) {
  const iov = new BigUint64Array([addressOf(data), BigInt(data.byteLength)]);
  const header = new BigUint64Array(MESSAGE_HEADER_BYTES / 8);
  header[2] = addressOf(new Uint8Array(iov.buffer));
  header[3] = 1n;
  header[4] = control.byteLength === 0 ? 0n : addressOf(control);
  header[5] = BigInt(control.byteLength);
  return { header, iov }; // Whoever calls holds `iov` until the call is over: the header only has its address.
}

/** sendmsg(2) of one buffer with ancillary data, without SIGPIPE. @returns Bytes, or -errno. */
export function sendMessage(
  fd: number,
  data: Uint8Array<ArrayBuffer>,
  control: Uint8Array<ArrayBuffer>,
  flags = 0,
): number {
  const message = messageHeader(data, control);
  const result = outcome(library.sendmsg(fd, message.header, flags | MSG.NOSIGNAL));
  assert(message.iov.length === 2, "the vector outlives the call");
  return result;
}

/** What recvmsg(2) put into the buffers it was given. */
export interface ReceivedMessage {
  /** Bytes of data, or -errno. */
  readonly count: number;
  readonly controlBytes: number;
  /** `MSG.TRUNC`, `MSG.CTRUNC`. */
  readonly flags: number;
}

/** recvmsg(2) into one buffer and ancillary data. Received descriptors belong to the caller. */
export function receiveMessage(
  fd: number,
  data: Uint8Array<ArrayBuffer>,
  control: Uint8Array<ArrayBuffer>,
  flags = 0,
): ReceivedMessage {
  const message = messageHeader(data, control);
  const count = outcome(library.recvmsg(fd, message.header, flags));
  assert(message.iov.length === 2, "the vector outlives the call");
  return { count, controlBytes: Number(message.header[5]!), flags: Number(message.header[6]! & 0xffffffffn) };
}

export const POLL = { IN: 1, OUT: 4, ERR: 8, HUP: 16 } as const;

/** poll(2) of one descriptor on a thread of Deno's blocking pool. @returns True when something happened, false at the time-out. */
export async function waitFor(fd: number, events: number, timeoutMs: number): Promise<boolean> {
  const entry = new Int32Array([fd, events]); // struct pollfd: int fd, short events, short revents
  return await library.poll(new Uint8Array(entry.buffer), 1, timeoutMs) !== 0;
}

/** geteuid(2). */
export function effectiveUserId(): number {
  return library.geteuid();
}

/** Ends the process at once, abort(3): for a state in which going on would be unsafe. */
export function abort(): never {
  library.abort();
  throw new Error("abort(3) returned");
}
