/** A worker's shards in the test's own thread: real sockets on loopback, real OpenSSL, real tables, a clock that can be moved. */
import { assert } from "../../base/assert.ts";
import type { IpWords } from "../../base/address.ts";
import type { Ring } from "../../base/shm/ring.ts";
import type { Fd, Memory } from "../../os/api.ts";
import { Arena } from "../../os/arena.ts";
import { type LeafPem, TestAuthority } from "../../os/certificates_testing.ts";
import { LinuxOs } from "../../os/libc.ts";
import * as libc from "../../os/libc_cold.ts";
import { createTemplate, OpenSsl } from "../../os/openssl.ts";
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
import { acquireIdentity } from "../tables/identities.ts";
import { Command, CONNECTION, ConnectionState, FLOW, POD, PodState, WORKER } from "../tables/layout.ts";
import { SnapshotReader } from "../tables/lookup.ts";
import { SnapshotWriter } from "../tables/publish.ts";
import { ipv4, SampleMesh, workloadOf } from "../tables/testing.ts";
import { Inbox } from "./commands.ts";
import type { ListenerKind } from "./listener.ts";
import type { Pod } from "./pod.ts";
import { POLL_IN } from "./reactor.ts";
import { Shard, type ShardOptions } from "./shard.ts";

const SLAB_BYTES = 54 << 20; // All stages of a worker, and what it receives into.
const SLABS = 2;
const UNTIL_MS = 8_000;
const RESERVED_PORTS = [15001, 15006, 15008];

/** A part of the arena that is used again by the next test. */
class Slab implements Memory {
  readonly base: number;
  readonly sizeBytes: number;
  readonly u8: Uint8Array<ArrayBuffer>;
  readonly i32: Int32Array<ArrayBuffer>;
  readonly u32: Uint32Array<ArrayBuffer>;
  readonly view: DataView<ArrayBuffer>;
  #used = 0;
  #kept = 0;

  constructor(arena: Arena, sizeBytes: number) {
    const at = arena.allocate(sizeBytes, 4096), buffer = arena.u8.buffer;
    this.base = arena.base + at;
    this.sizeBytes = sizeBytes;
    this.u8 = new Uint8Array(buffer, at, sizeBytes);
    this.i32 = new Int32Array(buffer, at, sizeBytes >> 2);
    this.u32 = new Uint32Array(buffer, at, sizeBytes >> 2);
    this.view = new DataView(buffer, at, sizeBytes);
  }

  allocate(bytes: number, alignment = 64): number {
    const offset = (this.#used + alignment - 1) & -alignment;
    assert(offset + bytes <= this.sizeBytes, "a test's slab holds what its shard asks for");
    this.#used = offset + bytes;
    return offset;
  }

  /** What is allocated so far stays. */
  keep(): void {
    this.#kept = this.#used;
  }

  /** Forgets all that was not kept. */
  reset(): void {
    this.#used = this.#kept;
  }
}

/** Calls that a test may let fail, and what a kernel would answer then. */
export const FAILURES: Readonly<Record<string, number>> = {
  receive: 104, // ECONNRESET
  receiveVector: 104,
  send: 32, // EPIPE
  sendVector: 32,
  accept: 24, // EMFILE
  peerAddress: 107, // ENOTCONN
  localAddress: 107,
  openStream: 24,
  connect: 101, // ENETUNREACH
  socketError: 111, // ECONNREFUSED
  shutdownWrite: 107,
  pollAdd: 28, // ENOSPC
};

/** The real system, with a movable clock, short waits, a register of descriptors, and calls that fail on demand. */
export class TestOs extends LinuxOs {
  /** What the clock is ahead of the real one. */
  aheadMs = 0;
  /** Descriptors that the shard owns. */
  readonly owned = new Set<Fd>();
  /** Descriptors that were closed without being owned: closed twice, or somebody else's. */
  readonly strays: Fd[] = [];
  /** What SO_ORIGINAL_DST says of a descriptor. */
  readonly destinations = new Map<Fd, { ip: IpWords; port: number }>();
  /** Which call fails, and how many of its kind go well before; counts down. */
  failing = "";
  failsIn = 0;
  failed = 0;

  #fails(name: string): boolean {
    if (this.failing !== name || this.failsIn-- > 0) return false;
    this.failing = "";
    this.failed++;
    return true;
  }

  override receive(fd: Fd, address: number, bytes: number): number {
    return this.#fails("receive") ? -FAILURES["receive"]! : super.receive(fd, address, bytes);
  }
  override receiveVector(fd: Fd, iovecs: number, count: number): number {
    return this.#fails("receiveVector") ? -FAILURES["receiveVector"]! : super.receiveVector(fd, iovecs, count);
  }
  override send(fd: Fd, address: number, bytes: number): number {
    return this.#fails("send") ? -FAILURES["send"]! : super.send(fd, address, bytes);
  }
  override sendVector(fd: Fd, iovecs: number, count: number): number {
    return this.#fails("sendVector") ? -FAILURES["sendVector"]! : super.sendVector(fd, iovecs, count);
  }
  override accept(listener: Fd): number {
    if (this.#fails("accept")) return -FAILURES["accept"]!;
    return this.#own(super.accept(listener));
  }
  override peerAddress(fd: Fd): number {
    return this.#fails("peerAddress") ? -FAILURES["peerAddress"]! : super.peerAddress(fd);
  }
  override localAddress(fd: Fd): number {
    return this.#fails("localAddress") ? -FAILURES["localAddress"]! : super.localAddress(fd);
  }
  override originalDestination(fd: Fd): number {
    const told = this.destinations.get(fd);
    if (told === undefined) return -92; // ENOPROTOOPT: nothing redirected it.
    this.addressWords.set([...told.ip, told.port]);
    return 0;
  }
  override openStream(ipv6: boolean, mark: number, keepalive: boolean): number {
    if (this.#fails("openStream")) return -FAILURES["openStream"]!;
    return this.#own(super.openStream(ipv6, mark, keepalive));
  }
  override connect(fd: Fd, word0: number, word1: number, word2: number, word3: number, port: number): number {
    return this.#fails("connect") ? -FAILURES["connect"]! : super.connect(fd, word0, word1, word2, word3, port);
  }
  override socketError(fd: Fd): number {
    return this.#fails("socketError") ? -FAILURES["socketError"]! : super.socketError(fd);
  }
  override shutdownWrite(fd: Fd): number {
    return this.#fails("shutdownWrite") ? -FAILURES["shutdownWrite"]! : super.shutdownWrite(fd);
  }
  override pollCreate(): number {
    return this.#own(super.pollCreate());
  }
  override pollAdd(poll: Fd, fd: Fd, events: number, row: number): number {
    return this.#fails("pollAdd") ? -FAILURES["pollAdd"]! : super.pollAdd(poll, fd, events, row);
  }
  override close(fd: Fd): number {
    if (!this.owned.delete(fd)) this.strays.push(fd);
    this.destinations.delete(fd);
    return super.close(fd);
  }
  override wait(poll: Fd, events: number, eventsMax: number, timeoutMs: number): number {
    return super.wait(poll, events, eventsMax, timeoutMs > 1 ? 1 : timeoutMs);
  }
  override nowMs(): number {
    return super.nowMs() + this.aheadMs;
  }

  /** The shard owns this descriptor from now on. */
  own(fd: Fd): Fd {
    return this.#own(fd);
  }

  #own(fd: number): number {
    if (fd >= 0) this.owned.add(fd);
    return fd;
  }
}

const arena = new Arena(SLAB_BYTES * SLABS + (2 << 20), { hugePages: false });
/** The test's own system calls. */
export const host = new LinuxOs(arena);
/** For tests that seal and open records themselves. */
export const hostTls = new OpenSsl(arena);
export const hostMemory: Memory = arena;
const places = Array.from({ length: SLABS }, () => {
  const slab = new Slab(arena, SLAB_BYTES);
  const os = new TestOs(slab), tls = new OpenSsl(slab);
  slab.keep();
  return { slab, os, tls };
});
export const authority: TestAuthority = await TestAuthority.create("mesh");

let nextNet = Math.floor(Math.random() * 60_000);

/** An address of loopback that nobody else in this process uses. */
export function freshIp(): IpWords {
  nextNet = (nextNet + 1) % 65_000;
  const own = crypto.getRandomValues(new Uint8Array(1))[0]! % 120;
  return ipv4((127 << 24) + ((100 + own) << 16) + nextNet + 256);
}

/** The 16 bytes of struct sockaddr_in. */
function sockaddr(ip: IpWords, port: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(16), view = new DataView(bytes.buffer);
  bytes[0] = libc.AF.INET;
  view.setUint16(2, port);
  view.setUint32(4, ip[3]);
  return bytes;
}

/** A listening socket of the test's. Close it. */
export class Server {
  readonly fd: Fd;
  readonly ip: IpWords;
  readonly port: number;
  #closed = false;

  constructor(ip: IpWords, port = 0, backlog = 128) {
    this.ip = ip;
    this.fd = libc.socket(libc.AF.INET, libc.SOCK.STREAM | libc.SOCK.NONBLOCK, 0);
    libc.setSocketFlag(this.fd, 1, 2, 1); // SO_REUSEADDR
    assert(libc.bind(this.fd, sockaddr(ip, port)) === 0, "the test's address is free");
    assert(libc.listen(this.fd, backlog) === 0, "the test may listen");
    host.localAddress(this.fd);
    this.port = host.addressWords[4]!;
  }

  /** A connection that has come, or undefined. */
  accept(): Socket | undefined {
    const fd = libc.accept(this.fd);
    return fd < 0 ? undefined : new Socket(fd);
  }

  close(): void {
    if (!this.#closed) libc.close(this.fd);
    this.#closed = true;
  }
}

const CHUNK_BYTES = 262_144;

/** A stream socket of the test's, never waiting. Close or abort it. */
export class Socket {
  readonly fd: Fd;
  /** The other side's direction has ended in order. */
  ended = false;
  /** An errno that a call met, 0 for none. */
  error = 0;
  receivedBytes = 0;
  #closed = false;

  constructor(fd: Fd) {
    this.fd = fd;
    libc.setSocketFlag(fd, 6, 1, 1); // TCP_NODELAY: what a test writes comes in its next turn.
  }

  static connect(ip: IpWords, port: number): Socket {
    const fd = libc.socket(libc.AF.INET, libc.SOCK.STREAM | libc.SOCK.NONBLOCK, 0);
    const outcome = libc.connect(fd, sockaddr(ip, port));
    assert(outcome === 0 || outcome === -115, `loopback connects: ${outcome}`);
    return new Socket(fd);
  }

  /** @returns Bytes that the kernel took. */
  write(bytes: Uint8Array<ArrayBuffer>): number {
    const sent = libc.send(this.fd, bytes);
    if (sent >= 0) return sent;
    if (sent !== -11) this.error = -sent;
    return 0;
  }

  /** What has come; empty if nothing has. */
  read(bytesMax = CHUNK_BYTES): Uint8Array<ArrayBuffer> {
    const target = new Uint8Array(bytesMax);
    const got = libc.receive(this.fd, target);
    if (got === 0) this.ended = true;
    else if (got < 0 && got !== -11) this.error = -got;
    if (got <= 0) return new Uint8Array(0);
    this.receivedBytes += got;
    return target.slice(0, got);
  }

  finish(): void {
    host.shutdownWrite(this.fd);
  }
  close(): void {
    if (!this.#closed) libc.close(this.fd);
    this.#closed = true;
  }
  /** Closes with a reset. */
  abort(): void {
    if (!this.#closed) host.abort(this.fd);
    this.#closed = true;
  }
}

/** A certificate of the mesh for these names. */
export function issue(...uris: string[]): Promise<LeafPem> {
  return authority.issue(uris);
}

interface RigPod {
  readonly row: number;
  readonly epoch: number;
  readonly worker: number;
  readonly identityRow: number;
}

/** Up to two workers over one set of tables, each with its own reactor; they take turns in this thread. */
export class Rig {
  readonly tables: Tables;
  readonly mesh = new SampleMesh();
  readonly writer: SnapshotWriter;
  readonly shards: Shard[] = [];
  readonly systems: TestOs[] = [];
  readonly #inboxes: Inbox[] = [];
  readonly #commands: Ring[] = [];
  readonly #wakeFds: number[] = [];
  readonly #access: AccessReader[] = [];
  readonly #pods: RigPod[] = [];
  readonly #closers: (() => void)[] = [];
  readonly #identityRows = new Map<string, number>();

  constructor(workers: number, options: Partial<ShardOptions> = {}) {
    const sizes = {
      workers,
      pods: 8,
      identities: 8,
      flowsPerWorker: 64,
      connectionsPerWorker: 300,
      snapshotBytes: 1 << 20,
    };
    const handles = createTables(sizes);
    this.tables = openTables(handles);
    this.writer = new SnapshotWriter(this.tables, () => {}, 1);
    for (let worker = 0; worker < workers; worker++) {
      const { slab, os, tls } = places[worker]!;
      slab.reset();
      os.aheadMs = 0;
      os.failing = "";
      os.failed = 0;
      os.owned.clear();
      os.strays.length = 0;
      const wakeFd = createEventFd();
      this.writer.admit(worker);
      const shared = {
        tables: this.tables,
        flows: new FlowTable(this.tables.flows[worker]!, this.tables.workers, worker),
        access: new AccessWriter(handles, worker),
        view: new SnapshotReader(this.tables, worker),
      };
      const shard = new Shard(os, tls, shared, {
        worker,
        network: "",
        packetMark: 0,
        keepalive: false,
        streamsPerSessionMax: 100,
        responseBaggage: false,
        reservedPorts: RESERVED_PORTS,
        ...options,
      }, () => false);
      const commands = openCommandRing(handles, worker, () => signalEventFd(wakeFd));
      const inbox = new Inbox(shard, {
        worker,
        wakeFd,
        commands: openCommandRing(handles, worker),
        requests: openRequestRing(handles, worker),
        handovers: [],
      });
      shard.reactor.watch(wakeFd, POLL_IN, inbox);
      this.systems.push(os);
      this.shards.push(shard);
      this.#inboxes.push(inbox);
      this.#commands.push(commands);
      this.#wakeFds.push(wakeFd);
      this.#access.push(new AccessReader(handles, worker));
    }
  }

  /** Runs a body with a rig; afterwards nothing may be left over. */
  static async with(
    workers: number,
    body: (rig: Rig) => void | Promise<void>,
    options: Partial<ShardOptions> = {},
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
      assert(performance.now() < deadline, `it came in time that ${what}`);
      this.turn();
    }
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

  /** Enrols a pod at a worker; listeners by kind are handed over. Its identity has no certificate yet. */
  addPod(worker: number, ip: IpWords, uri: string, listeners: { [kind in ListenerKind]?: Fd } = {}): Pod {
    const row = this.#pods.length, epoch = row + 1, { pods, identities } = this.tables;
    let identityRow = this.#identityRows.get(uri);
    if (identityRow === undefined) this.#identityRows.set(uri, identityRow = acquireIdentity(identities, uri));
    pods.set(row, POD.epoch, epoch);
    pods.set(row, POD.netnsFd, -1);
    pods.set(row, POD.identityRow, identityRow);
    for (const [kind, field] of [POD.outboundFd, POD.hboneFd, POD.plaintextFd].entries()) {
      const fd = listeners[kind as ListenerKind];
      pods.setAt(row, field, worker, fd === undefined ? -1 : this.systems[worker]!.own(fd));
    }
    pods.store(row, POD.state, PodState.ACTIVE);
    this.#pods.push({ row, epoch, worker, identityRow });
    this.mesh.pods.set(row, this.#uidAt(ip));
    this.command(worker, Command.POD_ADDED, row, epoch);
    this.until("the pod is there", () => this.shards[worker]!.pods.has(row));
    return this.shards[worker]!.pods.get(row)!;
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
    const template = createTemplate(leaf), before = pod.identity.tls;
    this.command(worker, Command.IDENTITY_CHANGED, pod.identity.row, template.low, template.high);
    this.until("the certificate is there", () => pod.identity.tls !== before);
  }

  command(worker: number, ...words: [number, number?, number?, number?]): void {
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

  removePod(pod: Pod): void {
    const it = this.#pods.find(({ row }) => row === pod.row)!;
    this.command(it.worker, Command.POD_REMOVED, it.row, it.epoch);
    this.until("the pod is gone", () => !this.shards[it.worker]!.pods.has(it.row));
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
    if (shard.reactor.timers.setCount !== 0) found.push(`${shard.reactor.timers.setCount} timers`);
    if (shard.connectionCount !== 0) found.push(`load ${shard.connectionCount}`);
    for (const field of [WORKER.upstreamSessions, WORKER.downstreamSessions]) {
      if (this.tables.workers.getF64(worker, field) !== 0) found.push("sessions counted");
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
