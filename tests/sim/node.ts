/** A node: real workers over the simulated system, and an agent that keeps the real mesh state and publishes it. */
import { Ring, ringBytes } from "../../base/shm/ring.ts";
import { MeshState } from "../../dataplane/agent/state.ts";
import { AccessKind, AccessReader, AccessWriter } from "../../dataplane/tables/access.ts";
import { FlowTable } from "../../dataplane/tables/flows.ts";
import {
  createTables,
  openCommandRing,
  openRequestRing,
  openTables,
  pushWords,
  type Tables,
} from "../../dataplane/tables/handles.ts";
import { acquireIdentity, putFailure, releaseIdentity } from "../../dataplane/tables/identities.ts";
import {
  CLOSE_REQUESTED,
  Command,
  CONNECTION,
  ConnectionState,
  Direction,
  FLOW,
  FlowState,
  HEADER,
  POD,
  PodFlag,
  PodState,
  Request,
  REQUEST_WORDS,
  WORKER,
} from "../../dataplane/tables/layout.ts";
import { SnapshotReader } from "../../dataplane/tables/lookup.ts";
import { SnapshotWriter } from "../../dataplane/tables/publish.ts";
import { Inbox } from "../../dataplane/worker/commands.ts";
import type { PodIdentity } from "../../dataplane/worker/pod.ts";
import { POLL_IN } from "../../dataplane/worker/reactor.ts";
import { Shard } from "../../dataplane/worker/shard.ts";
import { HANDOVER_ENTRIES, HANDOVER_WORDS } from "../../dataplane/worker/start.ts";
import type { ContextHandle } from "../../os/api.ts";
import { HBONE_STREAM_WINDOW_BYTES } from "../../wire/h2/settings.ts";
import { type Chance, hold } from "./chance.ts";
import type { SimPod } from "./exchange.ts";
import { type Kernel, type Namespace, Port } from "./kernel.ts";
import { SimMemory } from "./memory.ts";
import type { PolicyFact } from "./policies.ts";
import { Process, SimOs } from "./sim_os.ts";
import { Certificates, SimTls } from "./sim_tls.ts";
import { EventCounter, NetnsHandle, SimSocket } from "./stream.ts";

export const MEMORY_BYTES_MAX = 128 << 20;
const FLOWS = 24;
/** After so many turns open connections have been judged under a new snapshot. */
const SETTLES_TURNS = 2;
/** The command may come with a later event, and waits its turn then. */
const CLOSING_TURNS_MAX = 12;
/** Used again by the next run. */
const memories: SimMemory[] = [];

export interface NodeOptions {
  readonly index: number;
  readonly workers: number;
  readonly home: Namespace;
  readonly streamsPerSessionMax: number;
  readonly recordsPerKey: number;
  readonly transparent: boolean;
  /** Rows of the connection table. */
  readonly connections: number;
  /** Of each worker: stages and chunks follow from it. */
  readonly memoryBytes: number;
  /** All stages but one are taken from the sessions. */
  readonly oneStage: boolean;
  /** Records of opened connections are asked for. */
  readonly reportsOpened: boolean;
}

/** Sums of flow rows by direction. */
interface Totals {
  opened: number;
  closed: number;
  readonly received: [number, number];
  readonly sent: [number, number];
}

class Worker {
  readonly shard: Shard;
  readonly os: SimOs;
  readonly inbox: Inbox;
  readonly commands: Ring;
  readonly requests: Ring;
  readonly access: AccessReader;
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

  constructor(fields: Pick<Worker, "shard" | "os" | "inbox" | "commands" | "requests" | "access" | "poll" | "wakeFd">) {
    this.shard = fields.shard;
    this.os = fields.os;
    this.inbox = fields.inbox;
    this.commands = fields.commands;
    this.requests = fields.requests;
    this.access = fields.access;
    this.poll = fields.poll;
    this.wakeFd = fields.wakeFd;
  }
}

interface RunningPod {
  readonly pod: SimPod;
  readonly row: number;
  readonly epoch: number;
  readonly netnsFd: number;
  readonly uri: string;
  waitsFor: number;
}

export class SimNode {
  readonly options: NodeOptions;
  readonly kernel: Kernel;
  readonly process = new Process();
  readonly certificates = new Certificates();
  readonly tables: Tables;
  readonly state: MeshState;
  readonly writer: SnapshotWriter;
  readonly workers: Worker[] = [];
  /** What policies were in force by generation; the oracle. */
  readonly policiesAt = new Map<number, readonly PolicyFact[]>();
  policies = new Map<string, PolicyFact>();
  /** The last of the control plane's versions that has come. */
  policyVersion = 0;
  readonly totals: Totals = { opened: 0, closed: 0, received: [0, 0], sent: [0, 0] };
  completeRecords = 0;
  readonly #recorded = { received: 0, sent: 0 };
  stopped = false;
  /** Told to drain. */
  draining = false;
  /** Connections whose end was asked for, and when. */
  #closing: { readonly worker: number; readonly row: number; readonly epoch: number; readonly turns: number }[] = [];
  readonly #running: RunningPod[] = [];
  readonly #identities = new Map<
    string,
    { readonly row: number; users: number; template: ContextHandle | undefined }
  >();
  readonly #updates: { readonly atMs: number; readonly apply: () => void }[] = [];

  constructor(kernel: Kernel, options: NodeOptions) {
    this.kernel = kernel;
    this.options = options;
    const handles = createTables({
      workers: options.workers,
      pods: 8,
      identities: 8,
      flowsPerWorker: FLOWS,
      connectionsPerWorker: options.connections,
      snapshotBytes: 1 << 18,
    });
    this.tables = openTables(handles);
    this.tables.header.store(0, HEADER.accessOpened, options.reportsOpened ? 1 : 0);
    this.state = new MeshState(`node${options.index}`);
    this.writer = new SnapshotWriter(this.tables, (worker) => this.#wake(worker), kernel.chance.bits());
    const handover = new SharedArrayBuffer(
      ringBytes(HANDOVER_ENTRIES, HANDOVER_WORDS) * options.workers * options.workers,
    );
    const wakeFds = Array.from({ length: options.workers }, () => this.process.open(new EventCounter()));
    const ring = (from: number, to: number) => {
      const place = (from * options.workers + to) * ringBytes(HANDOVER_ENTRIES, HANDOVER_WORDS);
      return new Ring(handover, place, HANDOVER_ENTRIES, HANDOVER_WORDS, () => this.#signal(wakeFds[to]!));
    };
    for (let worker = 0; worker < options.workers; worker++) {
      const number = options.index * 2 + worker;
      memories[number] ??= new SimMemory(0x10000000 + number * 0x8000000, MEMORY_BYTES_MAX);
      memories[number]!.reset(options.memoryBytes);
      const os = new SimOs(kernel, this.process, memories[number]!, options.home);
      this.writer.admit(worker);
      const shared = {
        tables: this.tables,
        flows: new FlowTable(this.tables.flows[worker]!, this.tables.workers, worker),
        access: new AccessWriter(handles, worker),
        view: new SnapshotReader(this.tables, worker),
      };
      const outgoing = wakeFds.map((_, to) => ring(worker, to));
      const before = this.process.files.length;
      const settings = {
        worker,
        network: "",
        packetMark: 0x539,
        keepalive: false,
        streamsPerSessionMax: options.streamsPerSessionMax,
        responseBaggage: true,
        localhostAppTunnel: false,
        reservedPorts: [Port.OUTBOUND, Port.PLAINTEXT, Port.HBONE],
        recordsPerKey: options.recordsPerKey,
      };
      const tls = new SimTls(os, this.certificates);
      const shard = new Shard(os, tls, shared, settings, (to, pod, fd, kind) => {
        outgoing[to]!.record.set([kind, pod.row, pod.epoch, fd]);
        return outgoing[to]!.push();
      });
      const poll = this.process.files.findLastIndex((file) => file !== undefined);
      hold(poll >= before - 1, "a shard opens its epoll instance at its start");
      const inbox = new Inbox(shard, {
        worker,
        wakeFd: wakeFds[worker]!,
        commands: openCommandRing(handles, worker),
        requests: openRequestRing(handles, worker),
        handovers: wakeFds.map((_, from) => ring(from, worker)),
      });
      const made = new Worker({
        shard,
        os,
        inbox,
        poll,
        wakeFd: wakeFds[worker]!,
        commands: openCommandRing(handles, worker, () => this.#signal(wakeFds[worker]!)),
        requests: openRequestRing(handles, worker),
        access: new AccessReader(handles, worker),
      });
      this.#countWatched(made);
      if (options.oneStage) this.#takeStages(made);
      shard.reactor.watch(made.wakeFd, POLL_IN, inbox);
      this.workers.push(made);
    }
  }

  /** Counts the reactor's rows, to hold them against epoll's. */
  #countWatched(worker: Worker): void {
    const { reactor } = worker.shard, watch = reactor.watch.bind(reactor), forget = reactor.forget.bind(reactor);
    reactor.watch = (fd, events, owner) => {
      const row = watch(fd, events, owner);
      if (row >= 0) worker.watched++;
      return row;
    };
    reactor.forget = (row) => {
      worker.watched--;
      forget(row);
    };
  }

  #takeStages(worker: Worker): void {
    const { buffers } = worker.shard;
    let last = -1;
    for (let stage = buffers.acquireStage(); stage >= 0; stage = buffers.acquireStage()) last = stage;
    buffers.releaseStage(last);
    worker.stagesAway = buffers.stagesTaken;
  }

  #signal(fd: number): void {
    this.workers[0]?.os.signalEvent(fd);
  }

  #wake(worker: number): void {
    this.#signal(this.workers[worker]!.wakeFd);
  }

  // ---- the agent

  /** News of the control plane, which come in order but late. */
  update(delayMs: number, apply: () => void): void {
    const last = this.#updates.at(-1)?.atMs ?? 0;
    this.#updates.push({ atMs: Math.max(last, this.kernel.nowMs + delayMs), apply });
  }

  get settled(): boolean {
    return this.stopped ||
      this.#updates.length === 0 && !this.state.changed && this.writer.canPublish() &&
        this.workers.every((it) => it.settled === this.writer.generation);
  }

  agentStep(): void {
    if (this.stopped) return;
    while (this.#updates.length > 0 && this.#updates[0]!.atMs <= this.kernel.nowMs) this.#updates.shift()!.apply();
    if (this.state.changed && this.writer.canPublish()) {
      const policies = [...this.policies.values()];
      const generation = this.writer.publish(this.state);
      this.policiesAt.set(generation, policies);
      this.policiesAt.delete(generation - 4);
    }
    const words = new Int32Array(REQUEST_WORDS);
    for (const [index, worker] of this.workers.entries()) {
      while (worker.requests.pop(words)) if (words[0] === Request.DONE) this.#podLeft(words[3]!, words[4]!);
      this.#readRecords(worker);
      this.#harvest(index);
    }
  }

  #readRecords(worker: Worker): void {
    for (let record = worker.access.read(); record !== undefined; record = worker.access.read()) {
      if (record.error !== undefined) {
        this.kernel.trace.tell(`${this.kernel.nowMs} node${this.options.index} logs: ${record.error}`);
      }
      if (record.kind !== AccessKind.COMPLETE) continue;
      this.completeRecords++;
      this.#recorded.received += record.receivedBytes;
      this.#recorded.sent += record.sentBytes;
    }
  }

  /** Takes the last counts of flows that a worker retired. */
  #harvest(worker: number): void {
    const flows = this.tables.flows[worker]!;
    for (let row = 0; row < flows.rowCount; row++) {
      if (flows.load(row, FLOW.state) !== FlowState.RETIRED) continue;
      this.#addFlow(worker, row);
      flows.store(row, FLOW.state, FlowState.FREE);
    }
  }

  #addFlow(worker: number, row: number): void {
    const flows = this.tables.flows[worker]!, { totals } = this;
    const label = new TextDecoder().decode(flows.readBytes(row, FLOW.label, flows.get(row, FLOW.labelBytes)));
    const direction = label.startsWith("source") ? Direction.OUTBOUND : Direction.INBOUND;
    totals.opened += flows.getF64(row, FLOW.opened);
    for (let flag = 0; flag < 8; flag++) totals.closed += flows.getF64At(row, FLOW.closed, flag);
    totals.received[direction] += flows.getF64(row, FLOW.receivedBytes);
    totals.sent[direction] += flows.getF64(row, FLOW.sentBytes);
  }

  addPod(pod: SimPod, uri: string): void {
    const { pods, identities } = this.tables;
    let row = 0;
    while (pods.load(row, POD.state) !== PodState.FREE) row++;
    let identity = this.#identities.get(uri);
    if (identity === undefined) {
      identity = { row: acquireIdentity(identities, uri), users: 0, template: undefined };
      this.#identities.set(uri, identity);
    }
    identity.users++;
    const epoch = pods.get(row, POD.epoch) + 1, netnsFd = this.process.open(new NetnsHandle(pod.namespace));
    pods.set(row, POD.epoch, epoch);
    pods.set(row, POD.netnsFd, netnsFd);
    pods.set(row, POD.identityRow, identity.row);
    pods.set(row, POD.flags, this.options.transparent ? PodFlag.TRANSPARENT : 0);
    for (let worker = 0; worker < this.workers.length; worker++) {
      const listen = (port: number) => this.process.open(pod.namespace.listen(port));
      pods.setAt(row, POD.outboundFd, worker, listen(Port.OUTBOUND));
      pods.setAt(row, POD.hboneFd, worker, listen(Port.HBONE));
      pods.setAt(row, POD.plaintextFd, worker, listen(Port.PLAINTEXT));
    }
    pods.store(row, POD.state, PodState.ACTIVE);
    this.#running.push({ pod, row, epoch, netnsFd, uri, waitsFor: 0 });
    this.state.setPod(row, { name: pod.name, namespace: pod.ns, serviceAccount: pod.account });
    this.tell(Command.POD_ADDED, row, epoch);
    if (identity.template !== undefined) this.#announce(identity.row, identity.template);
  }

  removePod(pod: SimPod): void {
    const running = this.#running.find((it) => it.pod === pod);
    if (running === undefined || running.waitsFor > 0 || this.stopped) return;
    this.tables.pods.store(running.row, POD.state, PodState.CLOSING);
    running.waitsFor = this.workers.length;
    this.tell(Command.POD_REMOVED, running.row, running.epoch);
  }

  #podLeft(row: number, epoch: number): void {
    const running = this.#running.find((it) => it.row === row && it.epoch === epoch);
    hold(running !== undefined && running.waitsFor > 0, "a worker reports a pod's end once");
    if (--running.waitsFor > 0) return;
    this.#running.splice(this.#running.indexOf(running), 1);
    const identity = this.#identities.get(running.uri)!;
    if (--identity.users === 0) {
      this.#identities.delete(running.uri);
      releaseIdentity(this.tables.identities, identity.row);
    }
    this.state.removePod(row);
    this.tables.pods.store(row, POD.state, PodState.FREE);
    this.process.forget(running.netnsFd);
  }

  /** Pods that are enrolled, or not yet all gone. */
  get podCount(): number {
    return this.#running.length;
  }

  get identityUris(): readonly string[] {
    return [...this.#identities.keys()];
  }

  certify(uri: string, root: number): void {
    const identity = this.#identities.get(uri);
    if (identity === undefined || this.stopped) return;
    identity.template = this.certificates.issue({ uris: [uri], root });
    this.#announce(identity.row, identity.template);
  }

  giveUpOn(uri: string): void {
    const identity = this.#identities.get(uri);
    if (identity === undefined || identity.template !== undefined || this.stopped) return;
    putFailure(this.tables.identities, identity.row, "signing error: nobody signs");
    this.tell(Command.IDENTITY_CHANGED, identity.row);
  }

  #announce(row: number, { low, high }: ContextHandle): void {
    this.tell(Command.IDENTITY_CHANGED, row, low, high);
  }

  tell(command: number, word1 = 0, word2 = 0, word3 = 0): void {
    for (const { commands } of this.workers) {
      hold(pushWords(commands, command, word1, word2, word3), "a command ring has room");
    }
  }

  // ---- the workers

  /** One turn of a worker, as its entry takes it. */
  turn(index: number): void {
    const worker = this.workers[index]!, { shard } = worker;
    if (this.stopped || !shard.reactor.running) return;
    shard.reactor.turn();
    shard.refresh();
    if (worker.inbox.drained) shard.reactor.running = false;
    for (const pod of shard.pods.values()) worker.identities.add(pod.identity);
    const generation = this.tables.workers.load(index, WORKER.acknowledgedGeneration);
    if (generation !== worker.generation) {
      worker.generation = generation;
      worker.turnsSince = 0;
    } else if (++worker.turnsSince >= SETTLES_TURNS) worker.settled = generation;
    this.#checkWorker(index);
    if (this.workers.every((it) => !it.shard.reactor.running)) this.#exit();
  }

  /** The process ends after a drain: the kernel closes what it held. */
  #exit(): void {
    this.stopped = true;
    this.kernel.trace.tell(`${this.kernel.nowMs} node${this.options.index} has drained and exits`);
    for (const [index, worker] of this.workers.entries()) {
      hold(worker.shard.connectionCount === 0, "a drained worker serves nobody");
      this.#addLast(index);
    }
    this.#checkTotals();
    const { os } = this.workers[0]!;
    for (const [fd, file] of this.process.files.entries()) if (file !== undefined) os.close(fd);
  }

  #checkWorker(index: number): void {
    const worker = this.workers[index]!, { shard, os } = worker;
    hold(this.process.strays === 0, "no descriptor is closed twice");
    hold(os.watchedCount(worker.poll) === worker.watched, "epoll and the reactor watch the same descriptors");
    for (const pod of shard.pods.values()) {
      for (const session of pod.sessions) {
        hold(session.tunnels.size <= 200, "a session has at most as many streams as were announced");
        for (const tunnel of session.tunnels.values()) {
          const kept = HBONE_STREAM_WINDOW_BYTES - tunnel.receiveWindow - tunnel.creditBytes;
          hold(kept >= 0 && tunnel.receiveWindow >= 0, "a stream's bytes stay within its window");
        }
      }
    }
    this.#checkClosing();
    if ((shard.reactor.turns & 15) === 0) this.#checkRows(index);
  }

  /** What was asked to end has ended some turns later. */
  #checkClosing(): void {
    this.#closing = this.#closing.filter(({ worker, row, epoch, turns }) => {
      const { connections, reactor } = this.workers[worker]!.shard;
      const gone = connections.load(row, CONNECTION.state) === ConnectionState.FREE ||
        connections.get(row, CONNECTION.epoch) !== epoch;
      hold(gone || reactor.turns < turns + CLOSING_TURNS_MAX, "a connection ends soon when that is asked for");
      return !gone;
    });
  }

  #checkRows(index: number): void {
    const { connections } = this.workers[index]!.shard;
    let used = 0;
    for (let row = 0; row < connections.rowCount; row++) {
      if (connections.load(row, CONNECTION.state) !== ConnectionState.FREE) used++;
    }
    hold(used === this.workers[index]!.shard.connectionCount, "connection rows and open connections add up");
    hold(this.tables.workers.load(index, WORKER.load) === used, "the load is the number of open connections");
  }

  /** All pods are gone: whatever was held for connections must be back. */
  checkEmpty(): void {
    if (this.stopped) return;
    for (const [index, worker] of this.workers.entries()) {
      const { shard } = worker;
      hold(shard.pods.size === 0 && shard.connectionCount === 0, "no connection outlives its pod");
      this.#checkRows(index);
      hold(shard.buffers.stagesTaken === worker.stagesAway, "all stages are back");
      hold(shard.buffers.chunksTaken === 0, "all chunks are back");
      hold(shard.reactor.timers.setCount === 0, "no timer is left");
      hold(worker.watched === 1, `only the wake-up is watched, not ${worker.watched}`);
      for (const field of [WORKER.upstreamSessions, WORKER.downstreamSessions]) {
        hold(this.tables.workers.getF64(index, field) === 0, "no session is counted");
      }
      this.#addLast(index);
      this.#freeIdentities(worker);
    }
    this.#checkTotals();
    const own = 3 * this.workers.length;
    hold(this.process.openCount === own, `descriptors are back: ${this.process.describe()}`);
    hold(this.certificates.live === 0, `no TLS object is left: ${this.certificates.live}`);
    for (const file of this.process.files) hold(!(file instanceof SimSocket), "no socket is open");
  }

  /** Takes what no flow will change any more. */
  #addLast(index: number): void {
    const flows = this.tables.flows[index]!;
    this.#readRecords(this.workers[index]!);
    this.#harvest(index);
    for (let row = 0; row < flows.rowCount; row++) {
      if (flows.load(row, FLOW.state) !== FlowState.LIVE) continue;
      hold(flows.get(row, FLOW.references) === 0, "no flow is referenced");
      this.#addFlow(index, row);
    }
  }

  #checkTotals(): void {
    const { totals } = this;
    hold(totals.opened === totals.closed, `as many closed as opened: ${totals.opened}, ${totals.closed}`);
    const [received, sent] = [totals.received[0] + totals.received[1], totals.sent[0] + totals.sent[1]];
    hold(received === this.#recorded.received, `received bytes are counted as logged: ${received}`);
    hold(sent === this.#recorded.sent, `sent bytes are counted as logged: ${sent}`);
    hold(totals.closed === this.completeRecords, `a record for each: ${totals.closed}, ${this.completeRecords}`);
  }

  /** Somebody asks for the end of a connection, of whatever there is. */
  requestClose(chance: Chance): void {
    const worker = chance.below(this.workers.length), { connections } = this.workers[worker]!.shard;
    const used = Array.from({ length: connections.rowCount }, (_, row) => row).filter((row) =>
      connections.load(row, CONNECTION.state) !== ConnectionState.FREE
    );
    if (used.length === 0 || this.stopped) return;
    const row = chance.pick(used);
    connections.or(row, CONNECTION.control, CLOSE_REQUESTED);
    this.#closing.push({
      worker,
      row,
      epoch: connections.get(row, CONNECTION.epoch),
      turns: this.workers[worker]!.shard.reactor.turns,
    });
    hold(pushWords(this.workers[worker]!.commands, Command.CLOSE_CONNECTION, row), "a command ring has room");
  }

  /** Sessions that are open. */
  get sessionCount(): number {
    let count = 0;
    for (let worker = 0; worker < this.workers.length; worker++) {
      count += this.tables.workers.getF64(worker, WORKER.upstreamSessions);
      count += this.tables.workers.getF64(worker, WORKER.downstreamSessions);
    }
    return count;
  }

  /** Workers keep an identity for the next pod that has it: the newest of each row. */
  #freeIdentities(worker: Worker): void {
    const kept = new Map([...worker.identities].map((identity) => [identity.row, identity]));
    for (const identity of kept.values()) identity.tls?.free();
  }
}
