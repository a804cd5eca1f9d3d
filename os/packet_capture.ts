/** Frames that cross a network interface, both ways, as packet(7) shows them: receive only. */
import { MeshError } from "../base/errors.ts";
import * as libc from "./libc_cold.ts";
import type { Netns } from "./netns.ts";
import { withinNetns } from "./netns.ts";
import { RouteSocket } from "./netlink/rtnetlink.ts";

const AF_PACKET = 17, ETH_P_ALL = 3;
const SOL_SOCKET = 1, SO_RCVBUF = 8, SO_RCVBUFFORCE = 33;
const SOL_PACKET = 263, PACKET_STATISTICS = 6;
// A veth hands over segments as the sender's TCP made them: up to 64 KiB, and the link header before them.
const FRAME_BYTES_MAX = 65_536 + 64;
const RECEIVE_BUFFER_BYTES = 64 * 1024 * 1024; // what a busy link brings while the reader is not scheduled

/** An open capture. It copies nothing: each frame is lent to the callback. */
export class PacketCapture implements Disposable {
  readonly #fd: number;
  readonly #frame = new Uint8Array(FRAME_BYTES_MAX);
  #open = true;
  #droppedCount = 0;

  private constructor(fd: number) {
    this.#fd = fd;
  }

  /** Captures `interfaceName` of the namespace from now on. Throws AMB7040 without CAP_NET_RAW, AMB7012 without the interface. */
  static open(netns: Netns, interfaceName: string): PacketCapture {
    const index = interfaceIndex(netns, interfaceName);
    // Without a protocol at first, so that nothing of other interfaces is queued before the bind below.
    const fd = withinNetns(netns, () => libc.socket(AF_PACKET, libc.SOCK.RAW | libc.SOCK.NONBLOCK, 0));
    if (fd < 0) throw captureError(interfaceName, fd);
    if (libc.setSocketFlag(fd, SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER_BYTES) < 0) {
      libc.setSocketFlag(fd, SOL_SOCKET, SO_RCVBUF, RECEIVE_BUFFER_BYTES); // Cut by the kernel to what it grants.
    }
    const result = libc.bind(fd, linkAddress(index));
    if (result >= 0) return new PacketCapture(fd);
    libc.close(fd);
    throw captureError(interfaceName, result);
  }

  /** Waits until a frame is there. @returns False at the time-out. */
  async wait(timeoutMs: number): Promise<boolean> {
    return await libc.waitFor(this.#fd, libc.POLL.IN, timeoutMs);
  }

  /**
   * Hands over what has arrived, at most `framesMax` frames. The callback borrows the bytes until it returns.
   * @returns How many frames there were; fewer than `framesMax` means that none is left.
   */
  drain(onFrame: (frame: Uint8Array<ArrayBuffer>) => void, framesMax: number): number {
    for (let count = 0; count < framesMax; count++) {
      const length = libc.receive(this.#fd, this.#frame, libc.MSG.DONTWAIT);
      if (length === -libc.Errno.EAGAIN) return count;
      if (length < 0) throw captureError("the interface", length);
      onFrame(this.#frame.subarray(0, length));
    }
    return framesMax;
  }

  /** Frames that the kernel could not keep for us since the start: what was captured has gaps if it is not 0. */
  droppedCount(): number {
    const statistics = new Uint8Array(8); // struct tpacket_stats: tp_packets, tp_drops; reading resets both
    if (libc.getSocketOption(this.#fd, SOL_PACKET, PACKET_STATISTICS, statistics) >= 8) {
      this.#droppedCount += new DataView(statistics.buffer).getUint32(4, true);
    }
    return this.#droppedCount;
  }

  [Symbol.dispose](): void {
    if (!this.#open) return;
    this.#open = false;
    libc.close(this.#fd);
  }
}

function interfaceIndex(netns: Netns, name: string): number {
  using routes = RouteSocket.open(netns);
  const link = routes.findLink(name);
  if (link !== undefined) return link.index;
  throw new MeshError("AMB7012", `there is no network interface ${name}`, {
    remedy: "Check the name, and that you look in the right network namespace.",
  });
}

/** struct sockaddr_ll: family, protocol (network order), interface index; the rest is for sending. */
function linkAddress(index: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(20);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, AF_PACKET, true);
  view.setUint16(2, ETH_P_ALL);
  view.setInt32(4, index, true);
  return bytes;
}

function captureError(name: string, result: number): MeshError {
  return new MeshError("AMB7040", `cannot capture packets on ${name}: ${libc.errnoName(result)}`, {
    remedy: "Run with CAP_NET_RAW in the namespace's user namespace, on a kernel with packet sockets (CONFIG_PACKET).",
  });
}
