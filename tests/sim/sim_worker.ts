/** A real worker in the simulation: its turns, and what must hold after each and at the end. */
import type { Ring } from "../../base/shm/ring.ts";
import { pushWords, type Tables } from "../../dataplane/tables/handles.ts";
import { CLOSE_REQUESTED, Command, CONNECTION, ConnectionState, WORKER } from "../../dataplane/tables/layout.ts";
import type { Inbox } from "../../dataplane/worker/commands.ts";
import type { PodIdentity } from "../../dataplane/worker/pod.ts";
import type { Shard } from "../../dataplane/worker/shard.ts";
import { Adoption } from "../../dataplane/worker/takeover/read_state.ts";
import { Handover } from "../../dataplane/worker/takeover/write_state.ts";
import { HBONE_STREAM_WINDOW_BYTES } from "../../wire/h2/settings.ts";
import { type Chance, hold } from "./chance.ts";
import { SessionPhase } from "../../dataplane/worker/session_output.ts";
import type { SimOs } from "./sim_os.ts";

/** After so many turns open connections have been judged under a new snapshot. */
const SETTLES_TURNS = 2;
/** The command may come with a later event, and waits its turn then. */
const CLOSING_TURNS_MAX = 12;
export class SimWorker {
  readonly shard: Shard;
  readonly os: SimOs;
  readonly inbox: Inbox;
  readonly commands: Ring;
  readonly requests: Ring;
  readonly index: number;
  readonly tables: Tables;
  readonly poll: number;
  readonly wakeFd: number;
  /** Every identity it was seen with. */
  readonly identities = new Set<PodIdentity>();
  /** The generation that it acknowledged, and turns since. */
  generation = 0;
  turnsSince = 0;
  /** Open connections have been judged under this generation. */
  settled = 0;
  watched = 0;
  /** Stages that we took ourselves. */
  stagesAway = 0;
  /** Connections whose end was asked for, and when. */
  #closing: { readonly row: number; readonly epoch: number; readonly turns: number }[] = [];

  constructor(
    fields: Pick<
      SimWorker,
      "shard" | "os" | "inbox" | "commands" | "requests" | "index" | "tables" | "poll" | "wakeFd"
    >,
  ) {
    this.shard = fields.shard;
    this.os = fields.os;
    this.inbox = fields.inbox;
    this.commands = fields.commands;
    this.requests = fields.requests;
    this.index = fields.index;
    this.tables = fields.tables;
    this.#countWatched();
    this.poll = fields.poll;
    this.wakeFd = fields.wakeFd;
  }

  /** Counts the reactor's rows, to hold them against epoll's. */
  #countWatched(): void {
    const { reactor } = this.shard, watch = reactor.watch.bind(reactor), forget = reactor.forget.bind(reactor);
    reactor.watch = (fd, events, owner) => {
      const row = watch(fd, events, owner);
      if (row >= 0) this.watched++;
      return row;
    };
    reactor.forget = (row) => {
      this.watched--;
      forget(row);
    };
  }

  /** Leaves sessions one stage. */
  takeStages(): void {
    const { buffers } = this.shard;
    let last = -1;
    for (let stage = buffers.acquireStage(); stage >= 0; stage = buffers.acquireStage()) last = stage;
    buffers.releaseStage(last);
    this.stagesAway = buffers.stagesTaken;
  }

  /**
   * Everything that can go to a successor is written down, and then either let go and gone on with from the bytes, by
   * other descriptors, or nothing comes of it. @returns Connections that went over.
   */
  takeOver(chance: Chance): number {
    const { shard, os } = this;
    if (!shard.reactor.running || shard.draining) return 0;
    if (os.process.exhausted) return 0; // The successor would refuse, and the kernel watch as before.
    Handover.settle(shard);
    const handover = new Handover(shard), bytes = handover.encode();
    if (chance.often(25)) return 0; // The successor has died: we go on.
    const handles = handover.handles.map((fd) => os.process.duplicate(fd));
    handover.release();
    const adoption = Adoption.read(shard, bytes, handles, shard.pods);
    hold(typeof adoption !== "string", `what we wrote down is taken: ${adoption}`);
    bytes.fill(0); // Nothing may be borrowed from it.
    adoption.goLive();
    return handover.counts.connections;
  }

  /** One turn, as the worker's entry takes it. */
  turn(): void {
    const { shard, index } = this;
    shard.reactor.turn();
    shard.refresh();
    if (this.inbox.drained) shard.reactor.running = false;
    for (const pod of shard.pods.values()) this.identities.add(pod.identity);
    const generation = this.tables.workers.load(index, WORKER.acknowledgedGeneration);
    if (generation !== this.generation) {
      this.generation = generation;
      this.turnsSince = 0;
    } else if (++this.turnsSince >= SETTLES_TURNS) this.settled = generation;
    this.#check();
  }

  #check(): void {
    const { shard, os } = this;
    hold(os.process.strays === 0, "no descriptor is closed twice");
    hold(os.watchedCount(this.poll) === this.watched, "epoll and the reactor watch the same descriptors");
    for (const pod of shard.pods.values()) {
      for (const session of pod.sessions) {
        hold(session.tunnels.size <= 200, "a session has at most as many streams as were announced");
        for (const tunnel of session.tunnels.values()) {
          const kept = HBONE_STREAM_WINDOW_BYTES - tunnel.receiveWindow - tunnel.creditBytes;
          hold(kept >= 0 && tunnel.receiveWindow >= 0, "a stream's bytes stay within its window");
        }
      }
    }
    for (const pod of shard.pods.values()) {
      for (const { phase } of pod.pool.nested) {
        hold(phase !== SessionPhase.CLOSED, "a nested session that ended is forgotten");
      }
    }
    this.#checkClosing();
    if ((shard.reactor.turns & 15) === 0) this.#checkRows();
  }

  /** What was asked to end has ended some turns later. */
  #checkClosing(): void {
    this.#closing = this.#closing.filter(({ row, epoch, turns }) => {
      const { connections, reactor } = this.shard;
      const gone = connections.load(row, CONNECTION.state) === ConnectionState.FREE ||
        connections.get(row, CONNECTION.epoch) !== epoch;
      hold(gone || reactor.turns < turns + CLOSING_TURNS_MAX, "a connection ends soon when that is asked for");
      return !gone;
    });
  }

  #checkRows(): void {
    const { connections } = this.shard;
    let used = 0;
    for (let row = 0; row < connections.rowCount; row++) {
      if (connections.load(row, CONNECTION.state) !== ConnectionState.FREE) used++;
    }
    hold(used === this.shard.connectionCount, "connection rows and open connections add up");
    hold(this.tables.workers.load(this.index, WORKER.load) === used, "the load is the number of open connections");
  }

  /** Somebody asks for the end of a connection, of whatever there is. */
  requestClose(chance: Chance): void {
    const { connections, reactor } = this.shard;
    const used = Array.from({ length: connections.rowCount }, (_, row) => row).filter((row) =>
      connections.load(row, CONNECTION.state) !== ConnectionState.FREE
    );
    if (used.length === 0) return;
    const row = chance.pick(used);
    connections.or(row, CONNECTION.control, CLOSE_REQUESTED);
    this.#closing.push({
      row,
      epoch: connections.get(row, CONNECTION.epoch),
      turns: reactor.turns,
    });
    hold(pushWords(this.commands, Command.CLOSE_CONNECTION, row), "a command ring has room");
  }

  /** All pods are gone: whatever was held for connections must be back. */
  checkEmpty(): void {
    const { shard } = this;
    hold(shard.pods.size === 0 && shard.connectionCount === 0, "no connection outlives its pod");
    this.#checkRows();
    hold(shard.buffers.stagesTaken === this.stagesAway, "all stages are back");
    hold(shard.buffers.chunksTaken === 0, "all chunks are back");
    hold(shard.reactor.timers.setCount === 0, "no timer is left");
    hold(this.watched === 1, `only the wake-up is watched, not ${this.watched}`);
    hold(this.sessionCount === 0, "no session is counted");
    this.#freeIdentities();
  }

  /** Sessions that are open. */
  get sessionCount(): number {
    const { workers } = this.tables;
    return workers.getF64(this.index, WORKER.upstreamSessions) + workers.getF64(this.index, WORKER.downstreamSessions);
  }

  /** Workers keep an identity for the next pod that has it: the newest of each row. */
  #freeIdentities(): void {
    const kept = new Map([...this.identities].map((identity) => [identity.row, identity]));
    for (const identity of kept.values()) identity.tls?.free();
  }
}
