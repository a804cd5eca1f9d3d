/** Blocking sockets for tests, with every option that redirection turns on: mark, transparency, bound source. */
import { assert } from "../../base/assert.ts";
import { formatIp, ipFromBytes, ipToBytes, isIpv4, parseIp } from "../../base/address.ts";
import { receiveFrom, sendTo } from "../../os/inet.ts";
import * as libc from "../../os/libc_cold.ts";
import { type Netns, withinNetns } from "../../os/netns.ts";

const SOL_SOCKET = 1,
  SO_REUSEADDR = 2,
  SO_REUSEPORT = 15,
  SO_RCVTIMEO = 20,
  SO_SNDTIMEO = 21,
  SO_MARK = 36,
  SO_BINDTODEVICE = 25;
const SOL_IP = 0, IP_TRANSPARENT = 19, SOL_IPV6 = 41, IPV6_TRANSPARENT = 75, SO_ORIGINAL_DST = 80;
const F_SETFL = 4;
const TIMEOUT_S = 10n; // far more than a lost packet costs: all traffic is local

export interface SocketOptions {
  readonly transport?: "tcp" | "udp";
  /** Of socket(2); 0 unless said. */
  readonly protocol?: number;
  readonly mark?: number;
  readonly transparent?: boolean;
  /** How long to wait at most for a connection or for data. */
  readonly timeoutS?: number;
  /** Interface to be bound to. */
  readonly device?: string;
  /** `address port` to bind to; without it the kernel chooses. */
  readonly local?: { readonly ip: string; readonly port: number };
}

/** One socket of a namespace; everything blocks for at most ten seconds. */
export class RawSocket implements Disposable {
  readonly fd: number;

  private constructor(fd: number) {
    this.fd = fd;
  }

  /** A socket that listens (TCP) or is bound (UDP). */
  static listen(netns: Netns, ip: string, port: number, options: SocketOptions = {}): RawSocket {
    const socket = RawSocket.#create(netns, ip, { ...options, local: { ip, port } });
    if (options.transport !== "udp") must(libc.listen(socket.fd, 16), "listen");
    return socket;
  }

  /** @returns The connected socket, or -errno. */
  static connect(netns: Netns, ip: string, port: number, options: SocketOptions = {}): RawSocket {
    const socket = RawSocket.#create(netns, ip, options);
    must(libc.connect(socket.fd, socketAddress(ip, port)), `connect to ${ip} port ${port}`);
    return socket;
  }

  /** A socket of the address's family that does nothing yet. */
  static open(netns: Netns, ip: string, options: SocketOptions = {}): RawSocket {
    return RawSocket.#create(netns, ip, options);
  }

  static #create(netns: Netns, ip: string, options: SocketOptions): RawSocket {
    const v6 = ip.includes(":");
    const type = options.transport === "udp" ? libc.SOCK.DGRAM : libc.SOCK.STREAM;
    const fd = withinNetns(netns, () => libc.socket(v6 ? libc.AF.INET6 : libc.AF.INET, type, options.protocol ?? 0));
    const socket = new RawSocket(must(fd, "create a socket"));
    const timeout = new Uint8Array(BigInt64Array.of(BigInt(options.timeoutS ?? TIMEOUT_S), 0n).buffer);
    must(libc.setSocketOption(fd, SOL_SOCKET, SO_RCVTIMEO, timeout), "set SO_RCVTIMEO");
    must(libc.setSocketOption(fd, SOL_SOCKET, SO_SNDTIMEO, timeout), "set SO_SNDTIMEO");
    must(libc.setSocketFlag(fd, SOL_SOCKET, SO_REUSEADDR, 1), "set SO_REUSEADDR");
    if (options.mark !== undefined) must(libc.setSocketFlag(fd, SOL_SOCKET, SO_MARK, options.mark), "set SO_MARK");
    if (options.device !== undefined) {
      must(libc.setSocketOption(fd, SOL_SOCKET, SO_BINDTODEVICE, libc.cString(options.device)), "bind to a device");
    }
    if (options.transparent) {
      must(libc.setSocketFlag(fd, v6 ? SOL_IPV6 : SOL_IP, v6 ? IPV6_TRANSPARENT : IP_TRANSPARENT, 1), "be transparent");
    }
    if (options.local !== undefined) {
      if (options.local.port !== 0) must(libc.setSocketFlag(fd, SOL_SOCKET, SO_REUSEPORT, 1), "set SO_REUSEPORT");
      must(libc.bind(fd, socketAddress(options.local.ip, options.local.port)), `bind to ${options.local.ip}`);
    }
    return socket;
  }

  accept(): RawSocket {
    const fd = must(libc.accept(this.fd), "accept");
    must(libc.fcntl(fd, F_SETFL, 0), "make the socket blocking");
    const timeout = new Uint8Array(BigInt64Array.of(TIMEOUT_S, 0n).buffer);
    must(libc.setSocketOption(fd, SOL_SOCKET, SO_RCVTIMEO, timeout), "set SO_RCVTIMEO");
    return new RawSocket(fd);
  }

  /** `ip port` of this end. */
  localName(): string {
    return this.#name(false);
  }

  /** `ip port` of the other end. */
  otherName(): string {
    return this.#name(true);
  }

  /** `ip port` that the connection was meant for before it was redirected. */
  originalDestination(v6: boolean): string {
    const target = new Uint8Array(28);
    const length = libc.getSocketOption(this.fd, v6 ? SOL_IPV6 : SOL_IP, SO_ORIGINAL_DST, target);
    return parseSocketAddress(target.subarray(0, must(length, "read SO_ORIGINAL_DST")));
  }

  connectTo(name: string): void {
    const [ip, port] = name.split(" ");
    must(libc.connect(this.fd, socketAddress(ip!, Number(port))), `connect to ${name}`);
  }

  send(text: string): void {
    const bytes = new TextEncoder().encode(text);
    assert(must(libc.send(this.fd, bytes), "send") === bytes.length, "the socket took it all");
  }

  receive(): string {
    const target = new Uint8Array(2048);
    return new TextDecoder().decode(target.subarray(0, must(libc.receive(this.fd, target), "receive")));
  }

  /** Sends a datagram without a connection, or what else flags make of it. */
  sendTo(text: string, ip: string, port: number, flags = 0): void {
    const bytes = new TextEncoder().encode(text);
    assert(
      must(sendTo(this.fd, bytes, socketAddress(ip, port), flags), "sendto") === bytes.length,
      "the socket took it all",
    );
  }

  /** A datagram, and who it seems to come from. */
  receiveFrom(): { text: string; from: [ip: string, port: number] } {
    const target = new Uint8Array(2048), { count, source } = receiveFrom(this.fd, target);
    const [ip, port] = parseSocketAddress(source).split(" ");
    return { text: new TextDecoder().decode(target.subarray(0, must(count, "recvfrom"))), from: [ip!, Number(port)] };
  }

  [Symbol.dispose](): void {
    libc.close(this.fd);
  }

  #name(peer: boolean): string {
    const target = new Uint8Array(28);
    return parseSocketAddress(target.subarray(0, must(libc.socketName(this.fd, target, peer), "name the socket")));
  }
}

function must(result: number, doing: string): number {
  assert(result >= 0, `could not ${doing}: ${libc.errnoName(result)}`);
  return result;
}

/** struct sockaddr_in or sockaddr_in6. */
function socketAddress(text: string, port: number): Uint8Array<ArrayBuffer> {
  const ip = parseIp(text);
  assert(ip !== undefined, `${text} is an address`);
  const bytes = new Uint8Array(text.includes(":") ? 28 : 16);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, text.includes(":") ? libc.AF.INET6 : libc.AF.INET, true);
  view.setUint16(2, port);
  if (!text.includes(":")) bytes.set(ipToBytes(ip), 4);
  else ip.forEach((word, at) => view.setUint32(8 + at * 4, word));
  return bytes;
}

/** An IPv4 address in mapped form reads as IPv4: listeners here are of both families. */
function parseSocketAddress(bytes: Uint8Array): string {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const family = view.getUint16(0, true);
  const ip = ipFromBytes(family === libc.AF.INET ? bytes.subarray(4, 8) : bytes.subarray(8, 24))!;
  assert(family === libc.AF.INET6 || isIpv4(ip[0], ip[1], ip[2]), "the family is one of the two");
  return `${formatIp(ip[0], ip[1], ip[2], ip[3])} ${view.getUint16(2)}`;
}
