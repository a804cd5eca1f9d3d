/** One application's connection, from accept to its one end. What both kinds (tunnel, relay) share. */
import { assert } from "../../base/assert.ts";
import type { Identity } from "../../mesh/identity.ts";
import type { Workload } from "../../mesh/workload.ts";
import { CONNECTION, ConnectionState, Direction } from "../tables/layout.ts";
import { endConnection } from "./close.ts";
import type { Pod } from "./pod.ts";
import type { Shard } from "./shard.ts";

/** Who may be judged again while the connection is open (ZT-120). */
export interface InboundFacts {
  /** The destination workload, as it was when the connection opened. */
  readonly workload: Workload;
  /** undefined: plaintext. */
  readonly identity: Identity | undefined;
}

/** A live connection with its row. Subclasses move the bytes. */
export abstract class Connection {
  readonly shard: Shard;
  readonly pod: Pod;
  /** The row in this worker's CONNECTION table: addresses, counters, what admin sees. -1: carried for another connection. */
  readonly row: number;
  readonly direction: Direction;
  /** The flow that counts it; -1 until the destination is decided (ZT-196). */
  flow = -1;
  /** Set for inbound connections once policy has let them in. */
  facts: InboundFacts | undefined = undefined;
  /** The CONNECT authority, for the log. */
  authority = "";
  closed = false;

  constructor(shard: Shard, pod: Pod, row: number, direction: Direction) {
    this.shard = shard;
    this.pod = pod;
    this.row = row;
    this.direction = direction;
    if (row >= 0) shard.rows.adopt(this);
  }

  /** Closes descriptors and leaves sessions; `close.ts` calls it, once. */
  abstract releaseResources(flag: number): void;

  /** Ends the connection. @param error undefined for an orderly end. */
  end(flag: number, error: string | undefined): void {
    assert(!this.closed, "a connection ends once");
    endConnection(this, flag, error);
  }

  /** Row and flow are given back without an end: another process goes on with the connection, and records it. */
  leaveBehind(): void {
    assert(!this.closed, "only an open connection is left to another process");
    const { shard, row, flow } = this;
    this.closed = true;
    if (flow >= 0) shard.flows.release(flow);
    shard.rows.disown(this);
    shard.rows.release(row);
  }

  /** Bytes from the initiator: received, for both reporters (ZT-197). */
  protected countReceived(bytes: number): void {
    const { connections, flows } = this.shard;
    connections.addF64(this.row, CONNECTION.receivedBytes, bytes);
    if (this.flow >= 0) flows.countBytes(this.flow, bytes, 0);
  }

  protected countSent(bytes: number): void {
    const { connections, flows } = this.shard;
    connections.addF64(this.row, CONNECTION.sentBytes, bytes);
    if (this.flow >= 0) flows.countBytes(this.flow, 0, bytes);
  }

  protected markOpen(): void {
    this.shard.connections.store(this.row, CONNECTION.state, ConnectionState.OPEN);
  }

  protected get outbound(): boolean {
    return this.direction === Direction.OUTBOUND;
  }
}
