/** What the kernel says of a socket that came from another process: nothing else about it is believed. */
import { ipFromBytes, type IpWords } from "../base/address.ts";
import * as libc from "./libc_cold.ts";
import { closeFd } from "./sockets.ts";

const SOL_SOCKET = 1, SO_TYPE = 3, SO_REUSEPORT = 15, SO_ACCEPTCONN = 30, SO_MARK = 36, SO_NETNS_COOKIE = 71;
const SOL_IP = 0, IP_TRANSPARENT = 19;
const SOCKADDR_IN6_BYTES = 28;
const UNBOUND = [0, 0, 0, 0] as const;

/** A bound socket that takes newcomers: a TCP socket that listens, or one of UDP that nobody has connected. */
export interface SocketFacts {
  readonly transport: "tcp" | "udp";
  readonly ipv6: boolean;
  /** All zero: every address. */
  readonly ip: IpWords;
  readonly port: number;
  /** SO_MARK. */
  readonly mark: number;
  readonly reusePort: boolean;
  readonly transparent: boolean;
  /** Of its network namespace, as `netnsCookie` tells it. */
  readonly netns: bigint;
}

/** @returns undefined for anything else, and on a kernel before 5.14, which does not tell a socket's namespace. */
export function socketFacts(fd: number): SocketFacts | undefined {
  const type = option(fd, SOL_SOCKET, SO_TYPE), netns = cookieOf(fd);
  if (netns === undefined || (type !== libc.SOCK.STREAM && type !== libc.SOCK.DGRAM)) return undefined;
  const address = new Uint8Array(SOCKADDR_IN6_BYTES), length = libc.socketName(fd, address, false);
  const family = address[0]! | (address[1]! << 8), ipv6 = family === libc.AF.INET6;
  if (length < 0 || (family !== libc.AF.INET && !ipv6)) return undefined;
  const takesNewcomers = type === libc.SOCK.STREAM
    ? option(fd, SOL_SOCKET, SO_ACCEPTCONN) === 1
    : libc.socketName(fd, new Uint8Array(SOCKADDR_IN6_BYTES), true) < 0;
  const port = (address[2]! << 8) | address[3]!;
  if (!takesNewcomers || port === 0) return undefined;
  const bytes = ipv6 ? address.slice(8, 24) : address.slice(4, 8), everywhere = bytes.every((byte) => byte === 0);
  return {
    transport: type === libc.SOCK.STREAM ? "tcp" : "udp",
    ipv6,
    ip: everywhere ? UNBOUND : ipFromBytes(bytes)!,
    port,
    mark: option(fd, SOL_SOCKET, SO_MARK) ?? 0,
    reusePort: option(fd, SOL_SOCKET, SO_REUSEPORT) === 1,
    transparent: option(fd, SOL_IP, IP_TRANSPARENT) === 1,
    netns,
  };
}

/** The number of a socket's network namespace. @returns undefined for what is no socket, and on a kernel before 5.14. */
function cookieOf(fd: number): bigint | undefined {
  const cookie = new Uint8Array(8);
  if (libc.getSocketOption(fd, SOL_SOCKET, SO_NETNS_COOKIE, cookie) !== 8) return undefined;
  return new DataView(cookie.buffer).getBigUint64(0, true);
}

/** Closes a listening socket for all who hold it: whoever waits in its queue is refused, and its port is free. */
export function retireSocket(fd: number): void {
  libc.shutdown(fd);
  closeFd(fd);
}

function option(fd: number, level: number, name: number): number | undefined {
  const value = new Uint8Array(4);
  return libc.getSocketOption(fd, level, name, value) === 4 ? new DataView(value.buffer).getInt32(0, true) : undefined;
}
