/** What a test of the worker stands on: memory that is used again, the real system with a movable clock, sockets on loopback. */
import { assert } from "../../base/assert.ts";
import type { IpWords } from "../../base/address.ts";
import type { Fd, Memory } from "../../os/api.ts";
import { Arena } from "../../os/arena.ts";
import { LinuxOs } from "../../os/libc.ts";
import * as libc from "../../os/libc_cold.ts";
import { OpenSsl } from "../../os/openssl.ts";
import { ipv4 } from "../tables/testing.ts";

const WAIT_MS_MAX = 1;
const SLAB_BYTES = 26 << 20;
const SLABS = 2;

/** A part of the arena that is used again by the next test. */
class Slab implements Memory {
  readonly base: number;
  readonly sizeBytes: number;
  readonly u8: Uint8Array<ArrayBuffer>;
  readonly i32: Int32Array<ArrayBuffer>;
  readonly u32: Uint32Array<ArrayBuffer>;
  readonly view: DataView<ArrayBuffer>;
  #used = 0;
  #kept = 0;

  constructor(arena: Arena, sizeBytes: number) {
    const at = arena.allocate(sizeBytes, 4096), buffer = arena.u8.buffer;
    this.base = arena.base + at;
    this.sizeBytes = sizeBytes;
    this.u8 = new Uint8Array(buffer, at, sizeBytes);
    this.i32 = new Int32Array(buffer, at, sizeBytes >> 2);
    this.u32 = new Uint32Array(buffer, at, sizeBytes >> 2);
    this.view = new DataView(buffer, at, sizeBytes);
  }

  allocate(bytes: number, alignment = 64): number {
    const offset = (this.#used + alignment - 1) & -alignment;
    assert(offset + bytes <= this.sizeBytes, "a test's slab holds what its shard asks for");
    this.#used = offset + bytes;
    return offset;
  }

  discard(offset: number, bytes: number): void {
    this.u8.fill(0, offset, offset + bytes);
  }

  /** What is allocated so far stays. */
  keep(): void {
    this.#kept = this.#used;
  }

  /** Forgets all that was not kept. */
  reset(): void {
    this.#used = this.#kept;
  }
}

/** Calls that a test may let fail, and what a kernel would answer then. */
export const FAILURES: Readonly<Record<string, number>> = {
  receive: 104, // ECONNRESET
  receiveVector: 104,
  send: 32, // EPIPE
  sendVector: 32,
  accept: 24, // EMFILE
  peerAddress: 107, // ENOTCONN
  localAddress: 107,
  openStream: 24,
  openPair: 24,
  connect: 101, // ENETUNREACH
  socketError: 111, // ECONNREFUSED
  shutdownWrite: 107,
  pollAdd: 28, // ENOSPC
};

/** The real system, with a movable clock, short waits, a register of descriptors, and calls that fail on demand. */
export class TestOs extends LinuxOs {
  /** What the clock was moved by. */
  aheadMs = 0;
  #realMs = super.nowMs();
  #flowedMs = this.#realMs;
  /** Descriptors that the shard owns. */
  readonly owned = new Set<Fd>();
  /** Descriptors that were closed without being owned: closed twice, or somebody else's. */
  readonly strays: Fd[] = [];
  /** What SO_ORIGINAL_DST says of a descriptor. */
  readonly destinations = new Map<Fd, { ip: IpWords; port: number }>();
  /** Which call fails, and how many of its kind go well before; counts down. */
  failing = "";
  failsIn = 0;
  failed = 0;

  #fails(name: string): boolean {
    if (this.failing !== name || this.failsIn-- > 0) return false;
    this.failing = "";
    this.failed++;
    return true;
  }

  override receive(fd: Fd, address: number, bytes: number): number {
    return this.#fails("receive") ? -FAILURES["receive"]! : super.receive(fd, address, bytes);
  }
  override receiveVector(fd: Fd, iovecs: number, count: number): number {
    return this.#fails("receiveVector") ? -FAILURES["receiveVector"]! : super.receiveVector(fd, iovecs, count);
  }
  override send(fd: Fd, address: number, bytes: number): number {
    return this.#fails("send") ? -FAILURES["send"]! : super.send(fd, address, bytes);
  }
  override sendVector(fd: Fd, iovecs: number, count: number): number {
    return this.#fails("sendVector") ? -FAILURES["sendVector"]! : super.sendVector(fd, iovecs, count);
  }
  override accept(listener: Fd): number {
    if (this.#fails("accept")) return -FAILURES["accept"]!;
    return this.#own(super.accept(listener));
  }
  override peerAddress(fd: Fd): number {
    return this.#fails("peerAddress") ? -FAILURES["peerAddress"]! : super.peerAddress(fd);
  }
  override localAddress(fd: Fd): number {
    return this.#fails("localAddress") ? -FAILURES["localAddress"]! : super.localAddress(fd);
  }
  override originalDestination(fd: Fd): number {
    const told = this.destinations.get(fd);
    if (told === undefined) return -92; // ENOPROTOOPT: nothing redirected it.
    this.addressWords.set([...told.ip, told.port]);
    return 0;
  }
  override openStream(ipv6: boolean, mark: number, keepalive: boolean): number {
    if (this.#fails("openStream")) return -FAILURES["openStream"]!;
    return this.#own(super.openStream(ipv6, mark, keepalive));
  }
  override openPair(): number {
    if (this.#fails("openPair")) return -FAILURES["openPair"]!;
    const fd = this.#own(super.openPair());
    if (fd >= 0) this.#own(this.addressWords[0]!);
    return fd;
  }
  override connect(fd: Fd, word0: number, word1: number, word2: number, word3: number, port: number): number {
    return this.#fails("connect") ? -FAILURES["connect"]! : super.connect(fd, word0, word1, word2, word3, port);
  }
  override socketError(fd: Fd): number {
    return this.#fails("socketError") ? -FAILURES["socketError"]! : super.socketError(fd);
  }
  override shutdownWrite(fd: Fd): number {
    return this.#fails("shutdownWrite") ? -FAILURES["shutdownWrite"]! : super.shutdownWrite(fd);
  }
  override pollCreate(): number {
    return this.#own(super.pollCreate());
  }
  override pollAdd(poll: Fd, fd: Fd, events: number, row: number): number {
    return this.#fails("pollAdd") ? -FAILURES["pollAdd"]! : super.pollAdd(poll, fd, events, row);
  }
  override close(fd: Fd): number {
    if (!this.owned.delete(fd)) this.strays.push(fd);
    this.destinations.delete(fd);
    return super.close(fd);
  }
  override wait(poll: Fd, events: number, eventsMax: number, timeoutMs: number): number {
    return super.wait(poll, events, eventsMax, Math.min(timeoutMs, WAIT_MS_MAX));
  }
  override nowMs(): number {
    const realMs = super.nowMs();
    // At each look no more than a wait can last: while others have the processor, no time-out of a test comes nearer.
    this.#flowedMs += Math.min(realMs - this.#realMs, WAIT_MS_MAX);
    this.#realMs = realMs;
    return this.#flowedMs + this.aheadMs;
  }

  /** A duplicate of another system's descriptor, as a process gets them from its predecessor. */
  duplicate(fd: Fd, from: TestOs): Fd {
    const copy = libc.fcntl(fd, 1030); // F_DUPFD_CLOEXEC
    assert(copy >= 0, "a test has descriptors");
    const destination = from.destinations.get(fd);
    if (destination !== undefined) this.destinations.set(copy, destination);
    return this.#own(copy);
  }

  /** The shard owns this descriptor from now on. */
  own(fd: Fd): Fd {
    return this.#own(fd);
  }

  #own(fd: number): number {
    if (fd >= 0) this.owned.add(fd);
    return fd;
  }
}

const arena = new Arena(SLAB_BYTES * SLABS + (2 << 20), { hugePages: false }), arenas = [arena];
// Test files share a process, and with it the memory below 2 GiB.
addEventListener("unload", () => {
  for (const it of arenas) it.unmap();
});
/** The test's own system calls. */
export const host = new LinuxOs(arena);
/** For tests that seal and open records themselves. */
export const hostTls = new OpenSsl(arena);
export const hostMemory: Memory = arena;
const places = Array.from({ length: SLABS }, () => placeIn(arena));

function placeIn(arena: Arena) {
  const slab = new Slab(arena, SLAB_BYTES);
  const os = new TestOs(slab), tls = new OpenSsl(slab, { revocation: true });
  const tls12 = new OpenSsl(slab, { revocation: true, tls12: true });
  slab.keep();
  return { slab, os, tls, tls12 };
}

/** What a worker of a test stands on; used again by the next test. Low memory is scarce: few tests have more than two workers. */
export function placeOf(worker: number): ReturnType<typeof placeIn> {
  while (places.length <= worker) {
    const more = new Arena(SLAB_BYTES + 4096, { hugePages: false });
    arenas.push(more);
    places.push(placeIn(more));
  }
  return places[worker]!;
}

let nextNet = Math.floor(Math.random() * 60_000);

/** An address of loopback that nobody else in this process uses. */
export function freshIp(): IpWords {
  nextNet = (nextNet + 1) % 65_000;
  const own = crypto.getRandomValues(new Uint8Array(1))[0]! % 120;
  return ipv4((127 << 24) + ((100 + own) << 16) + nextNet + 256);
}

/** The 16 bytes of struct sockaddr_in. */
function sockaddr(ip: IpWords, port: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(16), view = new DataView(bytes.buffer);
  bytes[0] = libc.AF.INET;
  view.setUint16(2, port);
  view.setUint32(4, ip[3]);
  return bytes;
}

/** A listening socket of the test's. Close it. */
export class Server {
  readonly fd: Fd;
  readonly ip: IpWords;
  readonly port: number;
  #closed = false;

  constructor(ip: IpWords, port = 0, backlog = 128) {
    this.ip = ip;
    this.fd = libc.socket(libc.AF.INET, libc.SOCK.STREAM | libc.SOCK.NONBLOCK, 0);
    libc.setSocketFlag(this.fd, 1, 2, 1); // SO_REUSEADDR
    libc.setSocketFlag(this.fd, 6, 1, 1); // TCP_NODELAY, which accepted sockets take over, as from the product's listeners
    assert(libc.bind(this.fd, sockaddr(ip, port)) === 0, "the test's address is free");
    assert(libc.listen(this.fd, backlog) === 0, "the test may listen");
    host.localAddress(this.fd);
    this.port = host.addressWords[4]!;
  }

  /** A connection that has come, or undefined. */
  accept(): Socket | undefined {
    assert(!this.#closed, NUMBER_GIVEN_BACK);
    const fd = libc.accept(this.fd);
    return fd < 0 ? undefined : new Socket(fd);
  }

  close(): void {
    if (!this.#closed) libc.close(this.fd);
    this.#closed = true;
  }
}

const CHUNK_BYTES = 262_144;
/** Test files share a process: a number that was given back may be another file's descriptor by now. */
const NUMBER_GIVEN_BACK = "a descriptor that was closed is not used";

/** A stream socket of the test's, never waiting. Close or abort it. */
export class Socket {
  readonly fd: Fd;
  /** The other side's direction has ended in order. */
  ended = false;
  /** An errno that a call met, 0 for none. */
  error = 0;
  receivedBytes = 0;
  #closed = false;

  constructor(fd: Fd) {
    this.fd = fd;
    libc.setSocketFlag(fd, 6, 1, 1); // TCP_NODELAY: what a test writes comes in its next turn.
  }

  static connect(ip: IpWords, port: number): Socket {
    const fd = libc.socket(libc.AF.INET, libc.SOCK.STREAM | libc.SOCK.NONBLOCK, 0);
    const outcome = libc.connect(fd, sockaddr(ip, port));
    assert(outcome === 0 || outcome === -115, `loopback connects: ${outcome}`);
    return new Socket(fd);
  }

  /** @returns Bytes that the kernel took. */
  write(bytes: Uint8Array<ArrayBuffer>): number {
    assert(!this.#closed, NUMBER_GIVEN_BACK);
    const sent = libc.send(this.fd, bytes);
    if (sent >= 0) return sent;
    if (sent !== -11) this.error = -sent;
    return 0;
  }

  /** What has come; empty if nothing has. */
  read(bytesMax = CHUNK_BYTES): Uint8Array<ArrayBuffer> {
    assert(!this.#closed, NUMBER_GIVEN_BACK);
    const target = new Uint8Array(bytesMax);
    const got = libc.receive(this.fd, target);
    if (got === 0) this.ended = true;
    else if (got < 0 && got !== -11) this.error = -got;
    if (got <= 0) return new Uint8Array(0);
    this.receivedBytes += got;
    return target.slice(0, got);
  }

  finish(): void {
    assert(!this.#closed, NUMBER_GIVEN_BACK);
    host.shutdownWrite(this.fd);
  }
  close(): void {
    if (!this.#closed) libc.close(this.fd);
    this.#closed = true;
  }
  /** Closes with a reset. */
  abort(): void {
    if (!this.#closed) host.abort(this.fd);
    this.#closed = true;
  }
}
