/** Sockets of IP for asynchronous code: bound or connected to one address, never blocking, with a mark. */
import { type IpWords, isIpv4 } from "../base/address.ts";
import * as libc from "./libc_cold.ts";

const library = Deno.dlopen("libc.so.6", {
  recvfrom: { parameters: ["i32", "buffer", "u32", "i32", "buffer", "buffer"], result: "i32" }, // sockfd, buf, len, flags, struct sockaddr *, socklen_t *
  sendto: { parameters: ["i32", "buffer", "u32", "i32", "buffer", "u32"], result: "i32" }, // sockfd, buf, len, flags, const struct sockaddr *, socklen_t
  __errno_location: { parameters: [], result: "pointer" }, // int *, one per thread
}).symbols;

const errno = new Int32Array(Deno.UnsafePointerView.getArrayBuffer(library.__errno_location()!, 4));

const SOL_SOCKET = 1, SO_REUSEADDR = 2, SO_ERROR = 4, SO_REUSEPORT = 15, SO_MARK = 36, SOL_IPV6 = 41, IPV6_V6ONLY = 26;
const SOCKADDR_IN_BYTES = 16, SOCKADDR_IN6_BYTES = 28;
const LISTEN_BACKLOG = 64;

export const EINPROGRESS = 115, EADDRNOTAVAIL = 99;

export interface InetOptions {
  readonly transport: "udp" | "tcp";
  /** SO_MARK, 0 for none (ZT-173). */
  readonly mark: number;
}

/** struct sockaddr_in or sockaddr_in6. */
export function socketAddress(ip: IpWords, port: number): Uint8Array<ArrayBuffer> {
  const v4 = isIpv4(ip[0], ip[1], ip[2]);
  const bytes = new Uint8Array(v4 ? SOCKADDR_IN_BYTES : SOCKADDR_IN6_BYTES);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, v4 ? libc.AF.INET : libc.AF.INET6, true);
  view.setUint16(2, port);
  if (v4) view.setUint32(4, ip[3]);
  else for (let at = 0; at < 4; at++) view.setUint32(8 + at * 4, ip[at]!);
  return bytes;
}

/** A socket bound to one address, listening if it is of TCP, in the calling thread's namespace. @returns Descriptor or -errno. */
export function bindInet(ip: IpWords, port: number, options: InetOptions & { reusePort: boolean }): number {
  const fd = openInet(ip, options);
  if (fd < 0) return fd;
  const listens = options.transport === "tcp";
  let result = listens ? libc.setSocketFlag(fd, SOL_SOCKET, SO_REUSEADDR, 1) : 0;
  if (result >= 0 && options.reusePort) result = libc.setSocketFlag(fd, SOL_SOCKET, SO_REUSEPORT, 1);
  if (result >= 0) result = libc.bind(fd, socketAddress(ip, port));
  if (result >= 0 && listens) result = libc.listen(fd, LISTEN_BACKLOG);
  return closedOnFailure(fd, result);
}

/** A socket connected, or connecting, to one address; its own port is the kernel's choice. @returns Descriptor or -errno. */
export function connectInet(ip: IpWords, port: number, options: InetOptions): number {
  const fd = openInet(ip, options);
  if (fd < 0) return fd;
  const result = libc.connect(fd, socketAddress(ip, port));
  return result === -EINPROGRESS ? fd : closedOnFailure(fd, result);
}

/** SO_ERROR: how a connect ended. @returns 0 or -errno. */
export function connectOutcome(fd: number): number {
  const target = new Uint8Array(4);
  const result = libc.getSocketOption(fd, SOL_SOCKET, SO_ERROR, target);
  return result < 0 ? result : -new DataView(target.buffer).getInt32(0, true);
}

/** Where a datagram came from, as {@link sendTo} takes it. */
export interface Datagram {
  /** The datagram's whole length, of which the buffer's part was kept; or -errno. */
  readonly count: number;
  readonly source: Uint8Array<ArrayBuffer>;
  readonly sourcePort: number;
}

/** recvfrom(2) of one datagram into `target`. */
export function receiveFrom(fd: number, target: Uint8Array<ArrayBuffer>): Datagram {
  const source = new Uint8Array(SOCKADDR_IN6_BYTES), length = Uint32Array.of(source.byteLength);
  const result = library.recvfrom(fd, target, target.byteLength, libc.MSG.TRUNC, source, length);
  const count = result < 0 ? -errno[0]! : result; // Nothing may come between the call and this read.
  const kept = source.slice(0, Math.min(length[0]!, source.byteLength));
  return { count, source: kept, sourcePort: (kept[2]! << 8) | kept[3]! };
}

/** sendto(2). @returns Bytes, or -errno. */
export function sendTo(
  fd: number,
  data: Uint8Array<ArrayBuffer>,
  target: Uint8Array<ArrayBuffer>,
  flags = 0,
): number {
  const result = library.sendto(fd, data, data.byteLength, flags | libc.MSG.NOSIGNAL, target, target.byteLength);
  return result < 0 ? -errno[0]! : result;
}

function openInet(ip: IpWords, { transport, mark }: InetOptions): number {
  const v4 = isIpv4(ip[0], ip[1], ip[2]);
  const type = (transport === "udp" ? libc.SOCK.DGRAM : libc.SOCK.STREAM) | libc.SOCK.NONBLOCK;
  const fd = libc.socket(v4 ? libc.AF.INET : libc.AF.INET6, type, 0);
  if (fd < 0) return fd;
  let result = mark === 0 ? 0 : libc.setSocketFlag(fd, SOL_SOCKET, SO_MARK, mark);
  if (result >= 0 && !v4) result = libc.setSocketFlag(fd, SOL_IPV6, IPV6_V6ONLY, 1);
  return closedOnFailure(fd, result);
}

function closedOnFailure(fd: number, result: number): number {
  if (result >= 0) return fd;
  libc.close(fd);
  return result;
}
