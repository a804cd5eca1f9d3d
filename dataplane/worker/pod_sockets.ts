/** Sockets in the network namespaces of pods, made by this thread: it enters, connects, and stays until another is needed. */
import type { IpWords } from "../../base/address.ts";
import { assert } from "../../base/assert.ts";
import type { Os } from "../../os/api.ts";
import { LOCAL_CONGESTION_CONTROL } from "../tables/congestion.ts";
import type { Pod } from "./pod.ts";

const EADDRINUSE = 98, EADDRNOTAVAIL = 99, EINPROGRESS = 115;
/** As the node agent's policy route has it. */
const LOOPED_MARK = 0x111;
const LOOPED_PORT_MIN = 16_384, LOOPED_PORTS = 16_384, LOOPED_TRIES_MAX = 16;
/** The source address cannot be kept: without a privilege, as with rules, we connect from our own. */
const NOT_BOUND = -0x10000;

/** Who is at the other end of a socket. */
export const SocketUse = { OTHER: 0, HBONE: 1, APPLICATION: 2 } as const;
export type SocketUse = (typeof SocketUse)[keyof typeof SocketUse];

export class PodSockets {
  readonly #os: Os;
  readonly #packetMark: number;
  readonly #keepalive: boolean;
  readonly #congestionControl: string;
  /** The pod's namespace that this thread is in; -1: its own. */
  #netns = -1;
  readonly #homeNetns: number;

  constructor(os: Os, options: { packetMark: number; keepalive: boolean; congestionControl: string }) {
    this.#os = os;
    this.#packetMark = options.packetMark;
    this.#keepalive = options.keepalive;
    this.#congestionControl = options.congestionControl;
    this.#homeNetns = os.ownNetns();
    assert(this.#homeNetns >= 0, "a thread can open its own network namespace");
  }

  /**
   * A connecting socket in the pod's namespace, carrying our mark (ZT-173).
   * @param source bound as the source address, transparently (ZT-094); undefined: the kernel's choice.
   * @returns Descriptor or -errno.
   */
  connect(
    pod: Pod,
    word0: number,
    word1: number,
    word2: number,
    word3: number,
    port: number,
    source: IpWords | undefined,
    use: SocketUse = SocketUse.OTHER,
  ): number {
    const os = this.#os, entered = this.#enter(pod);
    if (entered < 0) return entered;
    const ipv6 = !(word0 === 0 && word1 === 0 && word2 === 0xffff);
    const self = source !== undefined && source[0] === word0 && source[1] === word1 && source[2] === word2 &&
      source[3] === word3;
    if (source !== undefined && !self && use === SocketUse.APPLICATION && pod.redirectedMap >= 0) {
      const looped = this.#connectLooped(word0, word1, word2, word3, port, source, ipv6);
      if (looped !== NOT_BOUND) return looped;
    }
    const fd = os.openStream(ipv6, pod.own ? 0 : this.#packetMark, this.#keepalive);
    if (fd < 0) return fd;
    if (use === SocketUse.APPLICATION) os.setCongestionControl(fd, LOCAL_CONGESTION_CONTROL);
    else if (use === SocketUse.HBONE && this.#congestionControl !== "") {
      os.setCongestionControl(fd, this.#congestionControl); // The listener has shown that the kernel knows it.
    }
    if (source !== undefined && !self) os.bindSource(fd, source[0], source[1], source[2], source[3]); // Best effort (ZT-094).
    const connected = os.connect(fd, word0, word1, word2, word3, port);
    if (connected < 0 && connected !== -EINPROGRESS) {
      os.close(fd);
      return connected;
    }
    return fd;
  }

  /**
   * A connection to the application from the client's address, without a rule that leads its replies back: they bear the
   * mark of ours, and a policy route takes them over the loopback (CNI-206). Ports are of a range that clients do not
   * use by default: with one of theirs the kernel would take our SYN for a segment of the connection that came in (CNI-207).
   * @returns Descriptor, -errno, or NOT_BOUND.
   */
  #connectLooped(
    word0: number,
    word1: number,
    word2: number,
    word3: number,
    port: number,
    source: IpWords,
    ipv6: boolean,
  ): number {
    const os = this.#os;
    for (let tries = 0; tries < LOOPED_TRIES_MAX; tries++) {
      const fd = os.openStream(ipv6, LOOPED_MARK, this.#keepalive);
      if (fd < 0) return fd;
      os.setCongestionControl(fd, LOCAL_CONGESTION_CONTROL);
      const sourcePort = LOOPED_PORT_MIN + os.random32() % LOOPED_PORTS;
      const bound = os.bindLooped(fd, source[0], source[1], source[2], source[3], sourcePort);
      const result = bound < 0 ? bound : os.connect(fd, word0, word1, word2, word3, port);
      if (result >= 0 || result === -EINPROGRESS) return fd;
      os.close(fd);
      if (result === -EADDRINUSE || result === -EADDRNOTAVAIL) continue; // Taken: another one.
      return bound < 0 ? NOT_BOUND : result;
    }
    return -EADDRNOTAVAIL;
  }

  /**
   * Two joined sockets, which leave no host: made in the pod's namespace, since any socket keeps the namespace that it
   * was made in. @returns One descriptor, the other in `addressWords[0]`; or -errno.
   */
  openPair(pod: Pod): number {
    const entered = this.#enter(pod);
    return entered < 0 ? entered : this.#os.openPair();
  }

  #enter(pod: Pod): number {
    if (pod.netnsFd < 0) this.leave();
    else if (this.#netns !== pod.netnsFd) {
      const entered = this.#os.enterNetns(pod.netnsFd);
      if (entered < 0) return entered;
      this.#netns = pod.netnsFd;
    }
    return 0;
  }

  /** Leaves a pod's namespace, which this thread would keep alive, and whose descriptor's number may be used anew. */
  leave(): void {
    if (this.#netns < 0) return;
    this.#os.enterNetns(this.#homeNetns);
    this.#netns = -1;
  }
}
