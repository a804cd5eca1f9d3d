/** An application's connection to another, with its two ends: who sends how much, how fast, and what each has got. */
import type { IpWords } from "../../base/address.ts";
import { type Chance, hold } from "./chance.ts";
import type { Namespace } from "./kernel.ts";
import { Errno, SimSocket } from "./stream.ts";

/** What begins every 64th byte of a stream; nowhere else are these eight seen together. */
export const MARK = Uint8Array.of(0xa7, 0x5d, 0x1c, 0xe8, 0x93, 0x46, 0xfb, 0x20);
const MARK_EVERY = 64;
export const PREAMBLE_BYTES = 8;

function byteAt(key: number, at: number): number {
  const place = at & (MARK_EVERY - 1);
  if (place < MARK.length && at >= MARK_EVERY) return MARK[place]!;
  return Math.imul(at ^ key, 0x9e3779b1) >>> 24;
}

/** Whether a stream's mark is in the bytes: they are an application's plaintext. */
export function holdsMark(bytes: Uint8Array): boolean {
  const last = bytes.length - MARK.length;
  for (let at = bytes.indexOf(MARK[0]!); at >= 0 && at <= last; at = bytes.indexOf(MARK[0]!, at + 1)) {
    let same = 1;
    while (same < MARK.length && bytes[at + same] === MARK[same]) same++;
    if (same === MARK.length) return true;
  }
  return false;
}

/** How an end behaves. */
export interface Manners {
  readonly sends: number;
  /** Bytes a step, each way. */
  readonly pace: number;
  /** Breaks the connection off after so many bytes sent; -1: never. */
  readonly resetsAfter: number;
  /** Closes without waiting for the other side's end. */
  readonly leaves: boolean;
  /** Reads nothing before the calm, so that everything on the way fills up. */
  readonly readsLate: boolean;
}

const scratch = new Uint8Array(65_536);

export class End {
  readonly socket: SimSocket;
  readonly exchange: Exchange;
  readonly manners: Manners;
  readonly #sendKey: number;
  readonly #receiveKey: number;
  readonly #isClient: boolean;
  sent = 0;
  received = 0;
  finished = false;
  ended = false;
  error = 0;
  done = false;
  #quietUntilMs = 0;

  constructor(exchange: Exchange, socket: SimSocket, manners: Manners, isClient: boolean, received: number) {
    this.exchange = exchange;
    this.socket = socket;
    this.manners = manners;
    this.#isClient = isClient;
    this.received = received;
    const up = exchange.id * 2, down = up + 1;
    this.#sendKey = isClient ? up : down;
    this.#receiveKey = isClient ? down : up;
  }

  /** Reads and writes a little. */
  step(chance: Chance, calm: boolean): void {
    const { socket, manners } = this, nowMs = socket.kernel.nowMs;
    if (this.done || socket.state === "connecting") return;
    if (!calm && nowMs < this.#quietUntilMs) return;
    if (!calm && chance.often(3)) {
      this.#quietUntilMs = nowMs + chance.below(400);
      return;
    }
    const pace = calm ? scratch.length : manners.pace;
    if (!this.ended && (calm || !manners.readsLate)) this.#read(pace);
    if (this.error === 0 && !this.finished) this.#write(pace);
    if (this.finished && !this.ended && manners.leaves) this.exchange.excuse("an end leaves");
    if (this.error !== 0 || (this.finished && (this.ended || manners.leaves))) this.close();
  }

  close(): void {
    if (this.done) return;
    this.done = true;
    this.socket.close();
    const { trace } = this.socket.kernel, who = this.#isClient ? "client" : "server";
    trace.tell(
      `${this.socket.kernel.nowMs} ${who} of ${this.exchange.id} ends: sent ${this.sent}, received ${this.received}, ` +
        `${this.error !== 0 ? `errno ${this.error}` : this.ended ? "in order" : "first"}`,
    );
  }

  #read(pace: number): void {
    const got = this.socket.receive(scratch, 0, pace);
    if (got === -Errno.AGAIN) return;
    if (got === 0) this.ended = true;
    else if (got < 0) this.error = -got;
    for (let at = 0; at < got; at++) {
      if (scratch[at] === this.#expected(this.received + at)) continue;
      hold(
        false,
        `${this.exchange.name}: byte ${this.received + at} of ${this.#isClient ? "down" : "up"} is the one sent`,
      );
    }
    if (got > 0) this.received += got;
    hold(this.received <= this.exchange.bytesTo(this.#isClient), `${this.exchange.name}: no more comes than was sent`);
  }

  #expected(at: number): number {
    return byteAt(this.#receiveKey, at);
  }

  #write(pace: number): void {
    const { manners, socket } = this;
    if (manners.resetsAfter >= 0 && this.sent >= manners.resetsAfter) {
      this.exchange.excuse("an end resets");
      this.done = true;
      socket.abort();
      return;
    }
    const count = Math.min(pace, manners.sends - this.sent);
    if (count > 0) {
      for (let at = 0; at < count; at++) scratch[at] = this.#outgoing(this.sent + at);
      const taken = socket.send(scratch.subarray(0, count));
      if (taken > 0) this.sent += taken;
      else if (taken !== -Errno.AGAIN) this.error = -taken;
    }
    if (this.sent < manners.sends || this.error !== 0) return;
    this.finished = true;
    socket.shutdownWrite();
  }

  /** The client's stream begins with the exchange's number, so that the server knows what to answer. */
  #outgoing(at: number): number {
    if (!this.#isClient || at >= PREAMBLE_BYTES) return byteAt(this.#sendKey, at);
    return preambleByte(this.exchange.id, at);
  }
}

function preambleByte(id: number, at: number): number {
  return at < 4 ? (id >>> (8 * at)) & 255 : ~(id >>> (8 * (at - 4))) & 255;
}

/** One connection of an application to another. */
export class Exchange {
  readonly id: number;
  readonly client: SimPod;
  /** Who may answer: one pod, or the endpoints of a service. */
  readonly targets: readonly SimPod[];
  readonly name: string;
  readonly manners: { readonly client: Manners; readonly server: Manners };
  clientEnd!: End;
  serverEnd: End | undefined = undefined;
  /** Why it need not come to a good end. */
  excused = "";
  /** Its way is not settled: the mesh changed under it. */
  routeUncertain = false;

  constructor(
    id: number,
    client: SimPod,
    targets: readonly SimPod[],
    manners: { readonly client: Manners; readonly server: Manners },
  ) {
    this.id = id;
    this.client = client;
    this.targets = targets;
    this.manners = manners;
    this.name = `exchange ${id} (${client.name} to ${targets.map((it) => it.name).join("|")})`;
  }

  /** The server that answers, once it is known, else all that may. */
  get servers(): readonly SimPod[] {
    return this.serverEnd === undefined
      ? this.targets
      : this.targets.filter((it) => it.namespace === this.serverEnd!.socket.namespace);
  }

  /** How far it is, for a failure's text. */
  describe(): string {
    const show = (end: End | undefined) =>
      end === undefined
        ? "none"
        : `${end.done ? "done" : end.socket.state} sent ${end.sent}/${end.manners.sends} got ${end.received}${
          end.ended ? " end" : ""
        }`;
    return `${this.name}, client ${show(this.clientEnd)}, server ${show(this.serverEnd)}, ${
      this.excused || "undisturbed"
    }`;
  }

  bytesTo(client: boolean): number {
    return client ? this.manners.server.sends : this.manners.client.sends;
  }

  excuse(reason: string): void {
    if (this.excused === "") this.excused = reason;
  }

  get done(): boolean {
    return this.clientEnd.done && (this.serverEnd === undefined || this.serverEnd.done);
  }

  /** Fails unless both sides got all of it and its end. */
  check(): void {
    if (this.excused !== "") return;
    const server = this.serverEnd;
    hold(server !== undefined, `${this.name}: nothing disturbed it, so it reaches the server`);
    for (const [end, who] of [[this.clientEnd, "client"], [server, "server"]] as const) {
      hold(end.error === 0, `${this.name}: nothing disturbed it, so the ${who} meets no error (${end.error})`);
      const due = this.bytesTo(who === "client");
      hold(end.ended && end.received === due, `${this.name}: the ${who} gets all ${due} bytes, not ${end.received}`);
    }
  }
}

/** A pod of the simulated mesh. */
export interface SimPod {
  readonly name: string;
  readonly account: string;
  readonly ns: string;
  readonly ip: IpWords;
  readonly node: number;
  readonly namespace: Namespace;
  /** Redirected, and HBONE in the mesh's eyes. */
  readonly enrolled: boolean;
  readonly known: boolean;
  removed: boolean;
}

/** The name of a pod's workload. */
export function uidOf(pod: SimPod): string {
  return `cluster//Pod/${pod.ns}/${pod.name}`;
}

/** A pod's identity. */
export function uriOf(pod: SimPod): string {
  return `spiffe://cluster.local/ns/${pod.ns}/sa/${pod.account}`;
}

/** An application's listener: it reads whom it serves from the first bytes. */
export class ServerApp {
  readonly pod: SimPod;
  readonly #waiting: { readonly socket: SimSocket; readonly head: Uint8Array; have: number }[] = [];
  readonly #listener;

  constructor(pod: SimPod, port: number) {
    this.pod = pod;
    this.#listener = pod.namespace.listen(port);
  }

  /** Accepts and answers. @param arrived told of each exchange that reaches its server. */
  step(exchanges: readonly Exchange[], chance: Chance, arrived: (exchange: Exchange) => void): void {
    for (let socket = this.#listener.backlog.shift(); socket !== undefined; socket = this.#listener.backlog.shift()) {
      this.#waiting.push({ socket, head: new Uint8Array(PREAMBLE_BYTES), have: 0 });
    }
    for (const waiting of [...this.#waiting]) {
      const { socket, head } = waiting;
      const got = socket.receive(head, waiting.have, PREAMBLE_BYTES - waiting.have);
      if (got > 0) waiting.have += got;
      if (got > 0 && waiting.have < PREAMBLE_BYTES || got === -Errno.AGAIN) continue;
      this.#waiting.splice(this.#waiting.indexOf(waiting), 1);
      if (got <= 0) {
        socket.close();
        continue;
      }
      const id = new DataView(head.buffer).getUint32(0, true), exchange = exchanges[id];
      hold(exchange !== undefined && head.every((byte, at) => byte === preambleByte(id, at)), "streams begin as sent");
      hold(exchange.serverEnd === undefined, `${exchange.name} arrives once`);
      hold(exchange.targets.includes(this.pod), `${exchange.name} arrives where it was sent`);
      exchange.serverEnd = new End(exchange, socket, exchange.manners.server, false, PREAMBLE_BYTES);
      arrived(exchange);
      exchange.serverEnd.step(chance, true);
    }
  }

  /** The pod goes, and its application with it. */
  kill(): void {
    for (const { socket } of this.#waiting.splice(0)) socket.abort();
    this.pod.namespace.closeListener(this.#listener);
  }
}
