/** A worker's live connections: their rows in shared memory, and who owns each. */
import { assert } from "../../base/assert.ts";
import type { Field } from "../../base/shm/layout.ts";
import type { Rows } from "../../base/shm/rows.ts";
import { CONNECTION, ConnectionKind, ConnectionState, Direction, WORKER } from "../tables/layout.ts";
import type { Connection } from "./connection.ts";
import { FairShare } from "./fair_share.ts";
import type { Pod } from "./pod.ts";

export class ConnectionRows {
  readonly #table: Rows<"connection">;
  readonly #workers: Rows<"worker">;
  readonly #worker: number;
  readonly #byRow: (Connection | null)[] = [];
  readonly #freeRows: number[] = [];
  readonly #encoder = new TextEncoder();
  readonly #host = new Uint8Array(128);
  readonly #share: FairShare;
  #rowsUsed = 0;

  constructor(table: Rows<"connection">, workers: Rows<"worker">, worker: number) {
    this.#table = table;
    this.#workers = workers;
    this.#worker = worker;
    this.#share = new FairShare(table.rowCount);
  }

  /**
   * A row for a connection, state OPENING. @param adopted it is open already, in another process. @returns -1 when the table
   * is full, or the pod has its share: the connection is refused, and counted as a glitch.
   */
  acquire(podRow: number, direction: number, kind: number, openedAtMs: number, adopted = false): number {
    const connections = this.#table;
    let row: number;
    if (!adopted && !this.#share.mayTake(podRow)) row = -1;
    else if (this.#freeRows.length > 0) row = this.#freeRows.pop()!;
    else row = this.#rowsUsed < connections.rowCount ? this.#rowsUsed++ : -1;
    if (row < 0) {
      this.#workers.addF64(this.#worker, WORKER.glitches, 1);
      return -1;
    }
    connections.store(row, CONNECTION.control, 0);
    connections.set(row, CONNECTION.epoch, connections.get(row, CONNECTION.epoch) + 1);
    connections.set(row, CONNECTION.flowRow, -1);
    connections.set(row, CONNECTION.podRow, podRow);
    connections.set(row, CONNECTION.direction, direction);
    connections.set(row, CONNECTION.kind, kind);
    connections.set(row, CONNECTION.hostBytes, 0);
    connections.setF64(row, CONNECTION.openedAtMs, openedAtMs);
    connections.setF64(row, CONNECTION.receivedBytes, 0);
    connections.setF64(row, CONNECTION.sentBytes, 0);
    connections.store(row, CONNECTION.state, ConnectionState.OPENING);
    this.#countSocket(direction, kind, 1);
    this.#share.take(podRow);
    this.#workers.store(this.#worker, WORKER.load, this.count);
    return row;
  }

  release(row: number): void {
    const table = this.#table;
    this.#countSocket(table.get(row, CONNECTION.direction), table.get(row, CONNECTION.kind), -1);
    table.store(row, CONNECTION.state, ConnectionState.FREE);
    this.#freeRows.push(row);
    this.#share.give(table.getI32(row, CONNECTION.podRow));
    this.#workers.store(this.#worker, WORKER.load, this.count);
  }

  /** Accepted sockets (ZT-198): every connection's but an inbound tunnel's, whose session has one for all of them. */
  #countSocket(direction: number, kind: number, change: number): void {
    if (direction === Direction.INBOUND && kind === ConnectionKind.HBONE) return;
    this.#workers.addF64At(this.#worker, WORKER.socketsOpen, direction, change);
  }

  setSource(row: number, word0: number, word1: number, word2: number, word3: number, port: number): void {
    this.#setIp(row, CONNECTION.sourceIp, word0, word1, word2, word3);
    this.#table.set(row, CONNECTION.sourcePort, port);
  }
  setDestination(row: number, word0: number, word1: number, word2: number, word3: number, port: number): void {
    this.#setIp(row, CONNECTION.destinationIp, word0, word1, word2, word3);
    this.#table.set(row, CONNECTION.destinationPort, port);
  }
  /** The service that an inbound connection was addressed to, as its client says (ZT-213); longer names are cut. */
  setHost(row: number, host: string): void {
    const { written } = this.#encoder.encodeInto(host, this.#host);
    this.#table.writeBytes(row, CONNECTION.host, this.#host.subarray(0, written));
    this.#table.set(row, CONNECTION.hostBytes, written);
  }
  setActual(row: number, word0: number, word1: number, word2: number, word3: number, port: number): void {
    this.#setIp(row, CONNECTION.actualIp, word0, word1, word2, word3);
    this.#table.set(row, CONNECTION.actualPort, port);
  }

  #setIp(
    row: number,
    field: Field<"connection", "u32[]">,
    word0: number,
    word1: number,
    word2: number,
    word3: number,
  ): void {
    const connections = this.#table;
    connections.setAt(row, field, 0, word0);
    connections.setAt(row, field, 1, word1);
    connections.setAt(row, field, 2, word2);
    connections.setAt(row, field, 3, word3);
  }

  adopt(connection: Connection): void {
    while (this.#byRow.length <= connection.row) this.#byRow.push(null);
    assert(this.#byRow[connection.row] === null, "a row belongs to one connection");
    this.#byRow[connection.row] = connection;
  }

  disown(connection: Connection): void {
    assert(this.#byRow[connection.row] === connection, "a connection ends in the row it began in");
    this.#byRow[connection.row] = null;
  }

  /** Connections that are open. */
  get count(): number {
    return this.#share.taken;
  }

  /** Rows that may be in use: those below this number. */
  get limit(): number {
    return this.#byRow.length;
  }

  /** Who owns a row, if anybody does. */
  at(row: number): Connection | null {
    return this.#byRow[row]!;
  }

  /** Ends every connection of a pod, or all when `pod` is undefined. */
  endAll(pod: Pod | undefined, flag: number, reason: string | undefined): void {
    for (const connection of this.#byRow) {
      if (connection !== null && !connection.closed && (pod === undefined || connection.pod === pod)) {
        connection.end(flag, reason);
      }
    }
  }
}
