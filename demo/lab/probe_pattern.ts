/** A probe's steady load: connections of every kind, with bytes that both ends know beforehand and compare. */
import { Chance } from "../../tests/sim/chance.ts";
import { accepted } from "./accepted.ts";
import { firstWrong, patternSlice } from "./pattern.ts";
import { CONNECT_KINDS, type ConnectKind, readHead, writeHead } from "./pattern_protocol.ts";
import { type Target, writeAll } from "./probe_operations.ts";

const CHUNK_BYTES = 64 * 1024;
const TAIL_BYTES = 8; // a float64: how many bytes the server has had
const STALL_MS = 60_000; // longer than any pause of ours, and than any time-out of ztunnel's

/** What a side has seen so far. */
export interface PatternTally {
  connections: number;
  open: number;
  bytes: number;
  /** Bytes that were not those that belong there: the first of each stream that had one, in words. */
  readonly wrong: string[];
  /** Ends that came in order, but before the last byte, with the caller's or the callee's address. */
  readonly truncated: Record<string, number>;
  /** Clients: what went wrong, by target and reason. */
  readonly failures: Record<string, number>;
  /** Clients: how many of each kind came to a good end. */
  readonly good: Record<string, number>;
}

export interface PatternOrder {
  readonly targets: readonly Target[];
  readonly lanes: number;
  readonly seed: number;
  /** Mean time between one connection's end and the next one's begin, per lane. */
  readonly pauseMs: number;
  readonly bulkBytesMax: number;
  /** How long a connection that is kept may last. */
  readonly longMs: number;
  /** Which ways a connection may go; every way if it is left out. */
  readonly kinds?: readonly ConnectKind[];
}

function newTally(): PatternTally {
  return { connections: 0, open: 0, bytes: 0, wrong: [], truncated: {}, failures: {}, good: {} };
}

function add(counts: Record<string, number>, key: string): void {
  counts[key] = (counts[key] ?? 0) + 1;
}

/** A stream read and compared. */
class Reader {
  at = 0;
  readonly #connection: Deno.Conn;
  readonly #key: number;
  readonly #tally: PatternTally;
  readonly #chunk = new Uint8Array(CHUNK_BYTES);
  #rest = new Uint8Array(0);

  constructor(connection: Deno.Conn, key: number, tally: PatternTally) {
    this.#connection = connection;
    this.#key = key;
    this.#tally = tally;
  }

  /** Reads what there is, at most up to position `limit`. @returns How many bytes; null at the end. */
  async some(limit = Infinity): Promise<number | null> {
    const space = this.#chunk.subarray(0, Math.min(CHUNK_BYTES, limit - this.at));
    const count = await this.#connection.read(space);
    if (count !== null) this.#compare(space.subarray(0, count));
    return count;
  }

  /** Reads up to position `limit`. @returns False when the end came before. */
  async upTo(limit: number): Promise<boolean> {
    while (this.at < limit) if (await this.some(limit) === null) return false;
    return true;
  }

  /** The number behind the stream, or undefined when something else is there. */
  async tail(): Promise<number | undefined> {
    const bytes = new Uint8Array(TAIL_BYTES + 1);
    let have = 0;
    for (let count; (count = await this.#connection.read(bytes.subarray(have))) !== null && have <= TAIL_BYTES;) {
      have += count;
    }
    return have === TAIL_BYTES ? new DataView(bytes.buffer).getFloat64(0) : undefined;
  }

  #compare(bytes: Uint8Array): void {
    const wrong = firstWrong(bytes, this.#key, this.at);
    if (wrong >= 0) this.#tally.wrong.push(`stream ${this.#key} of ${address(this.#connection)} at ${this.at + wrong}`);
    this.at += bytes.length;
    this.#tally.bytes += bytes.length;
  }
}

function address(connection: Deno.Conn): string {
  return (connection.remoteAddr as Deno.NetAddr).hostname.replace(/^::ffff:/, "");
}

async function send(connection: Deno.Conn, key: number, from: number, to: number): Promise<void> {
  for (let at = from; at < to;) {
    const slice = patternSlice(key, at, Math.min(CHUNK_BYTES, to - at));
    await writeAll(connection, slice);
    at += slice.length;
  }
}

async function sendTail(connection: Deno.Conn, received: number): Promise<void> {
  const tail = new Uint8Array(TAIL_BYTES);
  new DataView(tail.buffer).setFloat64(0, received);
  await writeAll(connection, tail);
}

const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

export class PatternServer {
  readonly tally = newTally();

  /** Serves on a port until the probe ends. */
  listen({ port }: { port: number }): Record<never, never> {
    this.#accept(Deno.listen({ hostname: "::", port }));
    return {};
  }

  async #accept(listener: Deno.TcpListener): Promise<void> {
    for await (const connection of accepted(listener)) {
      this.tally.connections++;
      this.tally.open++;
      this.#serve(connection).catch((error) => add(this.tally.failures, reasonOf(error))).finally(() => {
        this.tally.open--;
        connection.close();
      });
    }
  }

  async #serve(connection: Deno.TcpConn): Promise<void> {
    connection.setNoDelay(true);
    const { kind, key, bytes } = await readHead(connection);
    const reader = new Reader(connection, key, this.tally);
    const downKey = key + 1;
    const toEnd = async (enough: number) => {
      while (await reader.some() !== null);
      if (reader.at !== enough) add(this.tally.truncated, address(connection));
    };
    switch (kind) {
      case "short":
      case "long":
        for (let from = 0; await reader.some() !== null; from = reader.at) {
          await send(connection, downKey, from, reader.at);
        }
        return;
      case "upload":
        await toEnd(bytes);
        return await sendTail(connection, reader.at);
      case "bulk":
        await Promise.all([toEnd(bytes), send(connection, downKey, 0, bytes)]);
        return await sendTail(connection, reader.at);
      case "farewell":
        await send(connection, downKey, 0, bytes);
        await connection.closeWrite();
        return await toEnd(bytes);
      case "leave": // The client goes in the middle of it.
        return await send(connection, downKey, 0, Infinity);
      case "thrown": // We go: closing a socket that holds unread bytes makes the kernel reset it (RFC 2525 §2.17).
        await reader.some();
    }
  }
}

export class PatternLoad {
  readonly tally = newTally();
  #lanes: Promise<void>[] = [];
  #order: PatternOrder | undefined;
  #chance = new Chance(0);

  /** Begins, or goes on with other targets. */
  start(order: PatternOrder): Record<never, never> {
    const running = this.#order !== undefined;
    this.#order = order;
    if (running) return {};
    this.#chance = new Chance(order.seed);
    this.#lanes = Array.from({ length: order.lanes }, () => this.#lane(new Chance(this.#chance.bits())));
    return {};
  }

  /** Begins no further connections and waits for those that there are. */
  async stop(): Promise<PatternTally> {
    this.#order = undefined;
    await Promise.all(this.#lanes);
    return this.tally;
  }

  async #lane(chance: Chance): Promise<void> {
    while (this.#order !== undefined) {
      const { targets, pauseMs } = this.#order;
      if (targets.length > 0) await this.#one(this.#order, chance);
      await pause(chance.between(0, 2 * pauseMs));
    }
  }

  async #one(order: PatternOrder, chance: Chance): Promise<void> {
    const target = chance.pick(order.targets),
      kind = order.kinds === undefined && chance.often(50) ? "short" : chance.pick(order.kinds ?? CONNECT_KINDS),
      { tally } = this;
    tally.connections++;
    tally.open++;
    try {
      await this.#converse(target, { kind, chance, order });
      add(tally.good, kind);
    } catch (error) {
      add(tally.failures, `${target.host} ${kind}: ${reasonOf(error)}`);
    } finally {
      tally.open--;
    }
  }

  async #converse(target: Target, { kind, chance, order }: { kind: ConnectKind; chance: Chance; order: PatternOrder }) {
    const connection = await Deno.connect({ hostname: target.host, port: target.port });
    using _closed = closing(connection, order.longMs + STALL_MS);
    connection.setNoDelay(true);
    const key = chance.between(0, 0x7fff_ffff),
      bytes = chance.between(1, kind === "bulk" ? order.bulkBytesMax : 100_000);
    await writeHead(connection, { kind, key, bytes });
    const reader = new Reader(connection, key + 1, this.tally);
    const ended = (at: number) => new Error(`ended in order after ${at === 0 ? "nothing" : "a part"}`);
    const whole = async (limit: number) => {
      if (!await reader.upTo(limit)) throw ended(reader.at);
    };
    const all = (received: number | undefined) => {
      if (received !== bytes) throw new Error(received === undefined ? "no tail" : "the server had not all");
    };
    switch (kind) {
      case "short":
        await send(connection, key, 0, 100);
        return await whole(100);
      case "long": {
        const untilMs = performance.now() + chance.between(0, order.longMs);
        for (let at = 0; performance.now() < untilMs && this.#order !== undefined;) {
          const next = at + chance.between(1, 5_000);
          await send(connection, key, at, next);
          await whole(next);
          at = next;
          await pause(chance.between(0, chance.pick([10, 100, 1_000, 10_000])));
        }
        return;
      }
      case "upload":
        await send(connection, key, 0, bytes);
        await connection.closeWrite();
        return all(await reader.tail());
      case "bulk":
        await Promise.all([send(connection, key, 0, bytes).then(() => connection.closeWrite()), whole(bytes)]);
        return all(await reader.tail());
      case "farewell":
        await whole(bytes);
        if (await reader.some() !== null) throw new Error("bytes after the end");
        return await send(connection, key, 0, bytes);
      case "leave":
        return await whole(bytes); // More lies unread when we close: a reset.
      case "thrown":
        return await throughReset(connection, key);
    }
  }
}

/** Writes until the server has gone, which is what shall happen. */
async function throughReset(connection: Deno.Conn, key: number): Promise<void> {
  const [first] = await Promise.allSettled([
    send(connection, key, 0, Infinity),
    connection.read(new Uint8Array(1)),
  ]);
  if (first.status === "fulfilled" || first.reason instanceof Deno.errors.BadResource) throw new Error("stalled");
}

function closing(connection: Deno.Conn, limitMs: number): Disposable {
  let open = true;
  const close = () => {
    if (open) connection.close();
    open = false;
  };
  const timer = setTimeout(close, limitMs);
  return {
    [Symbol.dispose]: () => {
      clearTimeout(timer);
      close();
    },
  };
}

function reasonOf(error: unknown): string {
  if (error instanceof Deno.errors.BadResource || error instanceof Deno.errors.Interrupted) return "stalled";
  return error instanceof Error ? error.message : String(error);
}
