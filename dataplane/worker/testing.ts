/** A worker's shards in the test's own thread: real sockets on loopback, real OpenSSL, real tables, a clock that can be moved. */
import { assert } from "../../base/assert.ts";
import type { IpWords } from "../../base/address.ts";
import type { Fd } from "../../os/api.ts";
import { type LeafPem, TestAuthority } from "../../os/certificates_testing.ts";
import { Ring, ringBytes } from "../../base/shm/ring.ts";
import * as libc from "../../os/libc_cold.ts";
import { createTemplate, type OpenSsl } from "../../os/openssl.ts";
import { readRevocationLists, releaseLists, retainLists } from "../../os/revocation_lists.ts";
import { createEventFd, signalEventFd } from "../../os/sockets.ts";
import { AccessReader, type AccessRecord, AccessWriter } from "../tables/access.ts";
import { FlowTable } from "../tables/flows.ts";
import {
  createTables,
  openCommandRing,
  openRequestRing,
  openTables,
  pushWords,
  type Tables,
} from "../tables/handles.ts";
import { acquireIdentity, putContext } from "../tables/identities.ts";
import { Command, CONNECTION, ConnectionState, Direction, FLOW, POD, PodState, WORKER } from "../tables/layout.ts";
import { SnapshotReader } from "../tables/lookup.ts";
import { type Question, QuestionReader, QuestionWriter } from "../tables/questions.ts";
import { SnapshotWriter } from "../tables/publish.ts";
import { SampleMesh, workloadOf } from "../tables/testing.ts";
import { Inbox } from "./commands.ts";
import type { ListenerKind } from "./listener.ts";
import { freshIp, placeOf, Server, Socket, type TestOs } from "./loopback_testing.ts";
import type { Pod } from "./pod.ts";
import { POLL_IN } from "./reactor.ts";
import { HANDOVER_ENTRIES, HANDOVER_WORDS } from "./start.ts";
import { Shard } from "./shard.ts";
import type { ShardOptions } from "./shard_options.ts";
import { Adoption } from "./takeover/read_state.ts";
import { Handover, type TakeoverCounts } from "./takeover/write_state.ts";

export { freshIp, host, Server, Socket } from "./loopback_testing.ts";

const UNTIL_MS = 60_000;
const RESERVED_PORTS = [15001, 15006, 15008];

const NO_LISTS = await readRevocationLists([]);

export const authority: TestAuthority = await TestAuthority.create("mesh");

/** A certificate of the mesh for these names. */
export function issue(...uris: string[]): Promise<LeafPem> {
  return authority.issue(uris);
}

interface RigPod {
  readonly row: number;
  readonly epoch: number;
  readonly worker: number;
}

type RigOptions = Partial<ShardOptions> & { readonly tls12?: boolean };

/** Up to four workers over one set of tables, each with its own reactor; they take turns in this thread. */
export class Rig {
  readonly tables: Tables;
  readonly mesh = new SampleMesh();
  readonly writer: SnapshotWriter;
  readonly shards: Shard[] = [];
  readonly systems: TestOs[] = [];
  readonly #inboxes: Inbox[] = [];
  readonly #commands: Ring[] = [];
  readonly #wakeFds: number[] = [];
  readonly #handovers: Ring[] = [];
  readonly #access: AccessReader[] = [];
  readonly #questions: QuestionReader[] = [];
  readonly #pods: RigPod[] = [];
  readonly #closers: (() => void)[] = [];
  readonly #identityRows = new Map<string, number>();

  /** @param tls12 TLS12_ENABLED. */
  constructor(workers: number, { tls12 = false, ...options }: RigOptions = {}) {
    const sizes = {
      workers,
      pods: 8,
      identities: 8,
      flowsPerWorker: 64,
      connectionsPerWorker: 400,
      snapshotBytes: 1 << 20,
    };
    const handles = createTables(sizes);
    this.tables = openTables(handles);
    this.writer = new SnapshotWriter(this.tables, () => {}, 1);
    for (let worker = 0; worker < workers; worker++) {
      const place = placeOf(worker), { slab, os } = place, tls = tls12 ? place.tls12 : place.tls;
      slab.reset();
      os.aheadMs = 0;
      os.failing = "";
      os.failed = 0;
      os.owned.clear();
      os.strays.length = 0;
      retainLists(NO_LISTS);
      tls.revocation!.use(NO_LISTS.handle);
      const wakeFd = createEventFd();
      this.writer.admit(worker);
      const shared = {
        tables: this.tables,
        flows: new FlowTable(this.tables.flows[worker]!, this.tables.workers, worker),
        access: new AccessWriter(handles, worker),
        view: new SnapshotReader(this.tables, worker),
        questions: new QuestionWriter(handles, worker),
      };
      const shard = new Shard(os, tls, shared, {
        worker,
        network: "",
        packetMark: 0,
        keepalive: false,
        congestionControl: "",
        streamsPerSessionMax: 100,
        responseBaggage: false,
        reservedPorts: RESERVED_PORTS,
        ownPorts: [],
        localhostAppTunnel: true,
        onDemand: false,
        ...options,
      }, () => false);
      const commands = openCommandRing(handles, worker, () => signalEventFd(wakeFd));
      const handover = new SharedArrayBuffer(ringBytes(HANDOVER_ENTRIES, HANDOVER_WORDS));
      const inbox = new Inbox(shard, {
        worker,
        wakeFd,
        commands: openCommandRing(handles, worker),
        requests: openRequestRing(handles, worker),
        handovers: [new Ring(handover, 0, HANDOVER_ENTRIES, HANDOVER_WORDS)],
      });
      this.#handovers.push(new Ring(handover, 0, HANDOVER_ENTRIES, HANDOVER_WORDS, () => signalEventFd(wakeFd)));
      shard.reactor.watch(wakeFd, POLL_IN, inbox);
      this.systems.push(os);
      this.shards.push(shard);
      this.#inboxes.push(inbox);
      this.#commands.push(commands);
      this.#wakeFds.push(wakeFd);
      this.#access.push(new AccessReader(handles, worker));
      this.#questions.push(new QuestionReader(handles, worker));
    }
  }

  /** Gives a worker a connection of a pod, as another worker would. */
  handOver(worker: number, kind: number, pod: { row: number; epoch: number }, fd: Fd): void {
    const ring = this.#handovers[worker]!;
    ring.record.set([kind, pod.row, pod.epoch, this.systems[worker]!.own(fd)]);
    assert(ring.push(), "a worker reads what it is given");
  }

  /** Runs a body with a rig; afterwards nothing may be left over. */
  static async with(
    workers: number,
    body: (rig: Rig) => void | Promise<void>,
    options: RigOptions = {},
  ): Promise<void> {
    const rig = new Rig(workers, options);
    let failed = true;
    try {
      await body(rig);
      failed = false;
    } finally {
      rig.#close(failed);
    }
  }

  /** One turn of every worker. */
  turn(): void {
    for (const shard of this.shards) {
      shard.reactor.turn();
      shard.refresh();
    }
  }

  /** Turns until the condition holds. Fails the test after some seconds. */
  until(what: string, condition: () => boolean): void {
    const deadline = performance.now() + UNTIL_MS;
    while (!condition()) {
      if (performance.now() >= deadline) throw new Error(`not in time: ${what}; ${this.#closed()}`);
      this.turn();
    }
  }

  /** What the workers say of connections that have ended, for a message. */
  #closed(): string {
    const said = this.shards.flatMap((_, worker) =>
      this.records(worker).map(({ error }) => `worker ${worker}: ${error}`)
    );
    return said.length === 0 ? "no connection has ended" : `ended: ${said.slice(-5).join("; ")}`;
  }

  /** Moves every worker's clock, in steps, so that all that was due on the way happens. */
  pass(ms: number, stepMs = 1_000): void {
    for (let left = ms; left > 0; left -= stepMs) {
      for (const os of this.systems) os.aheadMs += Math.min(left, stepMs);
      this.turn();
      this.turn();
    }
  }

  /** Makes the mesh as it stands known to every worker. */
  publish(): void {
    this.until("every worker reads the last snapshot", () => this.writer.canPublish());
    this.writer.publish(this.mesh);
    this.until("every worker reads this snapshot", () => this.writer.canPublish());
  }

  /** Enrols a pod at a worker; listeners by kind are handed over. Its identity, if it is known, has no certificate yet. */
  addPod(worker: number, ip: IpWords, uri: string | undefined, listeners: { [kind in ListenerKind]?: Fd } = {}): Pod {
    const row = this.#pods.length, epoch = row + 1, { pods } = this.tables;
    const identityRow = uri === undefined ? -1 : this.#identityRowOf(uri);
    pods.set(row, POD.epoch, epoch);
    pods.set(row, POD.netnsFd, -1);
    pods.set(row, POD.identityRow, identityRow);
    const who = new TextEncoder().encode("sa.default (pod)");
    pods.set(row, POD.whoBytes, who.length);
    pods.writeBytes(row, POD.who, who);
    for (const [kind, field] of [POD.outboundFd, POD.hboneFd, POD.plaintextFd].entries()) {
      const fd = listeners[kind as ListenerKind];
      pods.setAt(row, field, worker, fd === undefined ? -1 : this.systems[worker]!.own(fd));
    }
    pods.store(row, POD.state, PodState.ACTIVE);
    this.#pods.push({ row, epoch, worker });
    this.mesh.pods.set(row, this.#uidAt(ip));
    this.command(worker, Command.POD_ADDED, row, epoch);
    this.until("the pod is there", () => this.shards[worker]!.pods.has(row));
    return this.shards[worker]!.pods.get(row)!;
  }

  /** It has become known who the pod is. */
  identify(pod: Pod, uri: string): void {
    const { row, epoch, worker } = this.#pods.find((it) => it.row === pod.row)!, before = pod.identity;
    this.tables.pods.set(row, POD.identityRow, this.#identityRowOf(uri));
    this.command(worker, Command.POD_IDENTITY, row, epoch);
    this.until("the pod has its identity", () => pod.identity !== before);
  }

  #identityRowOf(uri: string): number {
    let row = this.#identityRows.get(uri);
    if (row === undefined) this.#identityRows.set(uri, row = acquireIdentity(this.tables.identities, uri));
    return row;
  }

  #uidAt(ip: IpWords): string {
    for (const { resource } of this.mesh.workloads.values()) {
      if (resource.addresses.some((it) => it.join() === ip.join())) return resource.uid;
    }
    return "";
  }

  /** A workload of the mesh, HBONE unless changed. */
  addWorkload(name: string, ip: IpWords, change: Parameters<typeof workloadOf>[1] = {}): void {
    this.mesh.putWorkload(
      workloadOf(`cluster//Pod/default/${name}`, {
        name,
        addresses: [ip],
        tunnelProtocol: 1,
        serviceAccount: name,
        canonicalName: name,
        ...change,
      }),
    );
  }

  /** Gives the pod's identity a certificate. */
  certify(worker: number, pod: Pod, leaf: LeafPem): void {
    const template = createTemplate(leaf), before = pod.identity.tls, { low, high } = template;
    putContext(this.tables.identities, pod.identity.row, high * 0x1_0000_0000 + low, Number.MAX_SAFE_INTEGER);
    this.command(worker, Command.IDENTITY_CHANGED, pod.identity.row, template.low, template.high);
    this.until("the certificate is there", () => pod.identity.tls !== before);
  }

  /** Puts revocation lists in force at a worker, each in DER. */
  async revoke(worker: number, ...ders: Uint8Array<ArrayBuffer>[]): Promise<void> {
    const lists = await readRevocationLists(ders);
    this.enforce(worker, lists);
    await releaseLists(lists);
  }

  /** The same for lists that were read; when it returns, every session has been held against them. */
  enforce(worker: number, lists: typeof NO_LISTS): void {
    retainLists(lists);
    this.command(worker, Command.REVOCATIONS_CHANGED, lists.handle.low | 0, lists.handle.high | 0);
    for (let turn = 0; turn < 3; turn++) this.turn();
  }

  command(worker: number, ...words: Parameters<typeof pushWords> extends [Ring, ...infer Words] ? Words : never): void {
    assert(pushWords(this.#commands[worker]!, ...words), "a command ring has room");
  }

  /** Hands an accepted connection to a worker, as its listener would. */
  take(
    worker: number,
    pod: Pod,
    socket: Socket,
    kind: ListenerKind,
    destination?: { ip: IpWords; port: number },
  ): void {
    const os = this.systems[worker]!;
    os.own(socket.fd);
    if (destination !== undefined) os.destinations.set(socket.fd, destination);
    this.shards[worker]!.take(pod, socket.fd, kind);
  }

  /** A connection of an application in the pod to `destination`, captured. @returns The application's end. */
  capture(worker: number, pod: Pod, kind: ListenerKind, destination: { ip: IpWords; port: number }): Socket {
    const listener = new Server(freshIp());
    const application = Socket.connect(listener.ip, listener.port);
    const captured = listener.accept();
    assert(captured !== undefined, "loopback connects at once");
    listener.close();
    this.atEnd(() => application.close());
    this.take(worker, pod, captured, kind, destination);
    return application;
  }

  /** Access records since the last call. */
  records(worker: number): AccessRecord[] {
    const records: AccessRecord[] = [];
    for (let record = this.#access[worker]!.read(); record !== undefined; record = this.#access[worker]!.read()) {
      records.push(record);
    }
    return records;
  }

  /** What a worker has asked since the last call. */
  questions(worker: number): Question[] {
    const questions: Question[] = [];
    const reader = this.#questions[worker]!;
    for (let question = reader.read(); question !== undefined; question = reader.read()) questions.push(question);
    return questions;
  }

  /** Waits for one question, and answers it. */
  answer(worker: number, respond: (question: Question) => readonly [status: number, ip?: IpWords]): Question {
    let question: Question | undefined;
    this.until("the agent is asked", () => (question = this.#questions[worker]!.read()) !== undefined);
    const [status, ip = [0, 0, 0, 0]] = respond(question!);
    this.command(worker, Command.ANSWER, question!.number, status, ...ip);
    return question!;
  }

  removePod(pod: Pod): void {
    const it = this.#pods.find(({ row }) => row === pod.row)!;
    this.command(it.worker, Command.POD_REMOVED, it.row, it.epoch);
    this.until("the pod is gone", () => !this.shards[it.worker]!.pods.has(it.row));
  }

  /**
   * Hands everything of one worker to another, as a process hands it to its successor. @param pods of `to`, by the row
   * that they have at `from`. @param outcome what the other does: goes on with it, or falls silent.
   */
  takeOver(
    from: number,
    to: number,
    pods: ReadonlyMap<number, Pod>,
    outcome: "taken" | "refused" = "taken",
  ): TakeoverCounts {
    Handover.settle(this.shards[from]!);
    const handover = new Handover(this.shards[from]!), bytes = handover.encode();
    if (outcome === "refused") return handover.counts;
    const [theirs, ours] = [this.systems[from]!, this.systems[to]!];
    const handles = handover.handles.map((fd) => ours.duplicate(fd, theirs));
    const adoption = Adoption.read(this.shards[to]!, bytes, handles, pods);
    assert(typeof adoption !== "string", `the state is taken: ${adoption}`);
    handover.release();
    bytes.fill(0); // Nothing may be borrowed from it.
    adoption.goLive();
    return handover.counts;
  }

  /** Runs at the end, last first. */
  atEnd(close: () => void): void {
    this.#closers.push(close);
  }

  /** What is not back to where it was before any connection; "" when all is. */
  leftovers(worker: number): string {
    const os = this.systems[worker]!, shard = this.shards[worker]!, found: string[] = [];
    const connections = this.tables.connections[worker]!, flows = this.tables.flows[worker]!;
    if (os.owned.size > 1) found.push(`${os.owned.size - 1} descriptors`); // The epoll instance is one.
    if (os.strays.length > 0) found.push(`descriptors closed twice: ${os.strays}`);
    for (let row = 0; row < connections.rowCount; row++) {
      if (connections.load(row, CONNECTION.state) !== ConnectionState.FREE) found.push(`connection row ${row}`);
    }
    for (let row = 0; row < flows.rowCount; row++) {
      if (flows.get(row, FLOW.references) !== 0) found.push(`flow row ${row}`);
    }
    if (shard.buffers.stagesTaken !== 0) found.push(`${shard.buffers.stagesTaken} stages`);
    if (shard.buffers.chunksTaken !== 0) found.push(`${shard.buffers.chunksTaken} chunks`);
    if (shard.reactor.timers.setCount !== 0) found.push(`${shard.reactor.timers.setCount} timers`);
    const watched = shard.revocations.count, issuers = (shard.tls as OpenSsl).revocation!.issuerCount;
    if (watched + issuers !== 0) found.push(`${watched} sessions to be revoked, of ${issuers} issuers`);
    if (shard.connectionCount !== 0) found.push(`load ${shard.connectionCount}`);
    for (const field of [WORKER.upstreamSessions, WORKER.downstreamSessions]) {
      if (this.tables.workers.getF64(worker, field) !== 0) found.push("sessions counted");
    }
    for (const direction of [Direction.OUTBOUND, Direction.INBOUND]) {
      const open = this.tables.workers.getF64At(worker, WORKER.socketsOpen, direction);
      if (open !== 0) found.push(`${open} sockets counted`); // ZT-198
    }
    return found.join(", ");
  }

  #close(failed: boolean): void {
    for (const [worker, os] of this.systems.entries()) {
      os.failing = "";
      for (const { row, epoch } of this.#pods.filter((pod) => pod.worker === worker)) {
        this.command(worker, Command.POD_REMOVED, row, epoch);
      }
    }
    const stays = this.shards.map((shard) => [...shard.pods.values()].map((pod) => pod.identity));
    if (!failed) {
      this.until("pods are gone", () => this.shards.every((shard) => shard.pods.size === 0));
      for (let turn = 0; turn < 3; turn++) this.turn();
    }
    for (const identity of new Set(stays.flat())) identity.tls?.free();
    for (const close of this.#closers.reverse()) close();
    const left = this.systems.map((_, worker) => this.leftovers(worker));
    for (const [worker, os] of this.systems.entries()) {
      for (const fd of os.owned) libc.close(fd);
      os.owned.clear();
      libc.close(this.#wakeFds[worker]!);
    }
    assert(failed || left.every((it) => it === ""), `nothing is left over: ${left.join("; ")}`);
  }
}
