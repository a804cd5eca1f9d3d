/** Accepted connections that wait for their pod's workload or certificate (ZT-016, ZT-082, ZT-174). */
import { Direction, POD, ResponseFlag } from "../tables/layout.ts";
import { AccessKind } from "../tables/access.ts";
import { findDestination } from "./destination.ts";
import { FairShare } from "./fair_share.ts";
import { ListenerKind, Parked } from "./listener.ts";
import type { Pod } from "./pod.ts";
import type { Shard } from "./shard.ts";

const WAIT_MS_MAX = 5_000; // ZT-016
const PARKED_MAX = 4_096;

export class WaitingRoom {
  readonly #shard: Shard;
  readonly #share = new FairShare(PARKED_MAX);
  /** Since when the connection waits that is being tried again; -1: none is. */
  #waitingSinceMs = -1;

  constructor(shard: Shard) {
    this.#shard = shard;
  }

  /** Keeps a connection until its workload and certificate are known, for at most 5 s. */
  park(pod: Pod, fd: number, kind: number): void {
    if (!this.#share.mayTake(pod.row)) {
      this.#shard.os.close(fd);
      this.#shard.countGlitch();
      return;
    }
    const nowMs = this.#shard.reactor.nowMs, sinceMs = this.#waitingSinceMs < 0 ? nowMs : this.#waitingSinceMs;
    const parked = new Parked(fd, kind as ListenerKind, sinceMs, (it) => {
      pod.parked.delete(it);
      this.#share.give(pod.row);
      this.#logTimeout(pod, it);
      this.#shard.os.close(it.fd);
    });
    pod.parked.add(parked);
    this.#share.take(pod.row);
    this.#shard.reactor.timers.set(parked.deadline, sinceMs + WAIT_MS_MAX - nowMs, nowMs);
  }

  /** Keeps a connection that has waited elsewhere already. */
  parkAgain(pod: Pod, fd: number, kind: number, waitedMs: number): void {
    this.#waitingSinceMs = this.#shard.reactor.nowMs - waitedMs;
    this.park(pod, fd, kind);
    this.#waitingSinceMs = -1;
  }

  /** Goes on with what waited for nothing but its workload, and with the rest once there is word of a certificate. */
  retry(pod: Pod): void {
    if (pod.parked.size === 0) return;
    if (this.#shard.view.localWorkload(pod.row) === undefined) return;
    const { identity } = pod, certain = identity.tls !== undefined || identity.failure !== undefined;
    for (const parked of [...pod.parked]) {
      if (parked.kind === ListenerKind.HBONE && !certain) continue;
      pod.parked.delete(parked);
      this.#share.give(pod.row);
      this.#shard.reactor.timers.cancel(parked.deadline);
      this.#waitingSinceMs = parked.sinceMs; // It may have to wait on, and for no longer than if it had not been asked.
      this.#shard.begin(pod, parked.fd, parked.kind);
    }
    this.#waitingSinceMs = -1;
  }

  /** Drops what waited: the pod has gone. */
  drop(pod: Pod): void {
    for (const parked of pod.parked) {
      this.#shard.reactor.timers.cancel(parked.deadline);
      this.#shard.os.close(parked.fd);
      this.#share.give(pod.row);
    }
    pod.parked.clear();
  }

  #logTimeout(pod: Pod, parked: Parked): void {
    const outbound = parked.kind === ListenerKind.OUTBOUND || parked.kind === ListenerKind.SOCKS;
    const direction = outbound ? Direction.OUTBOUND : Direction.INBOUND;
    this.#shard.access.begin(AccessKind.EARLY, direction, -1, 0, ResponseFlag.CONNECT);
    const { os } = this.#shard, words = os.addressWords;
    if (os.peerAddress(parked.fd) >= 0) {
      this.#shard.access.source(words[0]!, words[1]!, words[2]!, words[3]!, words[4]!);
    }
    if (findDestination(this.#shard, pod, parked.fd, parked.kind)) {
      this.#shard.access.destination(words[0]!, words[1]!, words[2]!, words[3]!, words[4]!);
    }
    const { pods } = this.#shard.tables, known = this.#shard.view.localWorkload(pod.row) !== undefined;
    const who = new TextDecoder().decode(pods.readBytes(pod.row, POD.who, pods.get(pod.row, POD.whoBytes)));
    this.#shard.access.error(
      known ? `no certificate came within 5 s: ${who}` : `failed to fetch information about local workload: ${who}`,
    );
    this.#shard.access.push();
  }
}
