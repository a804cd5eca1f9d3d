/** What a worker does when the agent tells it something, or another worker gives it a connection. */
import { chain, MeshError } from "../../base/errors.ts";
import { Deadline } from "../../base/timer_wheel.ts";
import type { Ring } from "../../base/shm/ring.ts";
import { parseIdentity } from "../../mesh/identity.ts";
import { pushWords } from "../tables/handles.ts";
import { readContext, readFailure, readUri } from "../tables/identities.ts";
import { Command, COMMAND_WORDS, POD, PodFlag, PodState, Request, ResponseFlag } from "../tables/layout.ts";
import { Listener, ListenerKind } from "./listener.ts";
import { Pod, PodIdentity, unknownIdentity } from "./pod.ts";
import type { Pollable } from "./reactor.ts";
import type { SessionEnd } from "./session.ts";
import { LogLevel, type Shard } from "./shard.ts";
import type { PodShare } from "./shared_pod.ts";
import { HANDOVER_WORDS } from "./start.ts";

/** Connections that may wait for word of their pod; the agent tells all workers within microseconds. */
const EARLY_MAX = 256;
const REMOVED: SessionEnd = { reason: "the workload's proxy was stopped", stage: "closed" };
const DRAINED: SessionEnd = { reason: "connection closed due to connection drain", stage: "drain" };

/** Reads the worker's rings whenever its eventfd says so. */
export class Inbox implements Pollable {
  readonly #shard: Shard;
  readonly #worker: number;
  readonly #wakeFd: number;
  readonly #commands: Ring;
  readonly #requests: Ring;
  readonly #handovers: readonly Ring[];
  readonly #command = new Int32Array(COMMAND_WORDS);
  readonly #handover = new Int32Array(HANDOVER_WORDS);
  readonly #identities = new Map<number, PodIdentity>();
  #early: { kind: number; row: number; epoch: number; fd: number }[] = [];
  readonly #drainDeadline = new Deadline(() => this.#endDrain());

  constructor(
    shard: Shard,
    rings: { worker: number; wakeFd: number; commands: Ring; requests: Ring; handovers: readonly Ring[] },
  ) {
    this.#shard = shard;
    this.#worker = rings.worker;
    this.#wakeFd = rings.wakeFd;
    this.#commands = rings.commands;
    this.#requests = rings.requests;
    this.#handovers = rings.handovers;
  }

  onEvents(_events: number): void {
    this.#shard.os.drainEvent(this.#wakeFd);
    const command = this.#command;
    while (this.#commands.pop(command)) {
      this.#carryOut(command);
      if (command[0] === Command.POD_REMOVED || command[0] === Command.REVOCATIONS_CHANGED) {
        pushWords(this.#requests, Request.DONE, 0, command[0], command[1]!, command[2]!);
      }
    }
    const record = this.#handover;
    for (const ring of this.#handovers) while (ring.pop(record)) this.#takeOver(record);
  }

  #carryOut(command: Int32Array): void {
    switch (command[0]) {
      case Command.POD_ADDED:
        return this.#addPod(command[1]!, command[2]!);
      case Command.POD_IDENTITY:
        return this.#identifyPod(command[1]!, command[2]!);
      case Command.POD_REMOVED:
        return this.#removePod(command[1]!, command[2]!);
      case Command.IDENTITY_CHANGED:
        return this.#changeIdentity(command[1]!, command[2]! >>> 0, command[3]! >>> 0);
      case Command.REVOCATIONS_CHANGED:
        return this.#shard.revocations.use({ low: command[1]! >>> 0, high: command[2]! >>> 0 });
      case Command.CLOSE_CONNECTION:
        return this.#shard.judge.again();
      case Command.POLICIES_CHANGED:
        return; // The snapshot is looked at in every turn; the command only wakes.
      case Command.ANSWER:
        return this.#shard.questions.answer(
          command[1]!,
          command[2]!,
          command[3]!,
          command[4]!,
          command[5]!,
          command[6]!,
        );
      case Command.DRAIN:
        return this.#drain(command[1]!);
      case Command.STOP:
        this.#shard.reactor.running = false;
    }
  }

  #takeOver(record: Int32Array): void {
    const [kind, row, epoch, fd] = [record[0]!, record[1]!, record[2]!, record[3]!];
    const pod = this.#shard.pods.get(row);
    if (pod?.epoch === epoch) return this.#shard.take(pod, fd, kind);
    // The other worker may have heard of the pod first; our own word of it is under way then.
    const coming = this.#shard.tables.pods.get(row, POD.epoch) === epoch &&
      this.#shard.tables.pods.load(row, POD.state) === PodState.ACTIVE;
    if (coming && this.#early.length < EARLY_MAX) this.#early.push({ kind, row, epoch, fd });
    else this.#shard.os.close(fd);
  }

  /** Connections that came over before their pod did. */
  #takeEarly(pod: Pod): void {
    const early = this.#early;
    this.#early = early.filter((it) => it.row !== pod.row);
    for (const { row, epoch, kind, fd } of early) {
      if (row !== pod.row) continue;
      if (epoch === pod.epoch) this.#shard.take(pod, fd, kind);
      else this.#shard.os.close(fd);
    }
  }

  #identityOf(row: number): PodIdentity | undefined {
    let identity = this.#identities.get(row);
    const uri = readUri(this.#shard.tables.identities, row);
    if (identity !== undefined && identity.uri === uri) return identity;
    const parsed = parseIdentity(uri);
    if (parsed === undefined) return undefined;
    identity?.tls?.free(); // The row has gone to another identity: no pod has the former one any more.
    identity = new PodIdentity(row, uri, parsed);
    this.#identities.set(row, identity);
    return identity;
  }

  /** What a pod's row names; an unknown one while nobody knows. */
  #identityAt(podRow: number): PodIdentity | undefined {
    const identityRow = this.#shard.tables.pods.getI32(podRow, POD.identityRow);
    return identityRow < 0 ? unknownIdentity() : this.#identityOf(identityRow);
  }

  /** It has become known who the pod is. Sessions in another's name serve their streams, and no new ones. */
  #identifyPod(row: number, epoch: number): void {
    const pod = this.#shard.pods.get(row), identity = this.#identityAt(row);
    if (pod?.epoch !== epoch || identity === undefined || pod.identity === identity) return;
    pod.identity = identity;
    pod.pool.drain();
    this.#shard.waiting.retry(pod);
  }

  #addPod(row: number, epoch: number): void {
    const shard = this.#shard, { pods } = shard.tables;
    if (pods.get(row, POD.epoch) !== epoch || shard.pods.has(row)) return;
    const identity = this.#identityAt(row);
    const fields = [POD.outboundFd, POD.hboneFd, POD.plaintextFd]; // In the order of ListenerKind.
    if ((pods.get(row, POD.flags) & PodFlag.SOCKS) !== 0) fields.push(POD.socksFd);
    const listen = fields.map((field) => pods.getI32At(row, field, this.#worker));
    if (identity === undefined) { // No identity, no proxy: an application must not be reached without one.
      for (const fd of listen) if (fd >= 0) shard.os.close(fd);
      return;
    }
    const pod = new Pod(shard, {
      row,
      epoch,
      netnsFd: pods.getI32(row, POD.netnsFd),
      identity,
      transparent: (pods.get(row, POD.flags) & PodFlag.TRANSPARENT) !== 0,
      own: (pods.get(row, POD.flags) & PodFlag.OWN) !== 0,
      share: this.#shareOf(row),
    });
    shard.pods.set(row, pod);
    for (const [kind, fd] of listen.entries()) {
      if (fd < 0) continue;
      const listener = new Listener(shard, pod, fd, kind as ListenerKind);
      if (listener.watch()) pod.listeners.push(listener);
      else listener.close();
    }
    this.#takeEarly(pod);
  }

  #shareOf(row: number): PodShare | null {
    const { pods } = this.#shard.tables;
    if ((pods.get(row, POD.flags) & PodFlag.SHARED) === 0) return null;
    const count = pods.get(row, POD.sharedPortCount), ports: number[] = [];
    for (let at = 0; at < count; at++) ports.push(pods.getAt(row, POD.sharedPorts, at));
    const word = (at: number) => pods.getAt(row, POD.sharedIp, at);
    return { ports, word0: word(0), word1: word(1), word2: word(2), word3: word(3) };
  }

  /** At once and without a drain: the pod has gone already (ZT-169). */
  #removePod(row: number, epoch: number): void {
    const shard = this.#shard, pod = shard.pods.get(row);
    for (const it of this.#early) if (it.row === row) shard.os.close(it.fd);
    this.#early = this.#early.filter((it) => it.row !== row);
    if (pod === undefined || pod.epoch !== epoch) return;
    pod.removed = true;
    shard.pods.delete(row);
    for (const listener of pod.listeners) listener.close();
    shard.waiting.drop(pod);
    shard.rows.endAll(pod, ResponseFlag.NONE, undefined);
    for (const session of [...pod.sessions]) session.closeNow(REMOVED);
    pod.pool.close(REMOVED);
    shard.sockets.leave();
  }

  /** A new certificate, or word that there is none. Handshakes under way keep the old one. */
  #changeIdentity(row: number, low: number, high: number): void {
    const shard = this.#shard,
      rows = shard.tables.identities,
      identity = this.#identityOf(row),
      none = low === 0 && high === 0;
    // The row may have gone to another identity since, or to a newer certificate, of which there is word further on.
    if (identity === undefined || (!none && readContext(rows, row) !== high * 0x1_0000_0000 + low)) {
      if (!none) shard.tls.derive({ low, high }).free();
      return;
    }
    if (none) {
      if (identity.tls === undefined) identity.failure = readFailure(rows, row);
    } else {
      try {
        const derived = shard.tls.derive({ low, high });
        identity.tls?.free();
        identity.tls = derived;
        identity.failure = undefined;
      } catch (error) {
        if (!(error instanceof MeshError)) throw error;
        // The certificate before it, if any, serves on until it expires.
        shard.report(LogLevel.ERROR, `a new certificate cannot be used: ${chain(error)}`);
        if (identity.tls === undefined) identity.failure = chain(error);
      }
    }
    for (const pod of shard.pods.values()) if (pod.identity === identity) shard.waiting.retry(pod);
  }

  /** Accepts nothing more, lets what runs run, and cuts what is left at the deadline (ZT-224, ZT-077). */
  #drain(deadlineMs: number): void {
    const shard = this.#shard;
    if (shard.draining) return;
    shard.draining = true;
    for (const pod of shard.pods.values()) {
      for (const listener of pod.listeners.splice(0)) {
        listener.acceptLast();
        listener.close();
      }
      shard.waiting.drop(pod);
      for (const session of [...pod.sessions]) session.drain();
      pod.pool.drain();
    }
    shard.reactor.timers.set(this.#drainDeadline, deadlineMs, shard.reactor.nowMs);
  }

  /** Whether a drain is over: nothing is open any more, and all that was written has been taken. */
  get drained(): boolean {
    const shard = this.#shard;
    if (!shard.draining || shard.connectionCount > 0) return false;
    for (const pod of shard.pods.values()) if (pod.sessions.size + pod.pool.sessionCount > 0) return false;
    return true;
  }

  #endDrain(): void {
    const shard = this.#shard;
    for (const pod of shard.pods.values()) { // Sessions first: their streams end with them, without RST_STREAM (ZT-077).
      for (const session of [...pod.sessions]) session.die(DRAINED);
      pod.pool.close(DRAINED);
    }
    shard.rows.endAll(undefined, ResponseFlag.CONNECT, DRAINED.reason);
  }
}
