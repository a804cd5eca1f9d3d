/** A node: real workers over the simulated system, and an agent that keeps the real mesh state and publishes it. */
import { Ring, ringBytes } from "../../base/shm/ring.ts";
import { MeshState } from "../../dataplane/agent/state.ts";
import { AccessReader, AccessWriter } from "../../dataplane/tables/access.ts";
import { FlowTable } from "../../dataplane/tables/flows.ts";
import {
  createTables,
  openCommandRing,
  openRequestRing,
  openTables,
  pushWords,
  type Tables,
} from "../../dataplane/tables/handles.ts";
import { acquireIdentity, putContext, putFailure, releaseIdentity } from "../../dataplane/tables/identities.ts";
import { Command, HEADER, POD, PodFlag, PodState, Request, REQUEST_WORDS } from "../../dataplane/tables/layout.ts";
import { SnapshotReader } from "../../dataplane/tables/lookup.ts";
import { QuestionWriter } from "../../dataplane/tables/questions.ts";
import { SnapshotWriter } from "../../dataplane/tables/publish.ts";
import { Inbox } from "../../dataplane/worker/commands.ts";
import { POLL_IN } from "../../dataplane/worker/reactor.ts";
import { Shard } from "../../dataplane/worker/shard.ts";
import { HANDOVER_ENTRIES, HANDOVER_WORDS } from "../../dataplane/worker/start.ts";
import type { ContextHandle } from "../../os/api.ts";
import { type Chance, hold } from "./chance.ts";
import type { SimPod } from "./exchange.ts";
import { type Kernel, type Namespace, Port } from "./kernel.ts";
import { SimMemory } from "./memory.ts";
import { Ledger } from "./ledger.ts";
import type { PolicyFact } from "./policies.ts";
import { SimWorker } from "./sim_worker.ts";
import { Process, SimOs } from "./sim_os.ts";
import { Certificates, SimTls } from "./sim_tls.ts";
import { EventCounter, NetnsHandle, SimSocket } from "./stream.ts";

export const MEMORY_BYTES_MAX = 128 << 20;
const FLOWS = 24;
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
  readonly workers: SimWorker[] = [];
  /** What policies were in force by generation; the oracle. */
  readonly policiesAt = new Map<number, readonly PolicyFact[]>();
  policies: ReadonlyMap<string, PolicyFact> = new Map();
  /** The last of the control plane's versions that has come. */
  policyVersion = 0;
  readonly ledger: Ledger;
  stopped = false;
  /** Told to drain. */
  draining = false;
  readonly #running: RunningPod[] = [];
  readonly #identities = new Map<
    string,
    { readonly row: number; users: number; template: ContextHandle | undefined }
  >();
  /** Whether the control plane has nothing more for us. */
  told: () => boolean = () => true;

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
    const readers = Array.from({ length: options.workers }, (_, worker) => new AccessReader(handles, worker));
    this.ledger = new Ledger(this.tables, readers, (error) => {
      kernel.trace.tell(`${kernel.nowMs} node${options.index} logs: ${error}`);
    });
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
        questions: new QuestionWriter(handles, worker),
      };
      const outgoing = wakeFds.map((_, to) => ring(worker, to));
      const before = this.process.files.length;
      const settings = {
        worker,
        network: "",
        packetMark: 0x539,
        keepalive: false,
        congestionControl: "",
        streamsPerSessionMax: options.streamsPerSessionMax,
        responseBaggage: true,
        localhostAppTunnel: false,
        onDemand: false,
        ownPorts: [],
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
      const made = new SimWorker({
        shard,
        os,
        inbox,
        poll,
        wakeFd: wakeFds[worker]!,
        commands: openCommandRing(handles, worker, () => this.#signal(wakeFds[worker]!)),
        requests: openRequestRing(handles, worker),
        index: worker,
        tables: this.tables,
      });
      if (options.oneStage) made.takeStages();
      shard.reactor.watch(made.wakeFd, POLL_IN, inbox);
      this.workers.push(made);
    }
  }

  #signal(fd: number): void {
    this.workers[0]?.os.signalEvent(fd);
  }

  #wake(worker: number): void {
    this.#signal(this.workers[worker]!.wakeFd);
  }

  // ---- the agent

  get settled(): boolean {
    return this.stopped ||
      this.told() && !this.state.changed && this.writer.canPublish() &&
        this.workers.every((it) => it.settled === this.writer.generation);
  }

  agentStep(): void {
    if (this.stopped) return;
    if (this.state.changed && this.writer.canPublish()) {
      const policies = [...this.policies.values()];
      const generation = this.writer.publish(this.state);
      this.policiesAt.set(generation, policies);
      this.policiesAt.delete(generation - 4);
    }
    const words = new Int32Array(REQUEST_WORDS);
    for (const [index, worker] of this.workers.entries()) {
      while (worker.requests.pop(words)) if (words[0] === Request.DONE) this.#podLeft(words[3]!, words[4]!);
      this.ledger.readRecords(index);
      this.ledger.harvest(index);
    }
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
    putContext(this.tables.identities, row, high * 0x1_0000_0000 + low, Number.MAX_SAFE_INTEGER);
    this.tell(Command.IDENTITY_CHANGED, row, low, high);
  }

  tell(command: number, word1 = 0, word2 = 0, word3 = 0): void {
    for (const { commands } of this.workers) {
      hold(pushWords(commands, command, word1, word2, word3), "a command ring has room");
    }
  }

  // ---- the workers

  /** One turn of a worker. */
  turn(index: number): void {
    const worker = this.workers[index]!;
    if (this.stopped || !worker.shard.reactor.running) return;
    worker.turn();
    if (this.workers.every((it) => !it.shard.reactor.running)) this.#exit();
  }

  /** The process ends after a drain: the kernel closes what it held. */
  #exit(): void {
    this.stopped = true;
    this.kernel.trace.tell(`${this.kernel.nowMs} node${this.options.index} has drained and exits`);
    for (const [index, worker] of this.workers.entries()) {
      hold(worker.shard.connectionCount === 0, "a drained worker serves nobody");
      this.ledger.addLast(index);
    }
    this.ledger.check();
    const { os } = this.workers[0]!;
    for (const [fd, file] of this.process.files.entries()) if (file !== undefined) os.close(fd);
  }

  /** All pods are gone: whatever was held for connections must be back. */
  checkEmpty(): void {
    if (this.stopped) return;
    for (const worker of this.workers) {
      worker.checkEmpty();
      this.ledger.addLast(worker.index);
    }
    this.ledger.check();
    const own = 3 * this.workers.length;
    hold(this.process.openCount === own, `descriptors are back: ${this.process.describe()}`);
    hold(this.certificates.live === 0, `no TLS object is left: ${this.certificates.live}`);
    for (const file of this.process.files) hold(!(file instanceof SimSocket), "no socket is open");
  }

  /** Sessions that are open. */
  get sessionCount(): number {
    return this.workers.reduce((count, worker) => count + worker.sessionCount, 0);
  }

  /** A worker hands everything to a successor, which is itself. @returns Connections that went over. */
  takeOver(chance: Chance): number {
    return this.stopped ? 0 : chance.pick(this.workers).takeOver(chance);
  }

  /** Somebody asks for the end of a connection, of whatever there is. */
  requestClose(chance: Chance): void {
    const worker = chance.pick(this.workers);
    if (!this.stopped) worker.requestClose(chance);
  }
}
