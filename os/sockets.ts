/** Sockets that the agent makes for its workers: listeners inside a pod's namespace, and eventfds to wake by. */
import { ipToBytes, type IpWords, isIpv4 } from "../base/address.ts";
import { MeshError } from "../base/errors.ts";
import type { KeepaliveTimes } from "./api.ts";
import { KEEPALIVE_DEFAULT, keepaliveOptions } from "./keepalive.ts";
import * as libc from "./libc_cold.ts";

const events = Deno.dlopen("libc.so.6", {
  eventfd: { parameters: ["u32", "i32"], result: "i32" }, // unsigned int initval, int flags
}).symbols;

const EFD_NONBLOCK = 0o4000, EFD_CLOEXEC = 0o2000000;
const SOL_SOCKET = 1, SO_REUSEADDR = 2, SO_KEEPALIVE = 9, SO_REUSEPORT = 15, SO_MARK = 36;
const SOL_IP = 0, IP_TRANSPARENT = 19, SOL_IPV6 = 41, IPV6_V6ONLY = 26, IPV6_TRANSPARENT = 75;
const SOL_TCP = 6, TCP_NODELAY = 1, TCP_CONGESTION = 13;
const LISTEN_BACKLOG = 1024; // The kernel's somaxconn bounds it; a burst of connects waits here, not in SYN retries.

/** A counter that a worker has in its epoll set. The caller closes it. */
export function createEventFd(): number {
  const fd = events.eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (fd < 0) {
    throw new MeshError("AMB7053", "the kernel gives no eventfd", { remedy: "raise the limit of open files" });
  }
  return fd;
}

const ONE = Uint8Array.of(1, 0, 0, 0, 0, 0, 0, 0);

/** A descriptor that can be read once, by whichever process comes first. The caller closes it. */
export function createToken(): number {
  const fd = createEventFd();
  libc.write(fd, ONE);
  return fd;
}

/** Reads a token. The kernel lets one reader have it, of all processes that hold it. @returns Whether we were first. */
export function takeToken(fd: number): boolean {
  return libc.read(fd, new Uint8Array(8)) === 8;
}

/** Wakes whoever waits for the eventfd. */
export function signalEventFd(fd: number): void {
  libc.write(fd, ONE);
}

export interface ListenOptions {
  readonly port: number;
  /** Dual-stack wildcard `[::]`; else `0.0.0.0` (ZT-003). */
  readonly ipv6: boolean;
  /** SO_MARK, 0 for none (ZT-173). */
  readonly mark: number;
  readonly reusePort: boolean;
  /** Of accepted sockets, which take it over from the listener (ZT-049). TCP_NODELAY they have always. */
  readonly keepalive: boolean;
  readonly keepaliveTimes?: KeepaliveTimes;
  /** TCP_CONGESTION of accepted sockets; empty: the kernel's own choice. */
  readonly congestionControl: string;
  /** Only 127.0.0.1, whatever `ipv6` says. */
  readonly loopback?: boolean;
  /** Only this address. */
  readonly ip?: IpWords;
  /** false: IP_TRANSPARENT is not tried (ZT-050). */
  readonly transparent?: boolean;
}

export interface Listening {
  readonly fd: number;
  /** IP_TRANSPARENT is on, so that source addresses can be kept (ZT-050). */
  readonly transparent: boolean;
}

/**
 * A listener on the wildcard address, or on loopback, in the calling thread's network namespace. Without IPv6 in the kernel it listens
 * on IPv4 alone. @throws MeshError AMB7054
 */
export function listenWildcard(options: ListenOptions): Listening {
  const { port, mark, reusePort } = options;
  const loopback = options.loopback === true;
  const { ip } = options, isV4 = loopback || (ip !== undefined && isIpv4(ip[0], ip[1], ip[2]));
  let ipv6 = (options.ipv6 || ip !== undefined) && !isV4;
  let fd = libc.socket(
    ipv6 ? libc.AF.INET6 : libc.AF.INET,
    libc.SOCK.STREAM | libc.SOCK.NONBLOCK | libc.SOCK.CLOEXEC,
    0,
  );
  if (fd === -libc.Errno.EAFNOSUPPORT && ipv6) {
    ipv6 = false;
    fd = libc.socket(libc.AF.INET, libc.SOCK.STREAM | libc.SOCK.NONBLOCK | libc.SOCK.CLOEXEC, 0);
  }
  if (fd < 0) throw failure(port, "open a socket", fd);
  const must = (result: number, doing: string) => {
    if (result >= 0) return;
    libc.close(fd);
    throw failure(port, doing, result);
  };
  must(libc.setSocketFlag(fd, SOL_SOCKET, SO_REUSEADDR, 1), "set SO_REUSEADDR");
  if (reusePort) must(libc.setSocketFlag(fd, SOL_SOCKET, SO_REUSEPORT, 1), "set SO_REUSEPORT");
  if (mark !== 0) must(libc.setSocketFlag(fd, SOL_SOCKET, SO_MARK, mark), "set SO_MARK");
  setInherited(fd, options, must);
  if (ipv6) must(libc.setSocketFlag(fd, SOL_IPV6, IPV6_V6ONLY, 0), "clear IPV6_V6ONLY");
  let transparent = options.transparent !== false && libc.setSocketFlag(fd, SOL_IP, IP_TRANSPARENT, 1) >= 0;
  if (ipv6 && transparent) transparent = libc.setSocketFlag(fd, SOL_IPV6, IPV6_TRANSPARENT, 1) >= 0;
  must(libc.bind(fd, addressOf(ipv6, { port, loopback, ip })), "bind");
  must(libc.listen(fd, LISTEN_BACKLOG), "listen");
  return { fd, transparent };
}

/** Sets on a listener that another process opened what connections take over from it, as {@link listenWildcard} does. */
export function listenAgain(fd: number, options: ListenOptions): void {
  setInherited(fd, options, (result, doing) => {
    if (result < 0) throw failure(options.port, doing, result);
  });
}

function setInherited(fd: number, options: ListenOptions, must: (result: number, doing: string) => void): void {
  must(libc.setSocketFlag(fd, SOL_TCP, TCP_NODELAY, 1), "set TCP_NODELAY");
  must(libc.setSocketFlag(fd, SOL_SOCKET, SO_KEEPALIVE, options.keepalive ? 1 : 0), "set SO_KEEPALIVE");
  if (options.keepalive) {
    for (const [level, name, value] of keepaliveOptions(options.keepaliveTimes ?? KEEPALIVE_DEFAULT)) {
      must(libc.setSocketFlag(fd, level, name, value), "set SO_KEEPALIVE");
    }
  }
  if (options.congestionControl !== "") {
    const name = new TextEncoder().encode(options.congestionControl);
    must(libc.setSocketOption(fd, SOL_TCP, TCP_CONGESTION, name), `set TCP_CONGESTION ${options.congestionControl}`);
  }
}

/** struct sockaddr_in or sockaddr_in6 of the wildcard address or `ip`, or sockaddr_in of 127.0.0.1. */
function addressOf(
  ipv6: boolean,
  { port, loopback, ip }: { port: number; loopback: boolean; ip: IpWords | undefined },
): Uint8Array<ArrayBuffer> {
  const address = new Uint8Array(ipv6 ? 28 : 16);
  address[0] = ipv6 ? libc.AF.INET6 : libc.AF.INET;
  address[2] = port >> 8;
  address[3] = port & 255;
  if (loopback) address.set([127, 0, 0, 1], 4);
  if (ip !== undefined) address.set(ipToBytes(ip), ipv6 ? 8 : 4);
  return address;
}

function failure(port: number, doing: string, result: number): MeshError {
  return new MeshError("AMB7054", `cannot listen on port ${port}: could not ${doing} (${libc.errnoName(result)})`, {
    remedy: "see which process holds the port in this network namespace, and that ztunnel has CAP_NET_ADMIN",
  });
}

const F_DUPFD_CLOEXEC = 1030;

/**
 * Makes the process's table of descriptors large enough for so many. The kernel doubles it when it is full, and with
 * several threads each doubling waits 10 to 20 ms: here it may.
 */
export function reserveDescriptors(count: number): void {
  const some = createEventFd();
  closeFd(libc.fcntl(some, F_DUPFD_CLOEXEC, count)); // Above the limit of open files it is refused, and nothing lost.
  closeFd(some);
}

/** Descriptors that this process has open. */
export function openDescriptorCount(): number {
  let open = 0;
  for (const _ of Deno.readDirSync("/proc/self/fd")) open++;
  return open;
}

/** Closes a descriptor that no worker has taken over. */
export function closeFd(fd: number): void {
  if (fd >= 0) libc.close(fd);
}
