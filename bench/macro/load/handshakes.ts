/**
 * Sessions against an inbound listener: TCP connect, full mutual TLS 1.3 handshake, the preface of HTTP/2, and the first
 * bytes that come back, which say that our certificate was verified too. Then a reset.
 */
import { HandshakeStep, type TlsHandshake, type TlsIdentity } from "../../../os/api.ts";
import { Connection, ENDED, NOTHING_YET, type Target, type User } from "./connection.ts";
import type { Load } from "./client_side.ts";
import type { Counters } from "./counters.ts";
import type { Reactor } from "./reactor.ts";

// RFC 9113 §3.4: the client's connection preface with an empty SETTINGS frame. To plain TLS it is 33 bytes like any.
const PREFACE = new TextEncoder().encode("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
const RECORD_HEADER_BYTES = 5, APPLICATION_DATA = 23;

export class Handshakes implements Load, User {
  readonly #open = new Map<Connection, TlsHandshake | undefined>();
  readonly #reactor: Reactor;
  readonly #counters: Counters;
  readonly #identity: TlsIdentity;
  readonly #target: Target;
  readonly #connections: number;
  #opened = 0;
  #stopped = false;

  constructor(
    reactor: Reactor,
    counters: Counters,
    load: { identity: TlsIdentity; target: Target; connections: number },
  ) {
    this.#reactor = reactor;
    this.#counters = counters;
    this.#identity = load.identity;
    this.#target = load.target;
    this.#connections = load.connections;
  }

  start(): this {
    for (let at = 0; at < this.#connections; at++) this.#connect();
    return this;
  }

  get ready(): boolean {
    return this.#opened >= this.#connections;
  }

  stop(): void {
    this.#stopped = true;
    for (const [connection, handshake] of this.#open) {
      handshake?.free();
      connection.reset();
    }
    this.#open.clear();
    this.#identity.free();
  }

  onOpen(connection: Connection): void {
    this.#opened++;
    const handshake = this.#identity.connect(connection.fd);
    this.#open.set(connection, handshake);
    this.#step(connection, handshake);
  }

  onReadable(connection: Connection): void {
    const handshake = this.#open.get(connection);
    if (handshake !== undefined) return this.#step(connection, handshake);
    const count = connection.receive(4096);
    if (count === NOTHING_YET) return;
    if (count === ENDED) return connection.lose("the listener ended the session");
    this.#counters.completed++;
    this.#open.delete(connection);
    connection.reset();
    this.#connect();
  }

  onWritable(connection: Connection): void {
    this.onReadable(connection);
  }

  onLost(connection: Connection): void {
    this.#open.get(connection)?.free();
    this.#open.delete(connection);
    if (!this.#stopped) this.#connect();
  }

  #connect(): void {
    this.#open.set(Connection.connect(this.#reactor, this.#counters, this, this.#target), undefined);
  }

  #step(connection: Connection, handshake: TlsHandshake): void {
    const step = handshake.step();
    if (step === HandshakeStep.FAILED) return connection.lose(`handshake: ${handshake.failure()}`);
    if (step !== HandshakeStep.DONE) return connection.want(true, step === HandshakeStep.WANTS_WRITE);
    const { sealer, opener } = handshake.takeRecords();
    this.#open.set(connection, undefined);
    const { os, scratch } = this.#reactor, at = scratch - os.memory.base;
    os.memory.u8.set(PREFACE, at + RECORD_HEADER_BYTES);
    const bytes = sealer.seal(at, PREFACE.length, APPLICATION_DATA);
    sealer.free();
    opener.free();
    connection.want(true, false);
    if (connection.send(bytes) !== bytes) connection.lose("the preface did not fit the socket");
  }
}
