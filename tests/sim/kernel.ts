/** Clock, namespaces and links of the simulated nodes: who reaches whom, how late, and what redirection does to it. */
import type { IpWords } from "../../base/address.ts";
import { type Chance, hold, type Trace } from "./chance.ts";
import { Errno, type SimAddress, SimListener, SimSocket } from "./stream.ts";

export const Port = { OUTBOUND: 15001, PLAINTEXT: 15006, HBONE: 15008 } as const;
const BACKLOG_MAX = 64;
/** Longer than the proxy waits for a connect. */
const SYN_TIMEOUT_MS = 30_000;

/** A pod's network namespace. */
export class Namespace {
  readonly ip: IpWords;
  readonly node: number;
  readonly name: string;
  /** Its traffic is redirected to the proxy. */
  enrolled = false;
  readonly listeners = new Map<number, SimListener[]>();
  #nextPort = 30_000;

  constructor(ip: IpWords, node: number, name: string) {
    this.ip = ip;
    this.node = node;
    this.name = name;
  }

  listen(port: number): SimListener {
    const listener = new SimListener(this, port), others = this.listeners.get(port);
    if (others === undefined) this.listeners.set(port, [listener]);
    else others.push(listener);
    return listener;
  }

  closeListener(listener: SimListener): void {
    listener.open = false;
    const all = this.listeners.get(listener.port)!.filter((it) => it !== listener);
    this.listeners.set(listener.port, all);
    for (const socket of listener.backlog.splice(0)) socket.abort();
  }

  freePort(): number {
    return this.#nextPort++;
  }
}

interface Event {
  readonly atMs: number;
  readonly order: number;
  readonly run: () => void;
}

/** Everything below the proxies. */
export class Kernel {
  readonly chance: Chance;
  readonly trace: Trace;
  nowMs = 5_000;
  /** How often a call is contrary (a short count, a moment too early), in percent. */
  contraryPercent = 0;
  /** Cross-node latency at most. */
  latencyMsMax = 5;
  /** Sockets get buffers of one of these sizes. */
  bufferSizes: readonly number[] = [262_144];
  /** What every buffer has at least, for a calm that gets done. */
  bufferBytesMin = 0;
  /** Sees, and may change, every byte that is sent. */
  onWire: (socket: SimSocket, bytes: Uint8Array) => void = () => {};
  /** Connections between nodes, for faults. */
  readonly crossing = new Set<SimSocket>();
  readonly namespaces = new Map<string, Namespace>();
  /** No bytes pass between two nodes before this time. */
  readonly #cuts = new Map<string, number>();
  /** A node's ports that refuse until this time. */
  readonly refusals = new Map<Namespace, number>();
  readonly #heap: Event[] = [];
  #order = 0;

  constructor(chance: Chance, trace: Trace) {
    this.chance = chance;
    this.trace = trace;
  }

  addNamespace(ip: IpWords, node: number, name: string): Namespace {
    const namespace = new Namespace(ip, node, name);
    this.namespaces.set(ip.join(), namespace);
    return namespace;
  }

  bufferBytes(): number {
    return this.chance.pick(this.bufferSizes);
  }

  contrary(): boolean {
    return this.contraryPercent > 0 && this.chance.often(this.contraryPercent);
  }

  // ---- time

  after(delayMs: number, run: () => void): void {
    this.at(this.nowMs + delayMs, run);
  }

  at(atMs: number, run: () => void): void {
    const heap = this.#heap, event = { atMs, order: this.#order++, run };
    let index = heap.push(event) - 1;
    while (index > 0) {
      const parent = (index - 1) >> 1;
      if (!before(event, heap[parent]!)) break;
      heap[index] = heap[parent]!;
      index = parent;
    }
    heap[index] = event;
  }

  /** Lets time pass, and what is due on the way happen. */
  pass(ms: number): void {
    const untilMs = this.nowMs + ms;
    for (let budget = 1_000_000; this.#heap.length > 0 && this.#heap[0]!.atMs <= untilMs; budget--) {
      hold(budget > 0, "events of one moment come to an end");
      const event = this.#pop();
      if (event.atMs > this.nowMs) this.nowMs = event.atMs;
      event.run();
    }
    this.nowMs = untilMs;
  }

  get quiet(): boolean {
    return this.#heap.length === 0;
  }

  #pop(): Event {
    const heap = this.#heap, top = heap[0]!, last = heap.pop()!;
    if (heap.length === 0) return top;
    let index = 0;
    for (;;) {
      let child = 2 * index + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && before(heap[child + 1]!, heap[child]!)) child++;
      if (!before(heap[child]!, last)) break;
      heap[index] = heap[child]!;
      index = child;
    }
    heap[index] = last;
    return top;
  }

  // ---- links

  latency(from: SimSocket, to: SimSocket | undefined): number {
    if (to === undefined || from.namespace.node === to.namespace.node) return this.chance.below(2) / 2;
    return this.chance.below(this.latencyMsMax * 4 + 1) / 4;
  }

  cut(nodeA: number, nodeB: number, forMs: number): void {
    this.#cuts.set(linkOf(nodeA, nodeB), this.nowMs + forMs);
  }

  cutUntil(from: SimSocket, to: SimSocket): number {
    if (from.namespace.node === to.namespace.node) return 0;
    return this.#cuts.get(linkOf(from.namespace.node, to.namespace.node)) ?? 0;
  }

  heal(): void {
    this.#cuts.clear();
    this.refusals.clear();
  }

  // ---- connections

  /** connect(2) from a namespace. @returns 0 is never returned: -EINPROGRESS, or another -errno. */
  connect(socket: SimSocket, to: SimAddress, source: IpWords | undefined): number {
    const from = socket.namespace, target = this.namespaces.get(to.ip.join());
    socket.state = "connecting";
    socket.local = { ip: source ?? from.ip, port: from.freePort() };
    socket.remote = to;
    socket.servicePort = to.port;
    const captured = !socket.proxy && from.enrolled;
    const place = captured ? from : target;
    if (place === undefined) {
      if (this.chance.often(50)) return -Errno.HOSTUNREACH;
      this.after(SYN_TIMEOUT_MS, () => socket.fail(Errno.TIMEDOUT));
      return -Errno.INPROGRESS;
    }
    const delayMs = place.node === from.node ? this.chance.below(3) / 2 : this.chance.below(this.latencyMsMax * 2 + 1);
    const attempt = () => {
      const healsAtMs = place.node === from.node ? 0 : this.#cuts.get(linkOf(from.node, place.node)) ?? 0;
      if (healsAtMs > this.nowMs) this.at(healsAtMs, attempt);
      else this.#establish(socket, place, to, captured);
    };
    this.after(delayMs, attempt);
    return -Errno.INPROGRESS;
  }

  #establish(socket: SimSocket, place: Namespace, to: SimAddress, captured: boolean): void {
    if (socket.state !== "connecting") return;
    const redirected = !captured && place !== socket.namespace && place.enrolled && to.port !== Port.HBONE;
    const port = captured ? Port.OUTBOUND : redirected ? Port.PLAINTEXT : to.port;
    const refusing = place !== socket.namespace && (this.refusals.get(place) ?? 0) > this.nowMs;
    const listeners = place.listeners.get(port) ?? [];
    const listener = listeners.length > 0 ? this.chance.pick(listeners) : undefined;
    if (refusing || listener === undefined || listener.backlog.length >= BACKLOG_MAX) {
      socket.fail(Errno.CONNREFUSED);
      return;
    }
    const served = port === Port.OUTBOUND || port === Port.PLAINTEXT || port === Port.HBONE;
    const accepted = new SimSocket(this, place, served);
    accepted.state = socket.state = "open";
    accepted.peer = socket;
    socket.peer = accepted;
    accepted.local = captured ? { ip: [0, 0, 0xffff, 0x7f000001], port } : to;
    accepted.remote = socket.local;
    accepted.servicePort = to.port;
    if (captured) accepted.original = to;
    if (place.node !== socket.namespace.node) this.crossing.add(socket);
    listener.backlog.push(accepted);
    listener.changed();
    socket.changed();
  }
}

function before(one: Event, other: Event): boolean {
  return one.atMs < other.atMs || (one.atMs === other.atMs && one.order < other.order);
}

function linkOf(nodeA: number, nodeB: number): string {
  return nodeA < nodeB ? `${nodeA}-${nodeB}` : `${nodeB}-${nodeA}`;
}
