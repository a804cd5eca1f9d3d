/** The loads: each opens its connections, keeps them busy until it is stopped, and says when all of them stand. */
import { Connection, ENDED, NOTHING_YET, type Target, type User } from "./connection.ts";
import type { Counters } from "./counters.ts";
import { EXCHANGE_BYTES } from "./messages.ts";
import type { Reactor } from "./reactor.ts";

/** A load under way. */
export interface Load {
  /** Whether all its connections stand. */
  readonly ready: boolean;
  stop(): void;
}

/** What every load keeps. */
abstract class BaseLoad implements Load, User {
  protected readonly open = new Set<Connection>();
  protected opened = 0;
  protected stopped = false;

  constructor(
    protected readonly reactor: Reactor,
    protected readonly counters: Counters,
    protected readonly target: Target,
    protected readonly connections: number,
  ) {}

  get ready(): boolean {
    return this.opened >= this.connections;
  }

  protected connect(): Connection {
    const connection = Connection.connect(this.reactor, this.counters, this, this.target);
    this.open.add(connection);
    return connection;
  }

  stop(): void {
    this.stopped = true;
    for (const connection of this.open) connection.close();
    this.open.clear();
  }

  onOpen(_connection: Connection): void {
    this.opened++;
  }
  onReadable(connection: Connection): void {
    if (connection.receive(this.reactor.scratchBytes) === ENDED) connection.lose("upstream ended the connection");
  }
  onWritable(_connection: Connection): void {}
  onLost(connection: Connection): void {
    this.open.delete(connection);
  }
}

const CHUNKS_PER_TURN = 4;

/** Writes as fast as the connections take it. */
export class Upload extends BaseLoad {
  start(): this {
    for (let at = 0; at < this.connections; at++) this.connect();
    return this;
  }
  override onOpen(connection: Connection): void {
    super.onOpen(connection);
    connection.want(true, true);
  }
  override onWritable(connection: Connection): void {
    for (let chunk = 0; chunk < CHUNKS_PER_TURN; chunk++) {
      if (connection.send(this.reactor.scratchBytes) < this.reactor.scratchBytes) return;
    }
  }
}

/** Reads as fast as the bytes come. */
export class Download extends BaseLoad {
  start(): this {
    for (let at = 0; at < this.connections; at++) this.connect();
    return this;
  }
  override onReadable(connection: Connection): void {
    for (let chunk = 0; chunk < CHUNKS_PER_TURN; chunk++) {
      const count = connection.receive(this.reactor.scratchBytes);
      if (count === ENDED) return connection.lose("upstream ended the connection");
      if (count < this.reactor.scratchBytes) return;
    }
  }
}

/** Connects, exchanges 100 bytes once, and from then on just stays. */
export class Idle extends BaseLoad {
  #started = 0;

  start(): this {
    // A few at a time: what counts is what they hold once they stand, not how a storm is weathered.
    for (let at = 0; at < Math.min(32, this.connections); at++) this.#next();
    return this;
  }
  #next(): void {
    if (this.stopped || this.#started >= this.connections) return;
    this.#started++;
    this.connect();
  }
  override onOpen(connection: Connection): void {
    connection.send(EXCHANGE_BYTES);
  }
  override onReadable(connection: Connection): void {
    const count = connection.receive(EXCHANGE_BYTES);
    if (count === ENDED) return connection.lose("upstream ended an idle connection");
    if (count === NOTHING_YET) return;
    connection.mark += count;
    if (connection.mark < EXCHANGE_BYTES) return;
    this.opened++;
    this.counters.completed++;
    this.#next();
  }
}

/** Exchanges 100 bytes on each connection, the next as soon as the answer is there. */
export class Exchanges extends BaseLoad {
  start(): this {
    for (let at = 0; at < this.connections; at++) this.connect();
    return this;
  }
  override onOpen(connection: Connection): void {
    super.onOpen(connection);
    connection.send(EXCHANGE_BYTES);
  }
  override onReadable(connection: Connection): void {
    const count = connection.receive(EXCHANGE_BYTES);
    if (count === ENDED) return connection.lose("upstream ended the connection");
    if (count === NOTHING_YET) return;
    connection.mark += count;
    if (connection.mark < EXCHANGE_BYTES) return;
    connection.mark = 0;
    this.counters.completed++;
    connection.send(EXCHANGE_BYTES);
  }
}

/** New connections without a pause: connect, 100 bytes there, 100 bytes back, closed by upstream. */
export class Churn extends BaseLoad {
  start(): this {
    for (let at = 0; at < this.connections; at++) this.connect();
    return this;
  }
  override onOpen(connection: Connection): void {
    super.onOpen(connection);
    connection.send(EXCHANGE_BYTES);
  }
  override onReadable(connection: Connection): void {
    const count = connection.receive(EXCHANGE_BYTES + 1);
    if (count === NOTHING_YET) return;
    if (count !== ENDED) {
      connection.mark += count;
      return;
    }
    if (connection.closed) return; // Lost, and counted: onLost has begun the next one.
    if (connection.mark !== EXCHANGE_BYTES) return connection.lose(`answer of ${connection.mark} bytes`);
    this.counters.completed++;
    connection.close();
    this.open.delete(connection);
    if (!this.stopped) this.connect();
  }
  override onLost(connection: Connection): void {
    super.onLost(connection);
    if (!this.stopped) this.connect();
  }
}
