/** System calls of one worker over the simulated kernel: a descriptor table as a process has it, and epoll with its edges. */
import type { Fd, Os } from "../../os/api.ts";
import type { IpWords } from "../../base/address.ts";
import { POLL_ERROR, POLL_HANGUP } from "../../dataplane/worker/reactor.ts";
import { hold } from "./chance.ts";
import type { Kernel, Namespace } from "./kernel.ts";
import type { SimMemory } from "./memory.ts";
import { Errno, EventCounter, NetnsHandle, type SimAddress, SimFile, SimListener, SimSocket } from "./stream.ts";

const POLL_EDGE = 0x80000000 | 0;

interface Registration {
  readonly fd: Fd;
  readonly file: SimFile;
  readonly events: number;
  readonly row: number;
  readonly watcher: () => void;
  pending: boolean;
}

/** An epoll instance. */
class SimPoll extends SimFile {
  readonly registrations = new Map<Fd, Registration>();
  pending: Registration[] = [];

  override readiness(): number {
    return 0;
  }

  add(fd: Fd, file: SimFile, events: number, row: number): void {
    const mark = () => {
      if (registration.pending) return;
      registration.pending = true;
      this.pending.push(registration);
    };
    const registration: Registration = { fd, file, events, row, watcher: mark, pending: false };
    this.registrations.set(fd, registration);
    file.watchers.push(mark);
    if (file.readiness() !== 0) mark();
  }

  remove(fd: Fd): void {
    const registration = this.registrations.get(fd);
    if (registration === undefined) return;
    this.registrations.delete(fd);
    this.pending = this.pending.filter((it) => it !== registration);
    const { watchers } = registration.file;
    watchers.splice(watchers.indexOf(registration.watcher), 1);
  }
}

/** A node's process: workers share its descriptors. */
export class Process {
  readonly files: (SimFile | undefined)[] = [undefined, undefined, undefined];
  /** accept(2) and socket(2) fail: no descriptors left. */
  exhausted = false;
  /** Descriptors that were closed without being open. */
  strays = 0;

  /** The lowest free number, as the kernel gives it. */
  open(file: SimFile): Fd {
    for (let fd = 3; fd < this.files.length; fd++) {
      if (this.files[fd] !== undefined) continue;
      this.files[fd] = file;
      return fd;
    }
    return this.files.push(file) - 1;
  }

  /** Another descriptor of the same file, as a successor gets it. */
  duplicate(fd: Fd): Fd {
    const file = this.files[fd];
    hold(file !== undefined, "only what is open is handed over");
    file.duplicates++;
    return this.open(file);
  }

  /** Descriptors that are open. */
  get openCount(): number {
    return this.files.reduce((count, file) => file === undefined ? count : count + 1, 0);
  }

  /** What the open descriptors are, for a failure's text. */
  describe(): string {
    return this.files.flatMap((file, fd) => {
      if (file === undefined) return [];
      const state = file instanceof SimSocket ? ` ${file.state} to port ${file.servicePort}` : "";
      return [`${fd}: ${file.constructor.name}${state}`];
    }).join(", ");
  }

  /** Takes a file out of the table and of every epoll instance. */
  forget(fd: Fd): SimFile | undefined {
    const file = this.files[fd];
    if (file === undefined) {
      this.strays++;
      return undefined;
    }
    this.files[fd] = undefined;
    for (const other of this.files) {
      if (!(other instanceof SimPoll)) continue;
      hold(
        file.duplicates === 0 || !other.registrations.has(fd),
        "epoll is told of what lives on by another descriptor",
      );
      other.remove(fd);
    }
    return file;
  }
}

/** What the simulation may spoil on purpose, to see that it notices. */
export interface Sabotage {
  /** Bytes that were received or are to be sent, to be changed in place; the count that is reported. */
  received?: (socket: SimSocket, bytes: Uint8Array) => number;
  /** A close that does not happen. */
  keepsOpen?: (file: SimFile) => boolean;
  /** An event that epoll does not tell. */
  losesEvent?: (file: SimFile) => boolean;
}

export class SimOs implements Os {
  readonly memory: SimMemory;
  readonly addressWords = new Uint32Array(5);
  readonly kernel: Kernel;
  readonly process: Process;
  readonly home: Namespace;
  namespace: Namespace;
  sabotage: Sabotage = {};
  /** Runs before bytes go to a socket: the policy check listens here. */
  onSend: (socket: SimSocket) => void = () => {};
  readonly #ownNetns: Fd;
  readonly #bound = new Map<SimSocket, IpWords>();

  constructor(kernel: Kernel, process: Process, memory: SimMemory, home: Namespace) {
    this.kernel = kernel;
    this.process = process;
    this.memory = memory;
    this.home = home;
    this.namespace = home;
    this.#ownNetns = process.open(new NetnsHandle(home));
  }

  #socket(fd: Fd): SimSocket {
    const file = this.process.files[fd];
    hold(file instanceof SimSocket, `descriptor ${fd} is a socket when it is used as one`);
    return file;
  }

  receive(fd: Fd, address: number, bytes: number): number {
    const socket = this.#socket(fd), at = this.memory.offsetOf(address, bytes);
    let got = socket.receive(this.memory.u8, at, bytes);
    if (got > 0 && this.sabotage.received !== undefined) {
      got = this.sabotage.received(socket, this.memory.u8.subarray(at, at + got));
    }
    this.kernel.trace.note(1, socket.serial, got);
    return got;
  }

  receiveVector(fd: Fd, iovecs: number, count: number): number {
    const socket = this.#socket(fd), { u32 } = this.memory;
    let total = 0;
    const first = this.memory.offsetOf(iovecs, count * 16) >> 2;
    for (let index = 0; index < count; index++) {
      const length = u32[first + 4 * index + 2]!;
      const at = this.memory.offsetOf(u32[first + 4 * index]!, length);
      if (total > 0 && socket.incoming.arrived === 0) break;
      const got = socket.receive(this.memory.u8, at, length);
      if (got <= 0) {
        if (total === 0) total = got;
        break;
      }
      total += got;
      if (got < length) break;
    }
    this.kernel.trace.note(2, socket.serial, total);
    return total;
  }

  send(fd: Fd, address: number, bytes: number): number {
    const socket = this.#socket(fd), at = this.memory.offsetOf(address, bytes);
    this.onSend(socket);
    const sent = socket.send(this.memory.u8.subarray(at, at + bytes));
    this.kernel.trace.note(3, socket.serial, sent);
    return sent;
  }

  sendVector(fd: Fd, iovecs: number, count: number): number {
    const socket = this.#socket(fd), { u32 } = this.memory, first = this.memory.offsetOf(iovecs, count * 16) >> 2;
    this.onSend(socket);
    let total = 0;
    for (let index = 0; index < count; index++) {
      const length = u32[first + 4 * index + 2]!;
      const at = this.memory.offsetOf(u32[first + 4 * index]!, length);
      const sent = socket.send(this.memory.u8.subarray(at, at + length));
      if (sent < 0) {
        if (total === 0) total = sent;
        break;
      }
      total += sent;
      if (sent < length) break;
    }
    this.kernel.trace.note(4, socket.serial, total);
    return total;
  }

  accept(listener: Fd): number {
    const file = this.process.files[listener];
    hold(file instanceof SimListener, "accept(2) is asked of a listener");
    if (this.process.exhausted) return -Errno.MFILE;
    const socket = file.backlog.shift();
    if (socket === undefined) return -Errno.AGAIN;
    this.#setAddress(socket.remote);
    return this.process.open(socket);
  }

  #setAddress({ ip, port }: SimAddress): void {
    for (let at = 0; at < 4; at++) this.addressWords[at] = ip[at]!;
    this.addressWords[4] = port;
  }

  originalDestination(fd: Fd): number {
    const { original } = this.#socket(fd);
    if (original === undefined) return -Errno.NOENT;
    this.#setAddress(original);
    return 0;
  }

  /** Nothing is redirected by eBPF in the simulation. */
  redirectedDestination(): number {
    return -Errno.NOENT;
  }

  localAddress(fd: Fd): number {
    this.#setAddress(this.#socket(fd).local);
    return 0;
  }

  peerAddress(fd: Fd): number {
    const socket = this.#socket(fd);
    if (socket.state !== "open" || socket.broken) return -Errno.NOTCONN;
    this.#setAddress(socket.remote);
    return 0;
  }

  openStream(_ipv6: boolean, _mark: number, _keepalive: boolean): number {
    if (this.process.exhausted) return -Errno.MFILE;
    return this.process.open(new SimSocket(this.kernel, this.namespace, true));
  }

  openPair(): number {
    if (this.process.exhausted) return -Errno.MFILE;
    const [one, other] = SimSocket.pair(this.kernel, this.namespace);
    this.addressWords[0] = this.process.open(other);
    return this.process.open(one);
  }

  bindSource(fd: Fd, word0: number, word1: number, word2: number, word3: number): number {
    this.#bound.set(this.#socket(fd), [word0, word1, word2, word3]);
    return 0;
  }

  bindLooped(fd: Fd, word0: number, word1: number, word2: number, word3: number, _port: number): number {
    return this.bindSource(fd, word0, word1, word2, word3);
  }

  connect(fd: Fd, word0: number, word1: number, word2: number, word3: number, port: number): number {
    const socket = this.#socket(fd), source = this.#bound.get(socket);
    this.#bound.delete(socket);
    return this.kernel.connect(socket, { ip: [word0, word1, word2, word3], port }, source);
  }

  socketError(fd: Fd): number {
    const socket = this.#socket(fd), error = socket.error;
    socket.error = 0;
    return -error;
  }

  setCongestionControl(fd: Fd, _name: string): number {
    this.#socket(fd);
    return 0;
  }

  shutdownWrite(fd: Fd): number {
    return this.#socket(fd).shutdownWrite();
  }

  close(fd: Fd): number {
    return this.#close(fd, (socket) => socket.close());
  }

  abort(fd: Fd): number {
    return this.#close(fd, (socket) => socket.abort());
  }

  #close(fd: Fd, end: (socket: SimSocket) => void): number {
    const open = this.process.files[fd];
    if (open !== undefined && this.sabotage.keepsOpen?.(open) === true) return 0;
    const file = this.process.forget(fd);
    if (file === undefined) return -Errno.BADF;
    if (file.duplicates > 0) {
      file.duplicates--;
      return 0;
    }
    if (file instanceof SimSocket) {
      this.kernel.trace.note(5, file.serial, 0);
      end(file);
    } else if (file instanceof SimListener) file.namespace.closeListener(file);
    return 0;
  }

  drainEvent(fd: Fd): void {
    (this.process.files[fd] as EventCounter).count = 0;
  }

  signalEvent(fd: Fd): void {
    const file = this.process.files[fd];
    if (!(file instanceof EventCounter)) return;
    file.count++;
    file.changed();
  }

  enterNetns(netns: Fd): number {
    const file = this.process.files[netns];
    if (!(file instanceof NetnsHandle)) return -Errno.BADF;
    this.namespace = file.namespace;
    return 0;
  }

  ownNetns(): number {
    return this.#ownNetns;
  }

  pollCreate(): number {
    return this.process.open(new SimPoll());
  }

  #poll(fd: Fd): SimPoll {
    return this.process.files[fd] as SimPoll;
  }

  pollAdd(poll: Fd, fd: Fd, events: number, row: number): number {
    const file = this.process.files[fd];
    hold(file !== undefined && !this.#poll(poll).registrations.has(fd), "epoll is given an open descriptor, once");
    if (this.process.exhausted && this.kernel.chance.often(30)) return -Errno.NOSPC;
    this.#poll(poll).add(fd, file, events, row);
    return 0;
  }

  pollChange(poll: Fd, fd: Fd, events: number, row: number): number {
    const file = this.process.files[fd];
    hold(file !== undefined && this.#poll(poll).registrations.has(fd), "epoll changes what it watches");
    this.#poll(poll).remove(fd);
    this.#poll(poll).add(fd, file, events, row);
    return 0;
  }

  pollRemove(poll: Fd, fd: Fd): number {
    hold(this.#poll(poll).registrations.has(fd), "epoll forgets what it watches");
    this.#poll(poll).remove(fd);
    return 0;
  }

  wait(poll: Fd, events: number, eventsMax: number, _timeoutMs: number): number {
    const epoll = this.#poll(poll), { chance } = this.kernel, { i32 } = this.memory;
    const at = this.memory.offsetOf(events, eventsMax * 12) >> 2;
    if (this.kernel.contrary()) chance.shuffle(epoll.pending);
    if (this.kernel.contrary() && epoll.registrations.size > 0) { // A spurious event, as a dropped segment makes it.
      chance.pick([...epoll.registrations.values()]).watcher();
    }
    const some = this.kernel.contrary() ? chance.between(1, 3) : eventsMax;
    const still: Registration[] = [];
    let count = 0;
    for (const registration of epoll.pending) {
      if (count === some) {
        still.push(registration);
        continue;
      }
      const { file, row } = registration, mask = file.readiness();
      const told = mask & (registration.events | POLL_ERROR | POLL_HANGUP);
      const edge = (registration.events & POLL_EDGE) !== 0;
      if (told !== 0 && this.sabotage.losesEvent?.(file) !== true) {
        i32[at + 3 * count] = told;
        i32[at + 3 * count + 1] = row;
        i32[at + 3 * count + 2] = 0;
        count++;
      }
      if (told !== 0 && !edge) still.push(registration);
      else registration.pending = false;
    }
    epoll.pending = still;
    this.kernel.trace.note(6, poll, count);
    return count;
  }

  /** What epoll watches: the wake-up and listeners, when nothing is open. */
  watchedCount(poll: Fd): number {
    return this.#poll(poll).registrations.size;
  }

  nowMs(): number {
    return this.kernel.nowMs;
  }

  unixOffsetMs(): number {
    return 1_700_000_000_000;
  }

  random32(): number {
    return this.kernel.chance.bits();
  }
}
