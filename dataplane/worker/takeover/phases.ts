/** A worker's part of a takeover, phase by phase as its agent asks: at the end of a turn, with nothing else in between. */
import type { Rows } from "../../../base/shm/rows.ts";
import type { Fd } from "../../../os/api.ts";
import { TAKEOVER, TakeoverPhase } from "../../tables/layout.ts";
import { ADOPTION_CODEC, LISTENING_CODEC } from "../../tables/takeover_format.ts";
import type { Pod } from "../pod.ts";
import { POLL_IN, type Pollable } from "../reactor.ts";
import type { Shard } from "../shard.ts";
import { Adoption } from "./read_state.ts";
import { Handover } from "./write_state.ts";

/** Handshakes and negotiations get so long to end, while everything else goes on; those that do not end here later. */
const SETTLE_MS = 500;
const HOLD_WAIT_MS = 1_000;
const EVENT_BYTES = 16;
const REASON_BYTES_MAX = 256;
/** A drain has closed the listeners: a successor would have none, and whoever comes to a pod would find nobody. */
const ENDING = "this ztunnel is ending";

/** Memory files, which cross to the agent and to other processes by descriptor. */
export interface StateFiles {
  /** A sealed file of these bytes. @returns Its descriptor, or -1. */
  write(bytes: Uint8Array<ArrayBuffer>): Fd;
  /** All of a file. @returns undefined if it is none. */
  read(fd: Fd): Uint8Array<ArrayBuffer> | undefined;
}

export class TakeoverPhases {
  readonly #shard: Shard;
  readonly #inbox: Pollable;
  readonly #table: Rows<"takeover">;
  readonly #worker: number;
  readonly #wakeFd: Fd;
  readonly #files: StateFiles;
  /** Watches the wake-up alone, for the time in which nothing else may be touched. */
  readonly #poll: Fd;
  readonly #eventsAt: number;
  #reached: number = TakeoverPhase.RUN;
  /** Until when a freeze waits for what is unsettled; -1: none was asked for. */
  #settleUntilMs = -1;
  #encoder = new TextEncoder();

  constructor(
    shard: Shard,
    inbox: Pollable,
    place: { readonly worker: number; readonly wakeFd: Fd; readonly files: StateFiles },
  ) {
    this.#shard = shard;
    this.#inbox = inbox;
    this.#table = shard.tables.takeover;
    this.#worker = place.worker;
    this.#wakeFd = place.wakeFd;
    this.#files = place.files;
    this.#poll = shard.os.pollCreate();
    shard.os.pollAdd(this.#poll, place.wakeFd, POLL_IN, 0);
    this.#eventsAt = shard.os.memory.allocate(EVENT_BYTES);
  }

  /** Once a turn. */
  step(): void {
    const asked = this.#asked();
    if (asked === this.#reached) return;
    if (asked === TakeoverPhase.QUIET) this.#quiet();
    else if (asked === TakeoverPhase.FROZEN) this.#freeze();
    else if (asked === TakeoverPhase.ADOPTED) this.#adopt();
    else if (asked === TakeoverPhase.RUN) this.#run();
  }

  #asked(): number {
    return this.#table.load(this.#worker, TAKEOVER.asked);
  }

  #reach(phase: number): void {
    this.#reached = phase;
    this.#table.store(this.#worker, TAKEOVER.reached, phase);
  }

  #quiet(): void {
    if (this.#shard.draining) return this.#fail(ENDING);
    for (const pod of this.#shard.pods.values()) for (const listener of pod.listeners) listener.pause();
    this.#reach(TakeoverPhase.QUIET);
  }

  /** As it was: newcomers are accepted, and the rest has never stopped. */
  #run(): void {
    for (const pod of this.#shard.pods.values()) for (const listener of pod.listeners) listener.resume();
    this.#settleUntilMs = -1;
    this.#reach(TakeoverPhase.RUN);
  }

  #freeze(): void {
    const shard = this.#shard, { reactor, os } = shard;
    this.#inbox.onEvents(0); // All workers are quiet: nobody gives us more connections.
    if (shard.draining) return this.#fail(ENDING);
    if (this.#settleUntilMs < 0) this.#settleUntilMs = reactor.nowMs + SETTLE_MS;
    Handover.settle(shard);
    const handover = new Handover(shard);
    if (handover.counts.settling > 0 && reactor.nowMs < this.#settleUntilMs) {
      reactor.wakeWithin(5);
      return;
    }
    this.#settleUntilMs = -1;
    const frozenAtMs = os.nowMs() + os.unixOffsetMs(), bytes = handover.encode();
    const stateFd = this.#files.write(bytes);
    bytes.fill(0); // The keys are in sealed memory now, and in what they came from.
    const handlesFd = this.#files.write(new Uint8Array(Int32Array.from(handover.handles).buffer));
    if (stateFd < 0 || handlesFd < 0) {
      for (const fd of [stateFd, handlesFd]) if (fd >= 0) os.close(fd);
      return this.#fail("there is no memory to write the state to");
    }
    const table = this.#table, row = this.#worker;
    table.set(row, TAKEOVER.stateFd, stateFd);
    table.set(row, TAKEOVER.handlesFd, handlesFd);
    table.set(row, TAKEOVER.sessions, handover.counts.sessions);
    table.set(row, TAKEOVER.connections, handover.counts.connections);
    table.set(row, TAKEOVER.left, handover.counts.left);
    table.setF64(row, TAKEOVER.frozenAtMs, frozenAtMs);
    this.#reach(TakeoverPhase.FROZEN);
    const next = this.#hold(TakeoverPhase.FROZEN);
    for (const fd of [stateFd, handlesFd]) os.close(fd);
    if (next !== TakeoverPhase.RELEASED) return this.#run();
    handover.release();
    this.#reach(TakeoverPhase.RELEASED);
  }

  #adopt(): void {
    this.#inbox.onEvents(0); // Pods and certificates that we were told of before.
    const shard = this.#shard, fd = this.#table.getI32(this.#worker, TAKEOVER.adoptionFd);
    const told = this.#files.read(fd), adoption = told && ADOPTION_CODEC.decode(told);
    shard.os.close(fd);
    if (adoption === undefined) return this.#fail("the agent's word on what to adopt is malformed");
    const podOf = new Map<number, Pod>();
    for (const { theirs, ours } of adoption.pods) {
      const pod = shard.pods.get(ours);
      if (pod !== undefined) podOf.set(theirs, pod);
    }
    const built: Adoption[] = [];
    let refused = shard.draining ? ENDING : undefined;
    for (const { fd, handles } of adoption.states) {
      const bytes = refused === undefined ? this.#files.read(fd) : undefined;
      shard.os.close(fd);
      if (bytes === undefined) {
        refused ??= "the state is no file";
        for (const handle of handles) shard.os.close(handle);
        continue;
      }
      const outcome = Adoption.read(shard, bytes, handles, podOf);
      bytes.fill(0);
      if (typeof outcome === "string") refused = outcome;
      else built.push(outcome);
    }
    if (refused !== undefined) {
      for (const it of built) it.discard();
      return this.#fail(refused);
    }
    this.#reach(TakeoverPhase.ADOPTED);
    const next = this.#hold(TakeoverPhase.ADOPTED);
    for (const it of built) {
      if (next === TakeoverPhase.LIVE) it.goLive();
      else it.discard();
    }
    if (next === TakeoverPhase.LIVE) this.#tellListening(built.flatMap((it) => it.listening));
    this.#reach(next === TakeoverPhase.LIVE ? TakeoverPhase.LIVE : TakeoverPhase.RUN);
  }

  /** Without memory for it the node agent holds nothing of these pods until they are enrolled anew. */
  #tellListening(sockets: Adoption["listening"]): void {
    const fd = sockets.length === 0 ? -1 : this.#files.write(LISTENING_CODEC.encode({ sockets }));
    this.#table.set(this.#worker, TAKEOVER.listeningFd, fd);
  }

  /** Waits while the agent asks for this phase; nothing but the wake-up is looked at. @returns The next one. */
  #hold(phase: number): number {
    const { os } = this.#shard;
    while (this.#asked() === phase) {
      os.wait(this.#poll, os.memory.base + this.#eventsAt, 1, HOLD_WAIT_MS);
      os.drainEvent(this.#wakeFd);
    }
    os.signalEvent(this.#wakeFd); // Commands may have come meanwhile.
    return this.#asked();
  }

  #fail(reason: string): void {
    const target = new Uint8Array(REASON_BYTES_MAX), { written } = this.#encoder.encodeInto(reason, target);
    this.#table.writeBytes(this.#worker, TAKEOVER.reason, target.subarray(0, written));
    this.#table.set(this.#worker, TAKEOVER.reasonBytes, written);
    this.#reach(TakeoverPhase.FAILED);
    const asked = this.#asked();
    this.#hold(asked); // Until the agent asks for something else: the same again would fail again.
  }
}
