/** AF_UNIX sockets of type SOCK_SEQPACKET that pass one descriptor beside a packet, for asynchronous code (unix(7)). */
import { assert } from "../base/assert.ts";
import { MeshError } from "../base/errors.ts";
import * as libc from "./libc_cold.ts";

const PATH_BYTES_MAX = 107; // sun_path holds 108 bytes with its closing zero
const CONTROL_HEADER_BYTES = 16; // struct cmsghdr: size_t length, int level, int type
const HOSTILE_DESCRIPTORS_MAX = 8; // room to see, and close, what a hostile peer sends too many; the kernel closes any beyond
const SOL_SOCKET = 1, SCM_RIGHTS = 1, SO_PEERCRED = 17;
const ECONNRESET = 104;
const FOR_EVER = -1;

/** A received packet. The descriptor belongs to whoever receives it. */
export interface Packet {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly descriptor: number | undefined;
}

/** Descriptors that the kernel passes beside one packet at most (SCM_MAX_FD). */
export const PACKET_DESCRIPTORS_MAX = 253;

/** A packet with as many descriptors as came; they belong to whoever receives it. */
export interface LoadedPacket {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly descriptors: readonly number[];
}

/** What a packet was refused for; its descriptors are closed already. */
export class PacketError extends Error {
  override readonly name = "PacketError";
}

/** Closes a descriptor that came with a packet and is not wanted. */
export function closeDescriptor(descriptor: number | undefined): void {
  if (descriptor !== undefined) libc.close(descriptor);
}

/** Shared by both kinds of socket: whoever waits is woken before the descriptor is closed. */
class WaitingSocket implements AsyncDisposable {
  protected readonly fd: number;
  readonly #waiting = new Set<Promise<boolean>>();
  #closing: Promise<void> | undefined;

  constructor(fd: number) {
    this.fd = fd;
  }

  get closed(): boolean {
    return this.#closing !== undefined;
  }

  /** Ends both directions, lets those who wait come back, then closes the descriptor. May be called again. */
  close(): Promise<void> {
    this.#closing ??= (async () => {
      libc.shutdown(this.fd);
      while (this.#waiting.size > 0) await Promise.all(this.#waiting);
      libc.close(this.fd);
    })();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** @returns False at the deadline, which is a value of `performance.now()`. */
  protected async wait(events: number, deadlineMs: number): Promise<boolean> {
    const left = deadlineMs === Infinity ? FOR_EVER : Math.max(0, Math.ceil(deadlineMs - performance.now()));
    const waiting = libc.waitFor(this.fd, events, left);
    this.#waiting.add(waiting);
    try {
      return await waiting;
    } finally {
      this.#waiting.delete(waiting);
    }
  }
}

const deadlineOf = (timeoutMs: number | undefined) =>
  timeoutMs === undefined ? Infinity : performance.now() + timeoutMs;

/** One end of a connection. One reader and one writer at a time. */
export class SeqpacketSocket extends WaitingSocket {
  /** Connects to the listener at `path`. Throws AMB7030. */
  static connect(path: string): SeqpacketSocket {
    const fd = libc.socket(libc.AF.UNIX, libc.SOCK.SEQPACKET | libc.SOCK.NONBLOCK, 0);
    const result = fd < 0 ? fd : libc.connect(fd, socketAddress(path));
    if (result >= 0) return new SeqpacketSocket(fd);
    if (fd >= 0) libc.close(fd);
    throw new MeshError("AMB7030", `cannot connect to ${path}: ${libc.errnoName(result)}`, {
      remedy: "Check that the node agent runs, and that both name the same socket.",
    });
  }

  /** Two connected ends. */
  static pair(): [SeqpacketSocket, SeqpacketSocket] {
    const pair = libc.socketpair(libc.AF.UNIX, libc.SOCK.SEQPACKET | libc.SOCK.NONBLOCK);
    if (typeof pair === "number") throw failed("create a socket pair", pair);
    return [new SeqpacketSocket(pair[0]), new SeqpacketSocket(pair[1])];
  }

  /** As {@link send}, with up to {@link PACKET_DESCRIPTORS_MAX} descriptors, which stay the caller's. */
  sendLoaded(
    bytes: Uint8Array,
    descriptors: readonly number[],
    options: { timeoutMs?: number } = {},
  ): Promise<boolean> {
    assert(descriptors.length <= PACKET_DESCRIPTORS_MAX, "the kernel passes no more descriptors at once");
    return this.#send(bytes, descriptors, options.timeoutMs);
  }

  /** As {@link receive}, for a packet with any number of descriptors. Throws PacketError for one that was cut. */
  async receiveLoaded(
    bytesMax: number,
    options: { timeoutMs?: number } = {},
  ): Promise<LoadedPacket | "closed" | "timeout"> {
    const got = await this.#receive(bytesMax, PACKET_DESCRIPTORS_MAX, options.timeoutMs);
    if (typeof got === "string") return got;
    const { bytes, descriptors, flags } = got;
    if ((flags & (libc.MSG.TRUNC | libc.MSG.CTRUNC)) !== 0) {
      for (const descriptor of descriptors) libc.close(descriptor);
      throw cut(flags);
    }
    if (bytes.length > 0 || descriptors.length > 0) return { bytes, descriptors };
    return "closed";
  }

  /** Sends one packet, with `descriptor` beside it, which stays the caller's. @returns False when the other end is gone. Throws AMB7031 at the time-out. */
  send(bytes: Uint8Array, options: { descriptor?: number; timeoutMs?: number } = {}): Promise<boolean> {
    return this.#send(bytes, options.descriptor === undefined ? [] : [options.descriptor], options.timeoutMs);
  }

  async #send(bytes: Uint8Array, descriptors: readonly number[], timeoutMs: number | undefined): Promise<boolean> {
    const data = new Uint8Array(bytes), control = rightsOf(descriptors);
    const deadline = deadlineOf(timeoutMs);
    while (!this.closed) {
      const result = libc.sendMessage(this.fd, data, control, libc.MSG.DONTWAIT);
      if (result >= 0) {
        assert(result === data.length, "a packet is sent whole");
        return true;
      }
      if (result === -libc.Errno.EPIPE || result === -ECONNRESET) return false;
      if (result === -libc.Errno.EINTR) continue;
      if (result !== -libc.Errno.EAGAIN) throw failed("send a packet", result);
      if (!await this.wait(libc.POLL.OUT, deadline)) throw failed("send a packet", -libc.Errno.ETIMEDOUT);
    }
    return false;
  }

  /**
   * Waits for the next packet, of at most `bytesMax`. @returns `timeout`, or `closed` when either side closed (an empty
   * packet reads the same). Throws PacketError for a packet that was cut or has two descriptors.
   */
  async receive(bytesMax: number, options: { timeoutMs?: number } = {}): Promise<Packet | "closed" | "timeout"> {
    const got = await this.#receive(bytesMax, HOSTILE_DESCRIPTORS_MAX, options.timeoutMs);
    if (typeof got === "string") return got;
    const descriptor = oneDescriptor(got.descriptors, got.flags);
    if (got.bytes.length > 0) return { bytes: got.bytes, descriptor };
    if (descriptor === undefined) return "closed";
    libc.close(descriptor);
    throw new PacketError("the packet is empty");
  }

  /** An end of stream reads as an empty packet without descriptors. */
  async #receive(bytesMax: number, descriptorsMax: number, timeoutMs: number | undefined) {
    const deadline = deadlineOf(timeoutMs);
    const data = new Uint8Array(bytesMax);
    const control = new Uint8Array(CONTROL_HEADER_BYTES + 4 * descriptorsMax);
    while (!this.closed) {
      const { count, controlBytes, flags } = libc.receiveMessage(
        this.fd,
        data,
        control,
        libc.MSG.DONTWAIT | libc.MSG.CMSG_CLOEXEC,
      );
      if (count === -libc.Errno.EAGAIN) {
        if (!await this.wait(libc.POLL.IN, deadline)) return "timeout" as const;
      } else if (count >= 0) {
        return { bytes: data.slice(0, count), descriptors: descriptorsOf(control.subarray(0, controlBytes)), flags };
      } else if (count === -ECONNRESET) return "closed" as const;
      else if (count !== -libc.Errno.EINTR) throw failed("receive a packet", count);
    }
    return "closed" as const;
  }

  /** The user id of the process at the other end, as it was when it connected (SO_PEERCRED). */
  peerUserId(): number {
    return this.#peerCredential(4);
  }

  /** Its process id, likewise; 0 for one in a pid namespace that is not ours to see. */
  peerProcessId(): number {
    return this.#peerCredential(0);
  }

  #peerCredential(offset: number): number {
    const credentials = new Uint8Array(12); // struct ucred: pid, uid, gid
    const result = libc.getSocketOption(this.fd, SOL_SOCKET, SO_PEERCRED, credentials);
    if (result < 0) throw failed("read the peer's credentials", result);
    return new DataView(credentials.buffer).getUint32(offset, true);
  }
}

/** A listening socket. */
export class SeqpacketListener extends WaitingSocket {
  readonly path: string;

  private constructor(fd: number, path: string) {
    super(fd);
    this.path = path;
  }

  /** Listens at `path`, whose folder is made and whose old socket is replaced. Throws AMB7032. */
  static listen(path: string, options: { mode: number }): SeqpacketListener {
    removeOldSocket(path);
    const fd = libc.socket(libc.AF.UNIX, libc.SOCK.SEQPACKET | libc.SOCK.NONBLOCK, 0);
    let result = fd < 0 ? fd : libc.bind(fd, socketAddress(path));
    if (result >= 0) {
      Deno.chmodSync(path, options.mode); // Before listen(2): nobody can connect earlier.
      result = libc.listen(fd, 16);
    }
    if (result >= 0) return new SeqpacketListener(fd, path);
    if (fd >= 0) libc.close(fd);
    throw new MeshError("AMB7032", `cannot listen at ${path}: ${libc.errnoName(result)}`, {
      remedy: "Check that the folder is writable, and that its path is at most 107 bytes long.",
    });
  }

  /** Waits for the next connection. @returns undefined once the listener is closed. */
  async accept(): Promise<SeqpacketSocket | undefined> {
    while (!this.closed) {
      const fd = libc.accept(this.fd);
      if (fd >= 0) return new SeqpacketSocket(fd);
      if (fd === -libc.Errno.EAGAIN) await this.wait(libc.POLL.IN, Infinity);
      else if (fd !== -libc.Errno.EINTR && !this.closed) throw failed("accept a connection", fd);
    }
    return undefined;
  }
}

/** Makes the folder of a socket, and removes a socket that an earlier process left. Throws AMB7032 for another kind of file. */
export function removeOldSocket(path: string): void {
  const folder = path.slice(0, Math.max(path.lastIndexOf("/"), 1));
  Deno.mkdirSync(folder, { recursive: true, mode: 0o755 });
  let stat: Deno.FileInfo;
  try {
    stat = Deno.lstatSync(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return;
    throw error;
  }
  if (stat.isSocket === true) return Deno.removeSync(path);
  throw new MeshError("AMB7032", `cannot listen at ${path}: there is a file that is no socket`, {
    remedy: "Name another path, or remove the file.",
  });
}

function socketAddress(path: string): Uint8Array<ArrayBuffer> {
  const text = libc.cString(path);
  if (text.length > PATH_BYTES_MAX + 1) throw failed(`name a socket ${path}: its path is too long`, -36);
  const address = new Uint8Array(2 + text.length);
  address[0] = libc.AF.UNIX;
  address.set(text, 2);
  return address;
}

function rightsOf(descriptors: readonly number[]): Uint8Array<ArrayBuffer> {
  if (descriptors.length === 0) return new Uint8Array(0);
  const bytes = 4 * descriptors.length;
  const control = new Uint8Array(CONTROL_HEADER_BYTES + ((bytes + 7) & ~7)); // CMSG_SPACE pads to eight
  const view = new DataView(control.buffer);
  view.setBigUint64(0, BigInt(CONTROL_HEADER_BYTES + bytes), true); // CMSG_LEN
  view.setInt32(8, SOL_SOCKET, true);
  view.setInt32(12, SCM_RIGHTS, true);
  for (const [index, descriptor] of descriptors.entries()) {
    view.setInt32(CONTROL_HEADER_BYTES + 4 * index, descriptor, true);
  }
  return control;
}

/** All descriptors in the ancillary data that the kernel filled. */
function descriptorsOf(control: Uint8Array<ArrayBuffer>): number[] {
  const view = new DataView(control.buffer, control.byteOffset, control.byteLength);
  const descriptors: number[] = [];
  for (let at = 0; at + CONTROL_HEADER_BYTES <= control.length;) {
    const length = Math.min(Number(view.getBigUint64(at, true)), control.length - at);
    if (length < CONTROL_HEADER_BYTES) break;
    if (view.getInt32(at + 8, true) === SOL_SOCKET && view.getInt32(at + 12, true) === SCM_RIGHTS) {
      for (let item = at + CONTROL_HEADER_BYTES; item + 4 <= at + length; item += 4) {
        descriptors.push(view.getInt32(item, true));
      }
    }
    at += (length + 7) & ~7;
  }
  return descriptors;
}

function oneDescriptor(descriptors: readonly number[], flags: number): number | undefined {
  const whole = (flags & (libc.MSG.TRUNC | libc.MSG.CTRUNC)) === 0;
  if (whole && descriptors.length <= 1) return descriptors[0];
  for (const descriptor of descriptors) libc.close(descriptor);
  if (whole) throw new PacketError(`the packet has ${descriptors.length} descriptors, not at most one`);
  throw cut(flags);
}

function cut(flags: number): PacketError {
  return new PacketError((flags & libc.MSG.TRUNC) !== 0 ? "the packet is too long" : "its descriptors were cut");
}

function failed(doing: string, result: number): MeshError {
  return new MeshError("AMB7031", `could not ${doing}: ${libc.errnoName(result)}`, {
    remedy: "Try again; if it stays, check descriptor limits and the other process.",
  });
}
